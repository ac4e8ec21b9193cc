#!/usr/bin/env bash
# A router at home with two uplinks: web traffic by fibre, the rest of the house as
# it comes, the backup server by DSL; marks choose the table, connections keep it.
. "$(dirname "$0")/lib.sh"

table 101 fibre
table 102 dsl

link lan0 2 52:54:00:10:00:02
link wan0 3 52:54:00:10:00:03
link wan1 4 52:54:00:10:00:04
ip -n host addr add 192.168.1.1/24 brd + dev lan0
ip -n host addr add 198.51.100.20/24 brd + dev wan0
ip -n host addr add 192.0.2.50/24 brd + dev wan1

ip -n host route add default via 198.51.100.1 dev wan0 metric 10
ip -n host route add default via 192.0.2.1 dev wan1 metric 20
for t in fibre dsl; do
	ip -n host route add 192.168.1.0/24 dev lan0 table "$t"
	ip -n host route add unreachable default metric 4000 table "$t"
done
ip -n host route add default via 198.51.100.1 dev wan0 table fibre
ip -n host route add default via 192.0.2.1 dev wan1 table dsl
ip -n host rule add pref 1000 from 198.51.100.20 lookup fibre
ip -n host rule add pref 1001 from 192.0.2.50 lookup dsl
ip -n host rule add pref 2000 fwmark 0x1/0xff lookup fibre
ip -n host rule add pref 2001 fwmark 0x2/0xff lookup dsl

ip -n host neigh add 198.51.100.1 lladdr 52:54:00:fe:00:01 dev wan0 nud stale
ip -n host neigh add 192.0.2.1 lladdr 52:54:00:fe:00:02 dev wan1 nud stale
ip -n host neigh add 192.168.1.10 lladdr 52:54:00:10:01:10 dev lan0 nud stale
ip -n host neigh add 192.168.1.23 lladdr 52:54:00:10:01:23 dev lan0 nud stale

sysctls net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.default.rp_filter=2 \
	net.ipv4.conf.all.src_valid_mark=1 net.ipv4.conf.all.send_redirects=0

rules <<'RULES'
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:UPLINK - [0:0]
-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xff
-A PREROUTING -m mark ! --mark 0x0/0xff -j RETURN
-A PREROUTING -i wan0 -m conntrack --ctstate NEW -j MARK --set-xmark 0x1/0xff
-A PREROUTING -i wan1 -m conntrack --ctstate NEW -j MARK --set-xmark 0x2/0xff
-A PREROUTING -i lan0 ! -d 192.168.1.0/24 -m conntrack --ctstate NEW -j UPLINK
-A PREROUTING -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff
-A FORWARD -o wan1 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
-A UPLINK -s 192.168.1.10/32 -m comment --comment "backup server" -j MARK --set-xmark 0x2/0xff
-A UPLINK -m mark --mark 0x2/0xff -j RETURN
-A UPLINK -p tcp -m multiport --dports 80,443 -j MARK --set-xmark 0x1/0xff
-A UPLINK -p udp -m udp --dport 443 -j MARK --set-xmark 0x1/0xff
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -i wan0 -p tcp -m tcp --dport 2222 -m comment --comment "ssh to the backup server" -j DNAT --to-destination 192.168.1.10:22
-A PREROUTING -i lan0 ! -d 192.168.1.1/32 -p udp -m udp --dport 53 -m comment --comment "all names by our resolver" -j REDIRECT --to-ports 53
-A POSTROUTING -s 192.168.1.0/24 -o wan0 -j MASQUERADE
-A POSTROUTING -s 192.168.1.0/24 -o wan1 -j MASQUERADE
COMMIT
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:ICMP - [0:0]
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -i lo -j ACCEPT
-A INPUT -p icmp -j ICMP
-A INPUT -i lan0 -p udp -m multiport --dports 53,67 -j ACCEPT
-A INPUT -i lan0 -p tcp -m multiport --dports 22,53 -j ACCEPT
-A INPUT -i lan0 -j REJECT --reject-with icmp-admin-prohibited
-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT
-A FORWARD -i lan0 -o wan0 -j ACCEPT
-A FORWARD -i lan0 -o wan1 -j ACCEPT
-A FORWARD -p icmp -j ICMP
-A ICMP -p icmp -m icmp --icmp-type 8 -m limit --limit 10/sec --limit-burst 20 -j ACCEPT
-A ICMP -p icmp -m icmp --icmp-type 3 -j ACCEPT
-A ICMP -p icmp -m icmp --icmp-type 11 -j ACCEPT
COMMIT
RULES

listen sshd 0 tcp 0.0.0.0 22
listen dnsmasq 101 tcp 192.168.1.1 53
listen dnsmasq 101 udp 192.168.1.1 53
listen dnsmasq 101 udp 0.0.0.0 67

flow -p tcp -s 192.168.1.23 -d 203.0.113.80 --sport 51514 --dport 443 \
	--reply-src 203.0.113.80 --reply-dst 198.51.100.20 --reply-port-src 443 --reply-port-dst 51514 \
	--state ESTABLISHED -u ASSURED,SEEN_REPLY -t 431990 --mark 1
flow -p tcp -s 192.168.1.10 -d 203.0.113.22 --sport 40112 --dport 873 \
	--reply-src 203.0.113.22 --reply-dst 192.0.2.50 --reply-port-src 873 --reply-port-dst 40112 \
	--state ESTABLISHED -u ASSURED,SEEN_REPLY -t 431900 --mark 2

collect "A home router with two uplinks" \
	"tcp 192.168.1.23 to 203.0.113.80:443 in lan0" \
	"Marks choose the uplink: mangle PREROUTING sets 0x1 for web traffic and saves it in the
	connection, ip rule 2000 sends mark 0x1 to table fibre, nat POSTROUTING masquerades to the
	address of wan0. With dport 25 it goes by the main table, from 192.168.1.10 by DSL."
