#!/usr/bin/env bash
# A Kubernetes node: kube-proxy in iptables mode, Calico without encapsulation, four
# pods here and some on other nodes. Names of chains and interfaces are made as kube-proxy
# and Calico make them; the hashes in Calico's comments only have the form of real ones.
. "$(dirname "$0")/lib.sh"
backend=legacy

# base32_16 TEXT: what kube-proxy makes of a service port's name.
base32_16() {
	printf '%b' "$(printf %s "$1" | sha256sum | cut -d' ' -f1 | sed 's/../\\x&/g')" |
		base32 | cut -c1-16
}

# base64_16 TEXT: a hash that looks like Felix's.
base64_16() {
	printf '%b' "$(printf %s "$1" | sha256sum | cut -d' ' -f1 | sed 's/../\\x&/g')" |
		base64 -w0 | tr '+/' '-_' | cut -c1-16
}

# wl NAMESPACE.POD: the name of a pod's interface.
wl() { printf 'cali%s' "$(printf %s "$1" | sha1sum | cut -c1-11)"; }

# --- the node ---------------------------------------------------------------------

declare -A pod=(
	[kube-system.coredns-7c65d6cfc9-x2v8k]=10.244.1.3
	[shop.web-6f7d9c5b8-4kqzn]=10.244.1.5
	[shop.db-0]=10.244.1.6
	[shop.cart-5d89f7c6b-tq7ld]=10.244.1.7
)
pods=(kube-system.coredns-7c65d6cfc9-x2v8k shop.web-6f7d9c5b8-4kqzn shop.db-0
	shop.cart-5d89f7c6b-tq7ld)

link eth0 2 52:54:00:80:00:02
ip -n host addr add 192.0.2.10/24 brd + dev eth0
ip -n host route add default via 192.0.2.1 dev eth0
sysctls net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=1

n=5
for p in "${pods[@]}"; do
	n=$((n + 1))
	dev=$(wl "$p")
	link "$dev" "$n" ee:ee:ee:ee:ee:ee "pod$n" "02:00:0a:f4:01:$(printf %02x "${pod[$p]##*.}")"
	sysctls "net.ipv4.conf.$dev.proxy_arp=1" "net.ipv4.conf.$dev.rp_filter=1" \
		"net.ipv4.neigh.$dev.proxy_delay=0"
	ip -n host route add "${pod[$p]}" dev "$dev" scope link
	ip -n host neigh add "${pod[$p]}" dev "$dev" nud stale \
		lladdr "02:00:0a:f4:01:$(printf %02x "${pod[$p]##*.}")"
done
ip -n host route add blackhole 10.244.1.0/26 proto bird
ip -n host route add 10.244.0.0/26 via 192.0.2.2 dev eth0 proto bird
ip -n host route add 10.244.2.0/26 via 192.0.2.11 dev eth0 proto bird
ip -n host neigh add 192.0.2.1 lladdr 52:54:00:fe:00:01 dev eth0 nud stale
ip -n host neigh add 192.0.2.2 lladdr 52:54:00:80:01:02 dev eth0 nud stale
ip -n host neigh add 192.0.2.11 lladdr 52:54:00:80:01:11 dev eth0 nud stale

# --- Calico's sets ----------------------------------------------------------------

set_of() { # set_of NAME TYPE MEMBER...
	local s=$1
	in_host ipset create "$s" "$2" family inet maxelem 1048576 initval 0x2c0ffee1
	shift 2
	for m in "$@"; do in_host ipset add "$s" "$m"; done
}
web_set=cali40s:$(base64_16 "app == 'web'")xQ0
cart_set=cali40s:$(base64_16 "app == 'cart'")k3A
set_of cali40all-ipam-pools hash:net 10.244.0.0/16
set_of cali40masq-ipam-pools hash:net 10.244.0.0/16
set_of cali40this-host hash:ip 127.0.0.0 127.0.0.1 192.0.2.10
set_of "$web_set" hash:net 10.244.1.5 10.244.2.9
set_of "$cart_set" hash:net 10.244.1.7 10.244.2.14

# --- rules ------------------------------------------------------------------------

r="$work/rules"
mkdir -p "$r"
declare -A seen
# chain TABLE NAME and rule TABLE CHAIN WORDS collect one table each in a file.
chain() { [ -n "${seen[$1/$2]:-}" ] || { seen[$1/$2]=1; echo ":$2 - [0:0]" >>"$r/$1.chains"; }; }
rule() {
	local t=$1 c=$2
	shift 2
	chain "$t" "$c"
	echo "-A $c $*" >>"$r/$t.rules"
}
# cali TABLE CHAIN WORDS: a rule as Felix writes it, with its hash.
cali() {
	local t=$1 c=$2
	shift 2
	rule "$t" "$c" "-m comment --comment \"cali:$(base64_16 "$t $c $*")\"" "$@"
}
text() { printf -- '-m comment --comment "%s"' "$*"; }

# Felix: raw and mangle.
cali raw PREROUTING -j cali-PREROUTING
cali raw OUTPUT -j cali-OUTPUT
for c in cali-from-host-endpoint cali-to-host-endpoint cali-rpf-skip; do chain raw "$c"; done
cali raw cali-PREROUTING -j MARK --set-xmark 0x0/0xf0000
cali raw cali-PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000
cali raw cali-PREROUTING -m mark --mark 0x40000/0x40000 -j cali-rpf-skip
cali raw cali-PREROUTING -m mark --mark 0x40000/0x40000 -m rpfilter --validmark --invert -j DROP
cali raw cali-PREROUTING -m mark --mark 0x0/0x40000 -j cali-from-host-endpoint
cali raw cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
cali raw cali-OUTPUT -j MARK --set-xmark 0x0/0xf0000
cali raw cali-OUTPUT -j cali-to-host-endpoint
cali raw cali-OUTPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
chain mangle cali-from-host-endpoint
chain mangle cali-to-host-endpoint
cali mangle PREROUTING -j cali-PREROUTING
cali mangle POSTROUTING -j cali-POSTROUTING
cali mangle cali-PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
cali mangle cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
cali mangle cali-PREROUTING -j cali-from-host-endpoint
cali mangle cali-PREROUTING "$(text Host endpoint policy accepted packet.)" -m mark --mark 0x10000/0x10000 -j ACCEPT
cali mangle cali-POSTROUTING -m mark --mark 0x10000/0x10000 -j RETURN
cali mangle cali-POSTROUTING -j MARK --set-xmark 0x0/0xf0000
cali mangle cali-POSTROUTING -m conntrack --ctstate DNAT -j cali-to-host-endpoint
cali mangle cali-POSTROUTING "$(text Host endpoint policy accepted packet.)" -m mark --mark 0x10000/0x10000 -j RETURN
for t in mangle nat filter; do chain $t KUBE-PROXY-CANARY; chain $t KUBE-KUBELET-CANARY; done

# Felix: nat.
for c in cali-fip-dnat cali-fip-snat; do chain nat "$c"; done
cali nat PREROUTING -j cali-PREROUTING
cali nat OUTPUT -j cali-OUTPUT
cali nat POSTROUTING -j cali-POSTROUTING
cali nat cali-PREROUTING -j cali-fip-dnat
cali nat cali-OUTPUT -j cali-fip-dnat
cali nat cali-POSTROUTING -j cali-fip-snat
cali nat cali-POSTROUTING -j cali-nat-outgoing
cali nat cali-nat-outgoing -m set --match-set cali40masq-ipam-pools src \
	-m set ! --match-set cali40all-ipam-pools dst -j MASQUERADE --random-fully

# kube-proxy: nat.
rule nat PREROUTING "$(text kubernetes service portals)" -j KUBE-SERVICES
rule nat OUTPUT "$(text kubernetes service portals)" -j KUBE-SERVICES
rule nat POSTROUTING "$(text kubernetes postrouting rules)" -j KUBE-POSTROUTING
chain nat KUBE-SERVICES
chain nat KUBE-NODEPORTS
rule nat KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
rule nat KUBE-POSTROUTING -j MARK --xor-mark 0x4000
rule nat KUBE-POSTROUTING "$(text kubernetes service traffic requiring SNAT)" -j MASQUERADE --random-fully
rule nat KUBE-MARK-MASQ -j MARK --or-mark 0x4000

# kube-proxy: filter, after Felix, which inserts its own first.
cali filter INPUT -j cali-INPUT
rule filter INPUT -m conntrack --ctstate NEW "$(text kubernetes load balancer firewall)" -j KUBE-PROXY-FIREWALL
rule filter INPUT "$(text kubernetes health check service ports)" -j KUBE-NODEPORTS
rule filter INPUT -m conntrack --ctstate NEW "$(text kubernetes externally-visible service portals)" -j KUBE-EXTERNAL-SERVICES
rule filter INPUT -j KUBE-FIREWALL
cali filter FORWARD -j cali-FORWARD
rule filter FORWARD -m conntrack --ctstate NEW "$(text kubernetes load balancer firewall)" -j KUBE-PROXY-FIREWALL
rule filter FORWARD "$(text kubernetes forwarding rules)" -j KUBE-FORWARD
rule filter FORWARD -m conntrack --ctstate NEW "$(text kubernetes service portals)" -j KUBE-SERVICES
rule filter FORWARD -m conntrack --ctstate NEW "$(text kubernetes externally-visible service portals)" -j KUBE-EXTERNAL-SERVICES
cali filter FORWARD "$(text Policy explicitly accepted packet.)" -m mark --mark 0x10000/0x10000 -j ACCEPT
cali filter FORWARD -j MARK --set-xmark 0x10000/0x10000
cali filter OUTPUT -j cali-OUTPUT
rule filter OUTPUT -m conntrack --ctstate NEW "$(text kubernetes load balancer firewall)" -j KUBE-PROXY-FIREWALL
rule filter OUTPUT -m conntrack --ctstate NEW "$(text kubernetes service portals)" -j KUBE-SERVICES
rule filter OUTPUT -j KUBE-FIREWALL
for c in KUBE-EXTERNAL-SERVICES KUBE-NODEPORTS KUBE-SERVICES; do chain filter "$c"; done
rule filter KUBE-FIREWALL "$(text block incoming localnet connections)" ! -s 127.0.0.0/8 -d 127.0.0.0/8 \
	-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
rule filter KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
rule filter KUBE-FORWARD "$(text kubernetes forwarding rules)" -m mark --mark 0x4000/0x4000 -j ACCEPT
rule filter KUBE-FORWARD "$(text kubernetes forwarding conntrack rule)" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT

# svc NAME PROTO CLUSTERIP PORT ENDPOINT...: a service port with its endpoints.
# NODEPORT, LB, RANGES and AFFINITY add to it.
svc() {
	local name=$1 proto=$2 ip=$3 port=$4 hash svc ext sep left p e
	shift 4
	if [ $# -eq 0 ]; then
		rule filter KUBE-SERVICES "$(text "$name has no endpoints")" -d "$ip/32" -p "$proto" -m "$proto" \
			--dport "$port" -j REJECT
		return
	fi
	hash=$(base32_16 "$name$proto")
	svc=KUBE-SVC-$hash ext=KUBE-EXT-$hash
	rule nat KUBE-SERVICES "$(text "$name cluster IP")" -d "$ip/32" -p "$proto" -m "$proto" --dport "$port" -j "$svc"
	rule nat "$svc" "$(text "$name cluster IP")" ! -s 10.244.0.0/16 -d "$ip/32" -p "$proto" -m "$proto" \
		--dport "$port" -j KUBE-MARK-MASQ
	if [ -n "${NODEPORT:-}${LB:-}" ]; then
		rule nat "$ext" "$(text "masquerade traffic for $name external destinations")" -j KUBE-MARK-MASQ
		rule nat "$ext" -j "$svc"
	fi
	[ -z "${NODEPORT:-}" ] || rule nat KUBE-NODEPORTS "$(text "$name")" -p "$proto" -m "$proto" --dport "$NODEPORT" -j "$ext"
	if [ -n "${LB:-}" ]; then
		local fw=KUBE-FW-$hash
		rule nat KUBE-SERVICES "$(text "$name loadbalancer IP")" -d "$LB/32" -p "$proto" -m "$proto" --dport "$port" -j "$fw"
		for p in $RANGES; do rule nat "$fw" "$(text "$name loadbalancer IP")" -s "$p" -j "$ext"; done
		rule nat "$fw" "$(text "other traffic to $name will be dropped by KUBE-PROXY-FIREWALL")"
		rule filter KUBE-PROXY-FIREWALL "$(text "$name traffic not accepted by $fw")" -d "$LB/32" -p "$proto" \
			-m "$proto" --dport "$port" -j DROP
	fi
	if [ -n "${AFFINITY:-}" ]; then
		for e in "$@"; do
			sep=KUBE-SEP-$(base32_16 "$name$proto$e")
			rule nat "$svc" "$(text "$name -> $e")" -m recent --name "$sep" --rcheck --seconds "$AFFINITY" \
				--reap --rsource -j "$sep"
		done
	fi
	left=$#
	for e in "$@"; do
		sep=KUBE-SEP-$(base32_16 "$name$proto$e")
		if [ "$left" -gt 1 ]; then
			rule nat "$svc" "$(text "$name -> $e")" -m statistic --mode random \
				--probability "$(awk "BEGIN { printf \"%.10f\", 1 / $left }")" -j "$sep"
		else
			rule nat "$svc" "$(text "$name -> $e")" -j "$sep"
		fi
		left=$((left - 1))
		rule nat "$sep" "$(text "$name")" -s "${e%:*}/32" -j KUBE-MARK-MASQ
		rule nat "$sep" "$(text "$name")" ${AFFINITY:+-m recent --name "$sep" --set --rsource} \
			-p "$proto" -m "$proto" -j DNAT --to-destination "$e"
	done
}
svc default/kubernetes:https tcp 10.96.0.1 443 192.0.2.2:6443
svc kube-system/kube-dns:dns udp 10.96.0.10 53 10.244.0.4:53 10.244.1.3:53
svc kube-system/kube-dns:dns-tcp tcp 10.96.0.10 53 10.244.0.4:53 10.244.1.3:53
svc kube-system/kube-dns:metrics tcp 10.96.0.10 9153 10.244.0.4:9153 10.244.1.3:9153
NODEPORT=30080 svc shop/web:http tcp 10.96.88.7 80 10.244.1.5:8080 10.244.2.9:8080
svc shop/db:postgres tcp 10.96.140.21 5432 10.244.1.6:5432
AFFINITY=10800 svc shop/cart:http tcp 10.96.61.130 80 10.244.1.7:8080 10.244.2.14:8080
NODEPORT=31443 LB=198.51.100.81 RANGES="203.0.113.0/24" svc shop/admin:https tcp 10.96.201.5 443 10.244.2.20:8443
svc shop/legacy:http tcp 10.96.17.44 80
rule nat KUBE-SERVICES "$(text "kubernetes service nodeports; NOTE: this must be the last rule in this chain")" \
	-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS

# Felix: filter.
for c in cali-cidr-block cali-from-hep-forward cali-from-host-endpoint cali-to-hep-forward \
	cali-to-host-endpoint; do chain filter "$c"; done
cali filter cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
cali filter cali-FORWARD -m mark --mark 0x0/0x10000 -j cali-from-hep-forward
cali filter cali-FORWARD -i cali+ -j cali-from-wl-dispatch
cali filter cali-FORWARD -o cali+ -j cali-to-wl-dispatch
cali filter cali-FORWARD -j cali-to-hep-forward
cali filter cali-FORWARD -j cali-cidr-block
cali filter cali-INPUT -i cali+ -g cali-wl-to-host
cali filter cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
cali filter cali-INPUT -j MARK --set-xmark 0x0/0xf0000
cali filter cali-INPUT -j cali-from-host-endpoint
cali filter cali-INPUT "$(text Host endpoint policy accepted packet.)" -m mark --mark 0x10000/0x10000 -j ACCEPT
cali filter cali-OUTPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
cali filter cali-OUTPUT -o cali+ -j RETURN
cali filter cali-OUTPUT -j MARK --set-xmark 0x0/0xf0000
cali filter cali-OUTPUT -m conntrack ! --ctstate DNAT -j cali-to-host-endpoint
cali filter cali-OUTPUT "$(text Host endpoint policy accepted packet.)" -m mark --mark 0x10000/0x10000 -j ACCEPT
cali filter cali-wl-to-host -j cali-from-wl-dispatch
cali filter cali-wl-to-host "$(text Configured DefaultEndpointToHostAction)" -j ACCEPT

# policy NAME WORDS...: a network policy's ingress chain; each argument is one rule.
policy() {
	local c w
	c=cali-pi-$(base64_16 "$1")
	shift
	chain filter "$c"
	for w in "$@"; do
		# shellcheck disable=SC2086 # the words of a rule
		cali filter "$c" $w -j MARK --set-xmark 0x10000/0x10000
		cali filter "$c" -m mark --mark 0x10000/0x10000 -j RETURN
	done
}
policy shop/web "-p tcp -m multiport --dports 8080"
policy shop/db "-p tcp -m set --match-set $web_set src -m multiport --dports 5432" \
	"-p tcp -m set --match-set $cart_set src -m multiport --dports 5432"
for p in kns.kube-system kns.shop; do
	cali filter "cali-pri-$p" -j MARK --set-xmark 0x10000/0x10000
	cali filter "cali-pri-$p" -m mark --mark 0x10000/0x10000 -j RETURN
	cali filter "cali-pro-$p" -j MARK --set-xmark 0x10000/0x10000
	cali filter "cali-pro-$p" -m mark --mark 0x10000/0x10000 -j RETURN
done
# endpoint POD: the chains to and from one pod.
endpoint() {
	local dev ns=${1%%.*} app=${1#*.} c way
	dev=$(wl "$1")
	app=${app%%-*}
	for way in tw fw; do
		c=cali-$way-$dev
		cali filter "$c" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		cali filter "$c" -m conntrack --ctstate INVALID -j DROP
		cali filter "$c" -j MARK --set-xmark 0x0/0x30000
		if [ "$way" = fw ]; then
			cali filter "$c" "$(text Drop VXLAN encapped packets originating in workloads)" -p udp -m multiport --dports 4789 -j DROP
			cali filter "$c" "$(text Drop IPinIP encapped packets originating in workloads)" -p 4 -j DROP
		elif [ -n "${seen[filter/cali-pi-$(base64_16 "$ns/$app")]:-}" ]; then
			cali filter "$c" "$(text Start of policies)" -j MARK --set-xmark 0x0/0x20000
			cali filter "$c" -m mark --mark 0x0/0x20000 -j "cali-pi-$(base64_16 "$ns/$app")"
			cali filter "$c" "$(text Return if policy accepted)" -m mark --mark 0x10000/0x10000 -j RETURN
			cali filter "$c" "$(text Drop if no policies passed packet)" -m mark --mark 0x0/0x20000 -j DROP
			continue
		fi
		local pr=cali-pri-kns.$ns
		[ "$way" = tw ] || pr=cali-pro-kns.$ns
		cali filter "$c" -j "$pr"
		cali filter "$c" "$(text Return if profile accepted)" -m mark --mark 0x10000/0x10000 -j RETURN
		cali filter "$c" "$(text Drop if no profiles matched)" -j DROP
	done
	cali filter cali-from-wl-dispatch -i "$dev" -g "cali-fw-$dev"
	cali filter cali-to-wl-dispatch -o "$dev" -g "cali-tw-$dev"
}
for p in "${pods[@]}"; do endpoint "$p"; done
cali filter cali-from-wl-dispatch "$(text Unknown interface)" -j DROP
cali filter cali-to-wl-dispatch "$(text Unknown interface)" -j DROP

for t in raw mangle nat filter; do
	echo "*$t"
	cat "$r/$t.chains" "$r/$t.rules"
	echo COMMIT
done >"$r/all"
rules <"$r/all"

listen kubelet 0 tcp 0.0.0.0 10250
listen kube-proxy 0 tcp 0.0.0.0 10256
listen kube-proxy 0 tcp 127.0.0.1 10249
listen sshd 0 tcp 0.0.0.0 22
listen calico-node 0 tcp 127.0.0.1 9099
listen bird 0 tcp 0.0.0.0 179

flow -p tcp -s 10.244.1.5 -d 10.96.140.21 --sport 50022 --dport 5432 \
	--reply-src 10.244.1.6 --reply-dst 10.244.1.5 --reply-port-src 5432 --reply-port-dst 50022 \
	--state ESTABLISHED -u ASSURED,SEEN_REPLY -t 86390
flow -p tcp -s 192.0.2.10 -d 10.96.0.1 --sport 38712 --dport 443 \
	--reply-src 192.0.2.2 --reply-dst 192.0.2.10 --reply-port-src 6443 --reply-port-dst 38712 \
	--state ESTABLISHED -u ASSURED,SEEN_REPLY -t 86390

collect "A Kubernetes node with kube-proxy and Calico" \
	"tcp 203.0.113.7 to 192.0.2.10:30080 in eth0" \
	"NodePort 30080 of shop/web has two endpoints: half of the connections go to the pod on this
	node, half to node 192.0.2.11. Calico's policy lets port 8080 of web in; both ways the source is
	masqueraded. 10.96.140.21:5432 is the database, open to pods of web and cart only; 198.51.100.81:443
	is open to 203.0.113.0/24 only; 10.96.17.44:80 has no endpoints."
