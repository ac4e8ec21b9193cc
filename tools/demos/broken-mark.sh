#!/usr/bin/env bash
# A gateway that sends a few machines through a VPN. raw marks their packets, mangle
# restores the connection's mark over it, and the mark is gone before routing.
. "$(dirname "$0")/lib.sh"

table 200 vpn

link lan0 2 52:54:00:30:00:02
link wan0 3 52:54:00:30:00:03
link vpn0 4 52:54:00:30:00:04
ip -n host addr add 192.168.7.1/24 brd + dev lan0
ip -n host addr add 198.51.100.30/24 brd + dev wan0
ip -n host addr add 10.66.0.2/24 dev vpn0
ip -n host route add default via 198.51.100.1 dev wan0
ip -n host route add default via 10.66.0.1 dev vpn0 table vpn
ip -n host rule add pref 900 fwmark 0x66 lookup vpn

ip -n host neigh add 198.51.100.1 lladdr 52:54:00:fe:00:01 dev wan0 nud stale
ip -n host neigh add 10.66.0.1 lladdr 52:54:00:fe:00:66 dev vpn0 nud stale
ip -n host neigh add 192.168.7.40 lladdr 52:54:00:30:01:40 dev lan0 nud stale

sysctls net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=2

rules <<'RULES'
*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -s 192.168.7.40/32 -i lan0 -m comment --comment "the workstation goes by the VPN" -j MARK --set-xmark 0x66/0xffffffff
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -j CONNMARK --restore-mark
-A PREROUTING -i vpn0 -m conntrack --ctstate NEW -j MARK --set-xmark 0x66/0xffffffff
-A PREROUTING -m mark ! --mark 0x0 -j CONNMARK --save-mark
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o wan0 -j MASQUERADE
-A POSTROUTING -o vpn0 -j MASQUERADE
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lan0 -j ACCEPT
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -s 192.168.7.40/32 -o wan0 -m comment --comment "never past the VPN" -j REJECT --reject-with icmp-net-prohibited
-A FORWARD -i lan0 -j ACCEPT
COMMIT
RULES

listen sshd 0 tcp 0.0.0.0 22

collect "A mark is lost between two tables" \
	"tcp 192.168.7.40 to 203.0.113.80:443 in lan0" \
	"The workstation is to go by the VPN and is refused instead. raw PREROUTING 1 marks its packet
	0x66, mangle PREROUTING 1 restores the mark of the connection, which is 0 for a new one, over it;
	ip rule 900 does not match any more, the packet is routed to wan0, and FORWARD 2 rejects it.
	Restoring only when the connection has a mark mends it."
