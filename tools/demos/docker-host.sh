#!/usr/bin/env bash
# A host with Docker: the default bridge, a network of a compose project with a web
# server and its database, published ports, and a rule of the owner in DOCKER-USER.
. "$(dirname "$0")/lib.sh"

shop=br-3f1c0a9d52e7

link eth0 2 52:54:00:20:00:02
bridge_link docker0 3 02:42:5c:00:00:03
bridge_link "$shop" 4 02:42:5c:00:00:04
port() { # port NAME INDEX MAC BRIDGE CONTAINER MAC
	link "$1" "$2" "$3" "$5" "$6"
	ip -n host link set "$1" master "$4"
}
port veth5a31c04 5 02:5a:31:c0:40:05 docker0 metrics 02:42:ac:11:00:02
port vethb7710e9 6 02:b7:71:0e:90:06 "$shop" web 02:42:ac:14:00:02
port vethd204f18 7 02:d2:04:f1:80:07 "$shop" db 02:42:ac:14:00:03
ip -n host addr add 192.0.2.20/24 brd + dev eth0
ip -n host addr add 172.17.0.1/16 brd + dev docker0
ip -n host addr add 172.20.0.1/16 brd + dev "$shop"
ip -n host route add default via 192.0.2.1 dev eth0

ip -n host neigh add 192.0.2.1 lladdr 52:54:00:fe:00:01 dev eth0 nud stale
ip -n host neigh add 172.17.0.2 lladdr 02:42:ac:11:00:02 dev docker0 nud stale
ip -n host neigh add 172.20.0.2 lladdr 02:42:ac:14:00:02 dev "$shop" nud stale
ip -n host neigh add 172.20.0.3 lladdr 02:42:ac:14:00:03 dev "$shop" nud stale
bridge -n host fdb add 02:42:ac:11:00:02 dev veth5a31c04 master static
bridge -n host fdb add 02:42:ac:14:00:02 dev vethb7710e9 master static
bridge -n host fdb add 02:42:ac:14:00:03 dev vethd204f18 master static

sysctls net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 \
	net.bridge.bridge-nf-call-ip6tables=1 net.bridge.bridge-nf-call-arptables=1

rules <<RULES
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
-A PREROUTING -d 172.20.0.2/32 ! -i $shop -j DROP
-A PREROUTING -d 172.20.0.3/32 ! -i $shop -j DROP
-A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 9090 -j DROP
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
:DOCKER-BRIDGE - [0:0]
:DOCKER-CT - [0:0]
:DOCKER-FORWARD - [0:0]
:DOCKER-INTERNAL - [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-FORWARD
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 9090 -j ACCEPT
-A DOCKER -d 172.20.0.2/32 ! -i $shop -o $shop -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER ! -i docker0 -o docker0 -j DROP
-A DOCKER ! -i $shop -o $shop -j DROP
-A DOCKER-BRIDGE -o docker0 -j DOCKER
-A DOCKER-BRIDGE -o $shop -j DOCKER
-A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-CT -o $shop -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A DOCKER-FORWARD -j DOCKER-CT
-A DOCKER-FORWARD -j DOCKER-INTERNAL
-A DOCKER-FORWARD -j DOCKER-BRIDGE
-A DOCKER-FORWARD -i docker0 -j ACCEPT
-A DOCKER-FORWARD -i $shop -j ACCEPT
-A DOCKER-USER -i eth0 -p tcp -m conntrack --ctorigdstport 8080 --ctdir ORIGINAL ! --ctorigsrc 198.51.100.0/24 -m comment --comment "the shop is not open to all yet" -j REJECT --reject-with tcp-reset
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 172.20.0.0/16 ! -o $shop -j MASQUERADE
-A DOCKER -d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 9090 -j DNAT --to-destination 172.17.0.2:9090
-A DOCKER ! -i $shop -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.20.0.2:80
COMMIT
RULES

listen sshd 0 tcp 0.0.0.0 22
listen docker-proxy 0 tcp 127.0.0.1 9090
listen docker-proxy 0 tcp 0.0.0.0 8080

flow -p tcp -s 172.20.0.2 -d 172.20.0.3 --sport 44210 --dport 5432 \
	--reply-src 172.20.0.3 --reply-dst 172.20.0.2 --reply-port-src 5432 --reply-port-dst 44210 \
	--state ESTABLISHED -u ASSURED,SEEN_REPLY -t 431990

collect "A Docker host with a published port" \
	"tcp 198.51.100.7 to 192.0.2.20:8080 in eth0" \
	"nat PREROUTING sends what is addressed to the host itself to DOCKER, which rewrites port 8080
	to the web container; FORWARD asks DOCKER-USER first, then DOCKER-FORWARD. From a source
	outside of 198.51.100.0/24 the owner's rule in DOCKER-USER answers with a reset, and to port
	8081 nothing is published."
