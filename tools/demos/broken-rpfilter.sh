#!/usr/bin/env bash
# A web server behind two uplinks. What comes in by the second one is translated, and
# then dropped by the source check, which does not look at the mark.
. "$(dirname "$0")/lib.sh"

table 102 uplink2

link lan0 2 52:54:00:40:00:02
link wan0 3 52:54:00:40:00:03
link wan1 4 52:54:00:40:00:04
ip -n host addr add 10.0.0.1/24 brd + dev lan0
ip -n host addr add 198.51.100.40/24 brd + dev wan0
ip -n host addr add 192.0.2.60/24 brd + dev wan1
ip -n host route add default via 198.51.100.1 dev wan0
ip -n host route add default via 192.0.2.1 dev wan1 table uplink2
ip -n host route add 10.0.0.0/24 dev lan0 table uplink2
ip -n host rule add pref 1001 from 192.0.2.60 lookup uplink2
ip -n host rule add pref 2001 fwmark 0x2 lookup uplink2

ip -n host neigh add 198.51.100.1 lladdr 52:54:00:fe:00:01 dev wan0 nud stale
ip -n host neigh add 192.0.2.1 lladdr 52:54:00:fe:00:02 dev wan1 nud stale
ip -n host neigh add 10.0.0.20 lladdr 52:54:00:40:01:20 dev lan0 nud stale

sysctls net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.wan0.rp_filter=1 \
	net.ipv4.conf.wan1.rp_filter=1

rules <<'RULES'
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i wan1 -m conntrack --ctstate NEW -j CONNMARK --set-xmark 0x2/0xffffffff
-A PREROUTING -j CONNMARK --restore-mark
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d 198.51.100.40/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.0.0.20:8443
-A PREROUTING -d 192.0.2.60/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.0.0.20:8443
-A POSTROUTING -o wan0 -j MASQUERADE
-A POSTROUTING -o wan1 -j MASQUERADE
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lan0 -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -d 10.0.0.20/32 -p tcp -m tcp --dport 8443 -m conntrack --ctstate DNAT -j ACCEPT
-A FORWARD -i lan0 -j ACCEPT
-A FORWARD -j LOG --log-prefix "FORWARD drop: "
COMMIT
RULES

listen sshd 0 tcp 10.0.0.1 22

collect "rp_filter drops what was translated already" \
	"tcp 203.0.113.9 to 192.0.2.60:443 in wan1" \
	"The site is reached by the first uplink and not by the second, and no rule logs a drop. nat
	PREROUTING 2 translates the packet, then the source check asks for the way back to 203.0.113.9:
	it leaves the mark 0x2 aside (src_valid_mark is 0), finds the default route by wan0, and
	rp_filter=1 of wan1 drops. Either net.ipv4.conf.wan1.src_valid_mark=1 or
	net.ipv4.conf.wan1.rp_filter=2 mends it."
