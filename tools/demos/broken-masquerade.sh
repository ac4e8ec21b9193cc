#!/usr/bin/env bash
# A router whose uplink is unnumbered: it has an address of link scope only, so that
# MASQUERADE borrows one from another interface. That was the public one of lan0 until
# docker0 came to stand before it.
. "$(dirname "$0")/lib.sh"

link wan0 2 52:54:00:50:00:02
bridge_link docker0 3 02:42:50:00:00:03
link veth51c07a2 4 02:51:c0:7a:20:04 app 02:42:ac:11:00:02
ip -n host link set veth51c07a2 master docker0
link lan0 5 52:54:00:50:00:05
ip -n host addr add 169.254.9.2/30 scope link dev wan0
ip -n host addr add 172.17.0.1/16 brd + dev docker0
ip -n host addr add 203.0.113.9/29 brd + dev lan0
ip -n host addr add 10.20.0.1/24 brd + dev lan0
ip -n host route add default via 169.254.9.1 dev wan0 src 203.0.113.9

ip -n host neigh add 169.254.9.1 lladdr 52:54:00:fe:00:09 dev wan0 nud stale
ip -n host neigh add 10.20.0.5 lladdr 52:54:00:50:01:05 dev lan0 nud stale
ip -n host neigh add 172.17.0.2 lladdr 02:42:ac:11:00:02 dev docker0 nud stale
bridge -n host fdb add 02:42:ac:11:00:02 dev veth51c07a2 master static

sysctls net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0

rules <<'RULES'
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING ! -s 203.0.113.8/29 -o wan0 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i lan0 -o wan0 -j ACCEPT
-A FORWARD -i docker0 -o wan0 -j ACCEPT
COMMIT
RULES

listen sshd 0 tcp 0.0.0.0 22

collect "MASQUERADE takes an address that nobody meant" \
	"tcp 10.20.0.5 to 203.0.113.80:443 in lan0" \
	"Machines behind the router reach nothing, the router itself does. Its own packets leave with
	the route's src 203.0.113.9; MASQUERADE never looks at that. wan0 has an address of link scope
	only, so the first interface that has one of global scope lends its own, and docker0 stands before
	lan0: the packet leaves as 172.17.0.1. SNAT --to-source 203.0.113.9 mends it."
