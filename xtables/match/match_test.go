package match_test

import (
	"sort"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
)

// matchCase is a rule, and packets with what it makes of them, asked in order in one
// host's memory.
type matchCase struct {
	ext, rule string
	table     string // zero is mangle
	hook      trace.Hook
	rows      []row
}

type row struct {
	d    packetOf
	want answer
}

// The transport protocols that tests name.
const (
	tcp, udp, icmp, sctp, dccp = packet.TCP, packet.UDP, packet.ICMP, packet.SCTP, packet.DCCP
	ah, esp, ipcomp            = packet.AH, packet.ESP, 108
)

const (
	pre, in, fwd, out, post = trace.Prerouting, trace.Input, trace.Forward, trace.Output,
		trace.Postrouting
	syn, ack, rst, fin = 2, 16, 4, 1
	laterFragment      = 0x00b9
)

var cases = []matchCase{
	// Ports, flags, options.
	{ext: "tcp", rule: "-p tcp --dport 80:90", rows: []row{
		{packetOf{dport: 80}, yes}, {packetOf{dport: 90}, yes}, {packetOf{dport: 79}, no},
		{packetOf{proto: udp, dport: 80}, no}, {packetOf{frag: laterFragment}, no},
		{packetOf{frag: 1}, drop}, {packetOf{cut: 39}, drop},
	}},
	{ext: "tcp", rule: "-p tcp ! --sport 5", rows: []row{
		{packetOf{sport: 6}, yes}, {packetOf{sport: 5}, no}, {packetOf{frag: laterFragment}, no},
	}},
	{ext: "tcp", rule: "-p tcp --syn", rows: []row{
		{packetOf{flags: syn}, yes}, {packetOf{flags: syn | ack}, no}, {packetOf{flags: ack}, no},
		{packetOf{flags: syn | 0x80}, yes},
	}},
	{ext: "tcp", rule: "-p tcp ! --tcp-flags SYN,ACK SYN", rows: []row{
		{packetOf{flags: syn}, no}, {packetOf{flags: ack}, yes},
	}},
	{ext: "tcp", rule: "-p tcp --tcp-option 2", rows: []row{
		{packetOf{opts: "\x01\x01\x02\x04\x05\xb4\x01\x01"}, yes}, {packetOf{}, no},
		{packetOf{opts: "\x03\x00\x02\x04"}, yes}, {packetOf{opts: "\x03\x04\x02\x04"}, no},
		{packetOf{opts: "\x02\x04\x05\xb4", cut: 42}, drop},
	}},
	{ext: "tcp", rule: "-p tcp ! --tcp-option 2", rows: []row{
		{packetOf{}, yes}, {packetOf{opts: "\x02\x04\x05\xb4"}, no},
	}},
	{ext: "udp", rule: "-p udp --dport 53", rows: []row{
		{packetOf{proto: udp, dport: 53}, yes}, {packetOf{proto: udp, dport: 54}, no},
		{packetOf{proto: udp, cut: 27}, drop}, {packetOf{proto: udp, frag: 1}, no},
	}},
	{ext: "icmp", rule: "-p icmp --icmp-type 8", rows: []row{
		{packetOf{proto: icmp}, yes},
		{packetOf{proto: icmp, l4: "\x03\x01\x00\x00\x00\x00\x00\x00"}, no},
		{packetOf{proto: icmp, cut: 27}, drop}, {packetOf{proto: icmp, frag: laterFragment}, no},
	}},
	{ext: "icmp", rule: "-p icmp ! --icmp-type 3/1", rows: []row{
		{packetOf{proto: icmp}, yes},
		{packetOf{proto: icmp, l4: "\x03\x01\x00\x00\x00\x00\x00\x00"}, no},
		{packetOf{proto: icmp, l4: "\x03\x02\x00\x00\x00\x00\x00\x00"}, yes},
	}},
	{ext: "icmp", rule: "-p icmp --icmp-type any", rows: []row{
		{packetOf{proto: icmp}, yes}, {packetOf{proto: udp}, no},
		{packetOf{proto: icmp, frag: laterFragment}, no},
	}},
	{ext: "multiport", rule: "-p tcp -m multiport --dports 22,80:81", rows: []row{
		{packetOf{dport: 22}, yes}, {packetOf{dport: 81}, yes}, {packetOf{dport: 82}, no},
		{packetOf{cut: 24}, yes}, {packetOf{cut: 23}, drop}, {packetOf{frag: 1}, no},
	}},
	{ext: "multiport", rule: "-p tcp -m multiport ! --ports 22", rows: []row{
		{packetOf{sport: 22}, no}, {packetOf{dport: 22}, no}, {packetOf{}, yes},
		{packetOf{frag: laterFragment}, no},
	}},
	{ext: "sctp", rule: "-p sctp --dport 80 --chunk-types any INIT,DATA:Be", rows: []row{
		{packetOf{proto: sctp, l4: sctpWith("\x01\x00\x00\x04")}, yes},
		{packetOf{proto: sctp, l4: sctpWith("\x00\x02\x00\x04")}, yes},
		{packetOf{proto: sctp, l4: sctpWith("\x00\x03\x00\x04")}, no},
		{packetOf{proto: sctp, l4: sctpWith("\x05\x00\x00\x00")}, drop},
		{packetOf{proto: sctp, l4: sctpWith("")}, drop},
	}},
	{ext: "sctp", rule: "-p sctp --chunk-types all SACK,DATA", rows: []row{
		{packetOf{proto: sctp, l4: sctpWith("\x03\x00\x00\x04\x00\x00\x00\x05\x00\x00\x00\x00")}, yes},
		{packetOf{proto: sctp, l4: sctpWith("\x03\x00\x00\x04")}, no},
	}},
	{ext: "sctp", rule: "-p sctp ! --chunk-types only SACK", rows: []row{
		{packetOf{proto: sctp, l4: sctpWith("\x03\x00\x00\x04")}, no},
		{packetOf{proto: sctp, l4: sctpWith("\x03\x00\x00\x04\x00\x00\x00\x04")}, yes},
	}},
	{ext: "dccp", rule: "-p dccp --dccp-types REQUEST", rows: []row{
		{packetOf{proto: dccp, l4: dccpOf(0, 4, "")}, yes}, {packetOf{proto: dccp, l4: dccpOf(2, 3, "")}, no},
		{packetOf{proto: dccp, cut: 31}, drop},
	}},
	{ext: "dccp", rule: "-p dccp --dccp-option 38", rows: []row{
		{packetOf{proto: dccp, l4: dccpOf(2, 4, "\x00\x01\x26\x02")}, yes},
		{packetOf{proto: dccp, l4: dccpOf(2, 4, "\x00\x01\x00\x01")}, no},
		{packetOf{proto: dccp, l4: dccpOf(2, 3, "")}, no}, {packetOf{proto: dccp, l4: dccpOf(2, 2, "")}, drop},
	}},
	{ext: "ah", rule: "-p ah -m ah --ahspi 5:7", rows: []row{
		{packetOf{proto: ah, l4: "\x06\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x01"}, yes},
		{packetOf{proto: ah, l4: "\x06\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x01"}, no},
		{packetOf{proto: ah, l4: "\x06\x00\x00\x00"}, drop},
	}},
	{ext: "esp", rule: "-p esp -m esp ! --espspi 5", rows: []row{
		{packetOf{proto: esp, l4: "\x00\x00\x00\x06\x00\x00\x00\x01"}, yes},
		{packetOf{proto: esp, l4: "\x00\x00\x00\x05\x00\x00\x00\x01"}, no},
	}},
	{ext: "ipcomp", rule: "-p ipcomp -m ipcomp --ipcompspi 5", rows: []row{
		{packetOf{proto: ipcomp, l4: "\x06\x00\x00\x05"}, yes},
		{packetOf{proto: ipcomp, l4: "\x06\x00\x00\x06"}, no}, {packetOf{proto: ipcomp, l4: "\x06\x00"}, drop},
		{packetOf{proto: ipcomp, l4: "\x06\x00\x00\x05", frag: 1}, no},
	}},
	// The IP header.
	{ext: "length", rule: "-m length --length 40:41", rows: []row{
		{packetOf{}, yes}, {packetOf{payload: "x"}, yes}, {packetOf{payload: "xy"}, no},
	}},
	{ext: "length", rule: "-m length ! --length 40", rows: []row{{packetOf{}, no}, {packetOf{payload: "x"}, yes}}},
	{ext: "ttl", rule: "-m ttl --ttl-lt 5", rows: []row{{packetOf{ttl: 4}, yes}, {packetOf{ttl: 5}, no}}},
	{ext: "ttl", rule: "-m ttl --ttl-gt 5", rows: []row{{packetOf{ttl: 6}, yes}, {packetOf{ttl: 5}, no}}},
	{ext: "ttl", rule: "-m ttl ! --ttl-eq 5", rows: []row{{packetOf{ttl: 6}, yes}, {packetOf{ttl: 5}, no}}},
	{ext: "tos", rule: "-m tos --tos Minimize-Delay", rows: []row{
		{packetOf{tos: 0x10}, yes}, {packetOf{tos: 0xd0}, yes}, {packetOf{tos: 0x11}, no}}},
	{ext: "tos", rule: "-m tos --tos 0x0f/0x03", rows: []row{{packetOf{tos: 0x0f}, no}}},
	{ext: "dscp", rule: "-m dscp --dscp-class EF", rows: []row{
		{packetOf{tos: 0xb8}, yes}, {packetOf{tos: 0xbb}, yes}, {packetOf{tos: 0xb4}, no}}},
	{ext: "ecn", rule: "-m ecn --ecn-ip-ect 2", rows: []row{
		{packetOf{tos: 0x12}, yes}, {packetOf{tos: 0x13}, no}}},
	{ext: "ecn", rule: "-p tcp -m ecn --ecn-tcp-ece ! --ecn-tcp-cwr", rows: []row{
		{packetOf{flags: 0x42}, yes}, {packetOf{flags: 0xc2}, no}, {packetOf{}, no},
		{packetOf{cut: 39}, no},
	}},
	{ext: "iprange", rule: "-m iprange --src-range 10.0.0.5-10.0.0.9 ! --dst-range 10.0.0.2", rows: []row{
		{packetOf{src: "10.0.0.9"}, yes}, {packetOf{src: "10.0.0.10"}, no}, {packetOf{dst: "10.0.0.2"}, no},
	}},
	{ext: "tcpmss", rule: "-p tcp -m tcpmss --mss 1000:1460", rows: []row{
		{packetOf{opts: "\x02\x04\x05\xb4"}, yes}, {packetOf{opts: "\x02\x04\x05\xb5"}, no},
		{packetOf{}, no}, {packetOf{opts: "\x02\x04\x05\xb4", cut: 43}, drop},
		{packetOf{frag: laterFragment, cut: 30}, drop},
	}},
	{ext: "tcpmss", rule: "-p tcp -m tcpmss ! --mss 1460", rows: []row{
		{packetOf{}, yes}, {packetOf{opts: "\x02\x04\x05\xb4"}, no}}},
	{ext: "u32", rule: `-m u32 --u32 "6&0xff=6&&0>>22&0x3c@0>>16=1024"`, rows: []row{
		{packetOf{}, yes}, {packetOf{sport: 7}, no}, {packetOf{proto: udp}, no}}},
	{ext: "u32", rule: `-m u32 ! --u32 "40=0"`, rows: []row{
		{packetOf{}, yes}, {packetOf{payload: "\x00\x00\x00\x00"}, no}, {packetOf{payload: "abcd"}, yes}}},
	{ext: "string", rule: `-m string --string "GET /" --algo bm --to 60`, rows: []row{
		{packetOf{payload: "GET /index"}, yes}, {packetOf{payload: "get /index"}, no},
		{packetOf{payload: "123456789012345GET /"}, yes}, {packetOf{payload: "1234567890123456GET /"}, no},
	}},
	{ext: "string", rule: `-m string --hex-string "a|2062|" --algo kmp --icase --from 41`, rows: []row{
		{packetOf{payload: "xA B"}, yes}, {packetOf{payload: "a b"}, no}}},
	// The link.
	{ext: "mac", rule: "-m mac --mac-source 02:00:00:00:00:09", hook: pre, rows: []row{
		{packetOf{in: 2}, yes}, {packetOf{in: 1}, no}, {packetOf{local: true}, no}}},
	{ext: "mac", rule: "-m mac ! --mac-source 02:00:00:00:00:08", hook: pre, rows: []row{
		{packetOf{in: 2}, yes}, {packetOf{in: 1}, no}}},
	{ext: "pkttype", rule: "-m pkttype --pkt-type broadcast", rows: []row{
		{packetOf{typ: packet.Broadcast}, yes}, {packetOf{}, no}, {packetOf{typ: packet.Loopback}, yes},
		{packetOf{typ: packet.Loopback, dst: "224.0.0.1"}, no}}},
	{ext: "pkttype", rule: "-m pkttype ! --pkt-type multicast", rows: []row{
		{packetOf{typ: packet.Multicast}, no}, {packetOf{}, yes},
		{packetOf{typ: packet.Loopback, dst: "224.0.0.1"}, no}}},
	{ext: "physdev", rule: "-m physdev --physdev-in p1", rows: []row{
		{packetOf{physIn: 5}, yes}, {packetOf{physIn: 6}, no}, {packetOf{}, no}, {packetOf{physOut: 6}, yes}}},
	{ext: "physdev", rule: "-m physdev --physdev-is-bridged ! --physdev-out p1", rows: []row{
		{packetOf{physIn: 5, physOut: 6}, yes}, {packetOf{physIn: 6, physOut: 5}, no},
		{packetOf{physIn: 6}, no}, {packetOf{}, no}}},
	{ext: "physdev", rule: "-m physdev ! --physdev-is-in", rows: []row{
		{packetOf{}, yes}, {packetOf{physIn: 5}, no}, {packetOf{physOut: 5}, yes}}},
	{ext: "devgroup", rule: "-m devgroup --src-group 0x7/0xf", rows: []row{
		{packetOf{in: 2}, yes}, {packetOf{in: 3}, no}}},
	// What is kept beside the bytes.
	{ext: "mark", rule: "-m mark --mark 0x10/0xf0", rows: []row{
		{packetOf{mark: 0x1f}, yes}, {packetOf{mark: 0x2f}, no}}},
	{ext: "mark", rule: "-m mark ! --mark 0x3/0x1", rows: []row{{packetOf{mark: 3}, yes}, {packetOf{}, yes}}},
	{ext: "ipvs", rule: "-m ipvs --ipvs", rows: []row{{packetOf{ipvs: true}, yes}, {packetOf{}, no}}},
	{ext: "ipvs", rule: "-m ipvs ! --ipvs", rows: []row{{packetOf{ipvs: true}, no}, {packetOf{}, yes}}},
	{ext: "realm", rule: "-m realm --realm 0x5/0xf", hook: in, rows: []row{
		{packetOf{realm: 0x15}, yes}, {packetOf{realm: 6}, no}}},
	{ext: "comment", rule: `-m comment --comment "any"`, rows: []row{{packetOf{}, yes}, {packetOf{proto: udp}, yes}}},
	{ext: "owner", rule: "-m owner --uid-owner 1000-1001", hook: out, rows: []row{
		{packetOf{socket: 1}, yes}, {packetOf{socket: 2}, no}, {packetOf{}, no}, {packetOf{socket: 3}, no}}},
	{ext: "owner", rule: "-m owner ! --uid-owner 1000 ! --gid-owner 5", hook: out, rows: []row{
		{packetOf{socket: 1}, no}, {packetOf{socket: 2}, no}, {packetOf{}, yes}, {packetOf{socket: 3}, yes}}},
	{ext: "owner", rule: "-m owner --socket-exists", hook: out, rows: []row{
		{packetOf{socket: 1}, yes}, {packetOf{}, no}, {packetOf{socket: 3}, yes}}},
	{ext: "owner", rule: "-m owner ! --socket-exists", hook: out, rows: []row{
		{packetOf{socket: 1}, no}, {packetOf{}, yes}}},
	{ext: "set", rule: "-m set --match-set nets src", rows: []row{
		{packetOf{src: "10.0.0.8"}, yes}, {packetOf{}, no},
	}},
	{ext: "socket", rule: "-m socket", hook: pre, rows: []row{
		{packetOf{dport: 8080}, yes}, {packetOf{dport: 22}, no}, {packetOf{dport: 23}, no},
		{packetOf{proto: icmp, l4: quoting("10.0.0.1", "10.0.0.9", 8080, 1024)}, yes},
	}},
	{ext: "socket", rule: "-m socket --nowildcard", hook: pre, rows: []row{
		{packetOf{dport: 22}, yes}, {packetOf{dport: 23}, no}}},
	{ext: "socket", rule: "-m socket --nowildcard --restore-skmark", hook: pre, rows: []row{
		{packetOf{dport: 22}, yes}, {packetOf{dport: 23}, no}}},
	{ext: "socket", rule: "-m socket --transparent", hook: pre, rows: []row{{packetOf{dport: 8080}, no}}},
	{ext: "cpu", rule: "-m cpu --cpu 0", rows: []row{{packetOf{}, no}}},
	{ext: "cpu", rule: "-m cpu ! --cpu 0", rows: []row{{packetOf{}, yes}}},
	// Routing.
	{ext: "addrtype", rule: "-m addrtype --dst-type LOCAL", hook: pre, rows: []row{
		{packetOf{}, yes}, {packetOf{dst: "10.1.0.1"}, yes}, {packetOf{dst: "10.2.0.1"}, no},
		{packetOf{dst: "127.0.0.1"}, yes}, {packetOf{dst: "224.0.0.1"}, no}}},
	{ext: "addrtype", rule: "-m addrtype --dst-type LOCAL --limit-iface-in", hook: pre, rows: []row{
		{packetOf{in: 2}, yes}, {packetOf{in: 2, dst: "10.1.0.1"}, no}}},
	{ext: "addrtype", rule: "-m addrtype ! --src-type LOCAL --limit-iface-out", hook: post, rows: []row{
		{packetOf{out: 3, src: "10.1.0.1"}, no}, {packetOf{out: 3, src: "10.0.0.1"}, yes}}},
	{ext: "addrtype", rule: "-m addrtype --dst-type BROADCAST,MULTICAST", hook: pre, rows: []row{
		{packetOf{dst: "255.255.255.255"}, yes}, {packetOf{dst: "10.0.0.255"}, yes},
		{packetOf{dst: "224.1.1.1"}, yes}, {packetOf{}, no}}},
	{ext: "rpfilter", rule: "-m rpfilter", hook: pre, rows: []row{
		{packetOf{in: 2}, yes}, {packetOf{in: 3}, no}, {packetOf{in: 3, src: "10.1.0.7"}, yes},
		{packetOf{in: 2, src: "10.0.0.1"}, no}}},
	{ext: "rpfilter", rule: "-m rpfilter --invert --loose", hook: pre, rows: []row{
		{packetOf{in: 3}, no}, {packetOf{in: 3, src: "172.16.0.1"}, yes}}},
	// The connection.
	{ext: "conntrack", rule: "-m conntrack --ctstate NEW", rows: []row{
		{packetOf{ct: newFlow}, yes}, {packetOf{ct: established}, no}, {packetOf{}, no}, {packetOf{ct: untracked}, no}}},
	{ext: "conntrack", rule: "-m conntrack ! --ctstate RELATED,ESTABLISHED", rows: []row{
		{packetOf{ct: newFlow}, yes}, {packetOf{ct: established}, no}, {packetOf{}, yes}}},
	{ext: "conntrack", rule: "-m conntrack --ctstate INVALID --ctproto 6", rows: []row{
		{packetOf{}, yes}, {packetOf{ct: newFlow}, no}}},
	{ext: "conntrack", rule: "-m conntrack --ctproto 6 --ctorigsrc 10.0.0.0/24", rows: []row{
		{packetOf{ct: newFlow}, yes}, {packetOf{}, no}}},
	{ext: "conntrack", rule: "-m conntrack ! --ctproto 6", rows: []row{{packetOf{ct: newFlow}, no}, {packetOf{}, no}}},
	{ext: "conntrack", rule: "-m conntrack --ctstate DNAT", rows: []row{
		{packetOf{ct: translated}, yes}, {packetOf{ct: newFlow}, no}}},
	{ext: "conntrack", rule: "-m conntrack --ctorigdstport 80 --ctdir ORIGINAL", rows: []row{
		{packetOf{ct: newFlow}, yes}, {packetOf{ct: reply}, no}}},
	{ext: "conntrack", rule: "-m conntrack --ctstatus NONE", rows: []row{{packetOf{ct: newFlow}, no}, {packetOf{}, no}}},
	{ext: "conntrack", rule: "-m conntrack --ctstatus ASSURED,SEEN_REPLY", rows: []row{
		{packetOf{ct: established}, yes}, {packetOf{ct: newFlow}, no}}},
	{ext: "conntrack", rule: "-m conntrack --ctexpire 100:200", rows: []row{
		{packetOf{ct: established}, yes}, {packetOf{ct: newFlow}, no}}},
	{ext: "state", rule: "-m state --state NEW,UNTRACKED", rows: []row{
		{packetOf{ct: newFlow}, yes}, {packetOf{ct: untracked}, yes}, {packetOf{}, no}}},
	{ext: "connmark", rule: "-m connmark ! --mark 0x5", rows: []row{
		{packetOf{ct: newFlow}, yes}, {packetOf{ct: established}, no}, {packetOf{}, no}}},
	{ext: "connlabel", rule: `-m connlabel ! --label "3"`, rows: []row{
		{packetOf{ct: newFlow}, yes}, {packetOf{ct: established}, no}, {packetOf{}, yes}}},
	{ext: "connlabel", rule: `-m connlabel --label "77" --set`, rows: []row{
		{packetOf{ct: newFlow}, yes}, {packetOf{}, no}}},
	{ext: "connbytes", rule: "-m connbytes --connbytes 10: --connbytes-mode packets --connbytes-dir both", rows: []row{
		{packetOf{ct: established}, yes}, {packetOf{ct: newFlow}, no}, {packetOf{}, no}}},
	{ext: "connbytes", rule: "-m connbytes ! --connbytes 99:101 --connbytes-mode avgpkt --connbytes-dir reply", rows: []row{
		{packetOf{ct: established}, no}, {packetOf{ct: newFlow}, yes}}},
	{ext: "helper", rule: "-m helper --helper ftp-2121", rows: []row{
		{packetOf{ct: translated}, yes}, {packetOf{ct: newFlow}, no}, {packetOf{}, no}}},
	{ext: "cluster", rule: "-m cluster --cluster-total-nodes 2 --cluster-local-node 1 --cluster-hash-seed 7", rows: []row{
		{packetOf{ct: newFlow}, yes}, {packetOf{}, no}}},
	{ext: "cluster", rule: "-m cluster --cluster-total-nodes 2 --cluster-local-node 2 --cluster-hash-seed 7", rows: []row{
		{packetOf{ct: newFlow}, no}}},
	// Memory and dice.

	{ext: "statistic", rule: "-m statistic --mode nth --every 3 --packet 1", rows: []row{
		{packetOf{}, no}, {packetOf{}, yes}, {packetOf{}, no}, {packetOf{}, no}, {packetOf{}, yes}}},
	{ext: "statistic", rule: "-m statistic --mode nth ! --every 2 --packet 0", rows: []row{
		{packetOf{}, no}, {packetOf{}, yes}, {packetOf{}, no}}},
	{ext: "statistic", rule: "-m statistic --mode random --probability 0.9", rows: []row{{packetOf{}, yes}}},
	{ext: "statistic", rule: "-m statistic --mode random ! --probability 1", rows: []row{{packetOf{}, no}}},
	{ext: "quota", rule: "-m quota --quota 90", rows: []row{
		{packetOf{}, yes}, {packetOf{}, yes}, {packetOf{}, no}, {packetOf{cut: 21}, no}}},
	{ext: "limit", rule: "-m limit --limit 1/min --limit-burst 2", rows: []row{
		{packetOf{}, yes}, {packetOf{}, yes}, {packetOf{}, no}}},
	{ext: "hashlimit", rule: "-m hashlimit --hashlimit-upto 1/min --hashlimit-burst 1 --hashlimit-mode srcip " +
		"--hashlimit-name a --hashlimit-srcmask 24", rows: []row{
		{packetOf{}, yes}, {packetOf{src: "10.0.0.77"}, no}, {packetOf{src: "10.0.1.1"}, yes}}},
	{ext: "hashlimit", rule: "-m hashlimit --hashlimit-above 64b/s --hashlimit-mode dstport --hashlimit-name b", rows: []row{
		{packetOf{}, no}, {packetOf{}, yes}, {packetOf{dport: 81}, no}, {packetOf{cut: 22}, drop}}},
	{ext: "recent", rule: "-m recent --set --name l -m recent --rcheck --hitcount 2 --name l", rows: []row{
		{packetOf{}, no}, {packetOf{}, yes}, {packetOf{src: "10.0.0.8"}, no}}},
	{ext: "recent", rule: "-m recent --remove --name l --rdest", rows: []row{{packetOf{}, no}}},
	{ext: "recent", rule: "-m recent ! --rcheck --name l", rows: []row{{packetOf{}, yes}}},
	{ext: "connlimit", rule: "-m connlimit --connlimit-above 1 --connlimit-mask 24", rows: []row{
		{packetOf{ct: established}, no}, {packetOf{ct: newFlow}, yes}, {packetOf{ct: newFlow}, yes}}},
	{ext: "nfacct", rule: "-m nfacct --nfacct-name n", rows: []row{{packetOf{}, yes}}},
	{ext: "policy", rule: "-m policy --dir in --pol none", hook: in, rows: []row{{packetOf{}, yes}}},
	{ext: "policy", rule: "-m policy --dir in --pol ipsec", hook: in, rows: []row{{packetOf{}, no}}},
	// 2025-01-01 12:00:00 UTC is a Wednesday.
	{ext: "time", rule: "-m time --timestart 11:00 --timestop 12:00:00 --weekdays Wed --monthdays 1,2", rows: []row{
		{packetOf{}, yes}}},
	{ext: "time", rule: "-m time --timestart 13:00 --timestop 11:59:59", rows: []row{{packetOf{}, no}}},
	{ext: "time", rule: "-m time --weekdays Tue --timestart 23:00 --timestop 12:30 --contiguous", rows: []row{
		{packetOf{}, yes}}},
	{ext: "time", rule: "-m time ! --weekdays Wed", rows: []row{{packetOf{}, no}}},
	{ext: "time", rule: "-m time --datestart 2025-01-01T12:00:01", rows: []row{{packetOf{}, no}}},
	{ext: "time", rule: "-m time --datestop 2025-01-01T12", rows: []row{{packetOf{}, yes}}},
}

// TestMatches asks each rule about packets that match and that do not.
func TestMatches(t *testing.T) {
	for _, c := range cases {
		table := or(c.table, "mangle")
		r := newRig(t, table, chainRules(c.hook.String(), c.rule)...)
		r.fillFlows()
		for i, row := range c.rows {
			if got := r.ask(c.hook, row.d); got != row.want {
				t.Errorf("%s: packet %d %+v: %s, want %s", c.rule, i+1, row.d, got, row.want)
			}
		}
	}
}

// TestEveryMatchHasCases ranges over the list: each match that runs has a packet
// that matches and one that does not, unless nothing can fail it.
func TestEveryMatchHasCases(t *testing.T) {
	notRun := map[string]bool{}
	for _, rule := range refused {
		name, _, _ := strings.Cut(strings.TrimPrefix(rule[strings.Index(rule, "-m "):], "-m "), " ")
		notRun[name] = true
	}
	always := map[string]bool{"comment": true, "nfacct": true}
	for _, ext := range match.All() {
		if !ext.Families.Has(trace.IPv4) || notRun[ext.Name] {
			continue
		}
		hits, misses := 0, 0
		for _, c := range cases {
			for _, row := range c.rows {
				if c.ext == ext.Name && row.want == yes {
					hits++
				}
				if c.ext == ext.Name && row.want != yes {
					misses++
				}
			}
		}
		if hits == 0 || misses == 0 && !always[ext.Name] {
			t.Errorf("%s: %d packets that match, %d that do not", ext.Name, hits, misses)
		}
	}
}

// refused are rules that are read and printed and can't be run.
var refused = []string{
	`-m bpf --bytecode "1,6 0 0 1"`, "-m cgroup --cgroup 5", "-p tcp -m osf --genre Linux",
	"-m rateest --rateest R --rateest-lt --rateest-bps 8bit",
}

// TestRefusedAtBuild holds that what can't be run is an error with its place.
func TestRefusedAtBuild(t *testing.T) {
	more := []string{"-m owner --gid-owner 5 --suppl-groups"}
	for _, rule := range append(more, refused...) {
		chain := "INPUT"
		if strings.Contains(rule, "owner") {
			chain = "OUTPUT"
		}
		err := (&rig{t: t, table: "mangle"}).build(chainRules(chain, rule))
		if err == nil || !strings.Contains(err.Error(), "is not supported") ||
			!strings.HasPrefix(err.Error(), "iptables-save:2: -m ") {
			t.Errorf("%s: %v", rule, err)
		}
	}
}

// TestSorted holds that the list is in the order in which a reader looks.
func TestSorted(t *testing.T) {
	all := match.All()
	if !sort.SliceIsSorted(all, func(i, j int) bool { return all[i].Name < all[j].Name }) {
		t.Error("the list is not sorted by name")
	}
}

// TestPrintAgain holds that what is printed of a rule's matches reads the same.
func TestPrintAgain(t *testing.T) {
	for _, c := range cases {
		once := reprint(t, c.hook.String(), c.rule)
		if twice := reprint(t, c.hook.String(), once); twice != once {
			t.Errorf("%s:\nprinted %s\nagain   %s", c.rule, once, twice)
		}
	}
}

func reprint(t *testing.T, chain, rule string) string {
	rs, err := parse("*mangle\n-A "+chain+" "+rule+"\nCOMMIT\n", trace.IPv4)
	if err != nil {
		t.Fatalf("%s: %v", rule, err)
	}
	return string(xtables.AppendRule(nil, trace.IPv4, &rs.Tables[0].Chains[0].Rules[0]))
}

// TestBuckets takes time on: the buckets of limit and hashlimit fill again.
func TestBuckets(t *testing.T) {
	for _, rule := range []string{
		"-m limit --limit 1/min --limit-burst 1",
		"-m hashlimit --hashlimit-upto 1/min --hashlimit-burst 1 --hashlimit-mode srcip --hashlimit-name x",
	} {
		r := newRig(t, "mangle", chainRules("FORWARD", rule)...)
		steps := []struct {
			after world.Instant
			want  answer
		}{{0, yes}, {0, no}, {59 * world.Second, no}, {world.Second, yes}, {0, no},
			{60 * world.Second, yes}}
		for i, s := range steps {
			r.world.Now += s.after
			if got := r.ask(fwd, packetOf{}); got != s.want {
				t.Errorf("%s: step %d: %s, want %s", rule, i+1, got, s.want)
			}
		}
	}
}

// TestRecentInTime lets the entries of a list grow old.
func TestRecentInTime(t *testing.T) {
	r := newRig(t, "mangle", "-A FORWARD -p tcp --dport 1 -m recent --set --name l -j ACCEPT",
		"-A FORWARD -p tcp --dport 2 -m recent --update --seconds 10 --hitcount 2 --name l -j ACCEPT",
		"-A FORWARD -p tcp --dport 3 -m recent --rcheck --seconds 10 --reap --name l -j ACCEPT",
		"-A FORWARD -p tcp --dport 4 -m recent --rcheck --name l -j ACCEPT", "-A FORWARD -j QUEUE")
	steps := []struct {
		after world.Instant
		dport uint16
		want  answer
	}{
		{0, 2, no}, {0, 1, yes}, {0, 2, no}, {5 * world.Second, 1, yes}, {0, 2, yes},
		{6 * world.Second, 2, yes}, {11 * world.Second, 2, no}, {0, 4, yes}, {0, 3, no}, {0, 4, no},
	}
	for i, s := range steps {
		r.world.Now += s.after
		if got := r.ask(fwd, packetOf{dport: s.dport}); got != s.want {
			t.Errorf("step %d: port %d: %s, want %s", i+1, s.dport, got, s.want)
		}
	}
}

// TestForkedMemory holds that asking a fork leaves the memory alone.
func TestForkedMemory(t *testing.T) {
	for _, rule := range []string{"-m recent --set --name l -m recent --rcheck --hitcount 3 --name l",
		"-m statistic --mode nth --every 3 --packet 2", "-m quota ! --quota 90",
		"-m connlimit --connlimit-above 0"} {
		r := newRig(t, "mangle", chainRules("FORWARD", rule)...)
		r.ask(fwd, packetOf{})
		base := r.world.State
		var first []answer
		for n := range 3 {
			r.world.State = base.Fork()
			var got []answer
			for range 3 {
				got = append(got, r.ask(fwd, packetOf{}))
			}
			if n == 0 {
				first = got
			} else if strings.Join(words(got), " ") != strings.Join(words(first), " ") {
				t.Errorf("%s: fork %d answers %v, the first %v", rule, n+1, got, first)
			}
		}
	}
}

func words(as []answer) (out []string) {
	for _, a := range as {
		out = append(out, string(a))
	}
	return out
}

// TestConnlimitOfSnapshot counts the connections that a snapshot has, as far as they
// pass the rule's ports.
func TestConnlimitOfSnapshot(t *testing.T) {
	for _, c := range []struct {
		rule  string
		dport uint16
		want  answer
	}{
		{"-p tcp --dport 80 -m connlimit --connlimit-above 3", 80, yes},
		{"-p tcp --dport 80 -m connlimit --connlimit-above 4", 80, no},
		{"-p tcp --dport 81 -m connlimit --connlimit-above 1", 81, no},
		{"-s 10.9.0.0/16 -p tcp -m connlimit --connlimit-above 1 --connlimit-mask 0", 81, no},
	} {
		r := newRig(t, "mangle", chainRules("FORWARD", c.rule)...)
		r.numbered = true
		r.fillFlows()
		d := packetOf{sport: 5555, dport: c.dport}
		if c.rule[:2] == "-s" {
			d.src = "10.9.0.1"
		}
		if got := r.ask(fwd, d); got != c.want {
			t.Errorf("%s: %s, want %s", c.rule, got, c.want)
		}
	}
}
