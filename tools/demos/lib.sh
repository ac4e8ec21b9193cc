# lib.sh lays out one demo host and takes its snapshot. A demo's script sources it,
# then makes links, addresses, routes, rules and sockets, and calls collect.
#
# Everything happens in mount, network and process namespaces of the script's own,
# with a private /run, so that nothing is left when it ends, also when it is killed.
# What differs from one run to the next (dates, process numbers, inodes, ids of
# connections, timers of a bridge, the order of hash tables) is made the same; all
# else is what the tools print.

set -eu -o pipefail

if [ -z "${DEMO_INSIDE:-}" ]; then
	[ "$(id -u)" -eq 0 ] || { echo "$0: must run as root: it makes network namespaces" >&2; exit 1; }
	exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		LC_ALL=C TZ=UTC DEMO_INSIDE=1 \
		unshare --mount --net --pid --fork --kill-child --mount-proc bash "$0" "$@"
fi

here=$(cd "$(dirname "$0")" && pwd)
name=$(basename "$0" .sh)
out=${1:-$here/../../demos/$name}
stamp=1772443800 # when every demo was taken: 2026-03-02T09:30:00Z
backend=nft      # or legacy
kernel=$(uname -r | sed 's/[^0-9.].*//')
hz=$(zcat /proc/config.gz 2>/dev/null | sed -n 's/^CONFIG_HZ=//p')

mount -t tmpfs tmpfs /run
work=/run/demo
mkdir -p "$work"
# A copy of iproute2's names, so that a demo can add tables of its own.
if [ -d /etc/iproute2 ]; then
	cp -r /etc/iproute2 "$work/iproute2"
	mount --bind "$work/iproute2" /etc/iproute2
fi

# netns NAME: a namespace that says nothing of its own accord. What reports on a timer
# (group memberships, IPv6) would leave traces in counters and in the connection
# table that differ from run to run; collect puts the default back.
netns() {
	ip netns add "$1"
	ip netns exec "$1" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 \
		net.ipv6.conf.default.disable_ipv6=1 net.ipv4.igmp_link_local_mcast_reports=0
}

netns host
netns wire
ip -n host link set lo up

# in_host runs a command on the demo host.
in_host() { nsenter --net=/run/netns/host "$@"; }

# sysctls sets values on the demo host.
sysctls() { in_host sysctl -qw "$@"; }

# link NAME INDEX MAC [NETNS PEERMAC]: an interface whose other end is in NETNS.
link() {
	local ns=${4:-wire} mac
	mac=${5:-02:00:00:00:01:$(printf %02x "$2")}
	[ -e "/run/netns/$ns" ] || netns "$ns"
	ip -n host link add "$1" index "$2" address "$3" type veth \
		peer name "w$2" index "$((100 + $2))" address "$mac" netns "$ns"
	ip -n "$ns" link set "w$2" up
	ip -n host link set "$1" up
}

# bridge_link NAME INDEX MAC: a bridge as docker makes one.
bridge_link() {
	ip -n host link add "$1" index "$2" address "$3" type bridge
	ip -n host link set "$1" up
}

# table NUMBER NAME: a routing table with a name.
table() { printf '%s\t%s\n' "$1" "$2" >>/etc/iproute2/rt_tables; }

# rules reads an iptables-save from standard input.
rules() { in_host "iptables-$backend-restore"; }

# listen COMMAND UID PROTO ADDRESS PORT...: an open socket for each port.
listen() {
	local ready="$work/ready.$BASHPID.$RANDOM"
	mkfifo "$ready"
	nsenter --net=/run/netns/host perl "$here/listen.pl" "$ready" "$@" &
	read -r _ <"$ready"
	rm "$ready"
}

# flow ARGUMENTS of conntrack -I: a connection that is there already.
flow() { in_host conntrack -I "$@" >/dev/null 2>&1; }

# settle waits until each interface with a cable says that it is up.
settle() {
	local _
	for _ in $(seq 100); do
		[ -n "$(in_host ip -o link show |
			grep -v ' lo:' | grep -v 'LOWER_UP.* state UP ' || true)" ] || return 0
		sleep 0.05
	done
	echo "$name: an interface does not come up" >&2
	return 1
}

date_line() { date -u -d "@$stamp" '+%a %b %e %H:%M:%S %Y'; }

# steady_sockets sorts the sockets and gives processes and inodes numbers in the
# order of the lines. A socket's second line goes with its first.
steady_sockets() {
	awk '/^\t/ { printf "\001%s", $0; next } { printf "%s%s", n++ ? "\n" : "", $0 }
		END { if (n) print "" }' | sort -b -k1,1 -k5,5 | awk '{
		line = $0
		if (match(line, /pid=[0-9]+/)) {
			p = substr(line, RSTART, RLENGTH)
			if (!(p in pid)) pid[p] = "pid=" (700 + 12 * ++npid)
			sub(p, pid[p], line)
		}
		sub(/ino:[0-9]+/, "ino:" (20000 + NR), line)
		sub(/sk:[0-9a-f]+/, "sk:" NR, line)
		sub(/\001/, "\n", line)
		print line
	}'
}

# steady_list sorts the elements of a JSON list of flat objects.
steady_list() {
	perl -0777 -ne 's/^\[\s*|\s*\]\s*$//g; print "[", join(",", sort split /(?<=\}),(?=\{)/), "]\n"'
}

# steady_flows sorts and numbers the connections, and takes back the seconds that
# passed since they were made: the demos use whole tens.
steady_flows() {
	sort | awk '{
		$5 = int(($5 + 9) / 10) * 10
		sub(/ id=[0-9]+/, " id=" (1000 + NR))
		print
	}'
}

# collect writes the snapshot. TITLE, PACKET and ABOUT go into demo.json.
collect() {
	settle
	rm -rf "$out"
	mkdir -p "$out"
	printf '{"host":"%s","kernel":"%s",%s"time":"%s"}\n' "$name" "$kernel" \
		"${hz:+\"hz\":$hz,}" "$(date -u -d "@$stamp" +%Y-%m-%dT%H:%M:%SZ)" >"$out/meta.json"
	demo_json "$@" >"$out/demo.json"
	in_host "xtables-$backend-multi" iptables-save -c |
		sed "s/^\(# .* on \).*/\1$(date_line)/" >"$out/iptables-save"
	[ "$backend" = legacy ] || in_host nft -j list ruleset >"$out/nft.json"
	in_host ip -d -j link | sed -E 's/("[a-z_]*timer":) *[0-9.]+/\10.00/g' >"$out/ip-link.json"
	in_host ip -d -j addr | sed -E 's/("[a-z_]*timer":) *[0-9.]+/\10.00/g' >"$out/ip-addr.json"
	in_host ip -d -j neigh | steady_list >"$out/ip-neigh.json"
	in_host ip -4 -d -j rule >"$out/ip-rule.json"
	in_host ip -4 -d -o route show table all >"$out/ip-route"
	[ ! -e /etc/iproute2/rt_tables ] || cat /etc/iproute2/rt_tables >"$out/rt_tables"
	if [ -n "$(in_host ip -o link show type bridge)" ]; then
		in_host bridge -d -j fdb >"$out/bridge-fdb.json"
		in_host bridge -d -j link >"$out/bridge-link.json"
	fi
	in_host ipset save >"$out/ipset-save"
	[ -s "$out/ipset-save" ] || rm "$out/ipset-save"
	in_host conntrack -L -o extended,id 2>/dev/null | steady_flows >"$out/conntrack"
	sysctls net.ipv4.igmp_link_local_mcast_reports=1
	in_host sysctl -a 2>/dev/null | grep '^net\.' >"$out/sysctl"
	in_host ss -H -n -a -t -u -w -S -p -e --inet-sockopt | steady_sockets >"$out/sockets"
	echo "$name: $(find "$out" -type f | wc -l) files"
}

demo_json() {
	perl -e 'for (@ARGV) { s/([\\"])/\\$1/g; s/\s+/ /g }
		printf qq({\n  "title": "%s",\n  "packet": "%s",\n  "about": "%s"\n}\n), @ARGV' "$@"
}
