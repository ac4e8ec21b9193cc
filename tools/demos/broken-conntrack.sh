#!/usr/bin/env bash
# A container that receives syslog was started anew and has another address. The rules
# know it, the connection of a sender with a fixed source port does not.
. "$(dirname "$0")/lib.sh"

link eth0 2 52:54:00:70:00:02
bridge_link docker0 3 02:42:70:00:00:03
link veth83b1d60 4 02:83:b1:d6:00:04 syslog 02:42:ac:11:00:03
ip -n host link set veth83b1d60 master docker0
ip -n host addr add 192.0.2.70/24 brd + dev eth0
ip -n host addr add 172.17.0.1/16 brd + dev docker0
ip -n host route add default via 192.0.2.1 dev eth0

ip -n host neigh add 192.0.2.1 lladdr 52:54:00:fe:00:01 dev eth0 nud stale
ip -n host neigh add 172.17.0.3 lladdr 02:42:ac:11:00:03 dev docker0 nud stale
bridge -n host fdb add 02:42:ac:11:00:03 dev veth83b1d60 master static

sysctls net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1

rules <<'RULES'
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER ! -i docker0 -p udp -m udp --dport 5514 -j DNAT --to-destination 172.17.0.3:514
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER - [0:0]
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 -j ACCEPT
-A DOCKER -d 172.17.0.0/16 ! -i docker0 -o docker0 -p udp -m udp --dport 514 -j ACCEPT
COMMIT
RULES

listen sshd 0 tcp 0.0.0.0 22

# The sender's entry from before: made towards the old container, 172.17.0.2.
flow -p udp -s 198.51.100.30 -d 192.0.2.70 --sport 514 --dport 5514 \
	--dst-nat 172.17.0.2:514 -t 30
# Another sender came later.
flow -p udp -s 198.51.100.31 -d 192.0.2.70 --sport 40231 --dport 5514 \
	--dst-nat 172.17.0.3:514 -t 20

collect "A connection remembers a container that is gone" \
	"udp 198.51.100.30:514 to 192.0.2.70:5514 in eth0" \
	"Messages of one sender are lost, those of others arrive. DOCKER 1 of nat names the new container
	172.17.0.3, but nat is asked only for a connection's first packet: the entry of
	198.51.100.30:514, which each message keeps alive, still leads to 172.17.0.2, where nobody answers
	ARP. conntrack -D -p udp --orig-src 198.51.100.30 --orig-port-src 514 mends it."
