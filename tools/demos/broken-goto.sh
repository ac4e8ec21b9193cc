#!/usr/bin/env bash
# An office firewall. The chain of the staff is entered by goto, so its end does not
# come back to the chain LAN, but to FORWARD, where a DROP is next.
. "$(dirname "$0")/lib.sh"
backend=legacy

link lan0 2 52:54:00:60:00:02
link wan0 3 52:54:00:60:00:03
ip -n host addr add 10.30.0.1/16 brd + dev lan0
ip -n host addr add 198.51.100.60/24 brd + dev wan0
ip -n host route add default via 198.51.100.1 dev wan0

ip -n host neigh add 198.51.100.1 lladdr 52:54:00:fe:00:01 dev wan0 nud stale
ip -n host neigh add 10.30.1.15 lladdr 52:54:00:60:01:15 dev lan0 nud stale
ip -n host neigh add 10.30.2.70 lladdr 52:54:00:60:02:70 dev lan0 nud stale

sysctls net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=1

rules <<'RULES'
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s 10.30.0.0/16 -o wan0 -j SNAT --to-source 198.51.100.60
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:LAN - [0:0]
:STAFF - [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -s 10.30.1.0/24 -p tcp -m tcp --dport 22 -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -i lan0 -o wan0 -j LAN
-A FORWARD -j DROP
-A LAN -s 10.30.1.0/24 -m comment --comment "the staff may do some things more" -g STAFF
-A LAN -p udp -m multiport --dports 53,123,443 -j ACCEPT
-A LAN -p tcp -m multiport --dports 53,80,443 -j ACCEPT
-A STAFF -p tcp -m multiport --dports 22,2222 -j ACCEPT
-A STAFF -p udp -m udp --dport 51820 -j ACCEPT
COMMIT
RULES

listen sshd 0 tcp 0.0.0.0 22

collect "A goto that does not come back" \
	"tcp 10.30.1.15 to 203.0.113.80:443 in lan0" \
	"Guests reach web sites, the staff does not. LAN 1 enters STAFF by goto (-g); nothing in STAFF
	matches port 443, and the end of a chain that was entered by goto goes on behind the rule that
	jumped, which is FORWARD 2, not LAN 1. The rest of LAN, with the rule for port 443, is passed
	over, and FORWARD 3 drops. -j in place of -g mends it."
