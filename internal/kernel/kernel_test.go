package kernel

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// needRoot skips where namespaces can't be made; on CI that is a failure.
func needRoot(t testing.TB) {
	t.Helper()
	_, err := os.Stat("/dev/net/tun")
	if os.Geteuid() == 0 && err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root and /dev/net/tun")
	}
	t.Skip("SKIP: needs root and /dev/net/tun")
}

// router is a host between 10.0.0.0/24 (eth0) and 10.0.1.0/24 (eth1), with
// .1 on each side for itself and neighbours .9.
func router(rules string, extra map[string]string) Host {
	files := map[string]string{
		"ip-link.json":  testLinks,
		"ip-addr.json":  testAddrs,
		"ip-neigh.json": testNeighs,
		"iptables-save": rules,
		"sysctl":        "net.ipv4.ip_forward = 1\n",
	}
	for name, text := range extra {
		files[name] = text
	}
	return Host{Name: "r", Files: files}
}

const testLinks = `[
{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP"],"mtu":65536,"link_type":"loopback",
 "address":"00:00:00:00:00:00"},
{"ifindex":7,"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP"],"mtu":1500,
 "link_type":"ether","address":"02:00:00:00:00:01"},
{"ifindex":9,"ifname":"eth1","flags":["BROADCAST","MULTICAST","UP"],"mtu":1400,
 "link_type":"ether","address":"02:00:00:00:01:01"}]`

const testAddrs = `[
{"ifname":"eth0","addr_info":[{"family":"inet","local":"10.0.0.1","prefixlen":24,
 "broadcast":"10.0.0.255","scope":"global","label":"eth0"}]},
{"ifname":"eth1","addr_info":[{"family":"inet","local":"10.0.1.1","prefixlen":24,
 "broadcast":"10.0.1.255","scope":"global","label":"eth1"}]}]`

const testNeighs = `[
{"dst":"10.0.0.9","dev":"eth0","lladdr":"02:00:00:00:00:09","state":["PERMANENT"]},
{"dst":"10.0.1.9","dev":"eth1","lladdr":"02:00:00:00:01:09","state":["PERMANENT"]}]`

// header writes an IPv4 packet around a payload.
func header(proto byte, src, dst string, payload []byte) []byte {
	b := make([]byte, 20, 20+len(payload))
	b[0], b[8], b[9] = 0x45, 64, proto
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
	binary.BigEndian.PutUint16(b[4:], 0x1234)
	copy(b[12:], netip.MustParseAddr(src).AsSlice())
	copy(b[16:], netip.MustParseAddr(dst).AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^fold(sum(b)))
	return append(b, payload...)
}

// transport completes a TCP or UDP checksum.
func transport(proto byte, src, dst string, l4 []byte, at int) []byte {
	p := header(proto, src, dst, l4)
	pseudo := sum(p[12:20]) + uint32(proto) + uint32(len(l4))
	binary.BigEndian.PutUint16(p[20+at:], ^fold(pseudo+sum(l4)))
	return p
}

func udp(src, dst string, sport, dport uint16, data string) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b[0:], sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint16(b[4:], uint16(8+len(data)))
	return transport(17, src, dst, append(b, data...), 6)
}

func tcp(src, dst string, sport, dport uint16, flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b[0:], sport)
	binary.BigEndian.PutUint16(b[2:], dport)
	binary.BigEndian.PutUint32(b[4:], 1000)
	b[12], b[13], b[14] = 5<<4, flags, 0x20
	return transport(6, src, dst, b, 16)
}

func echo(src, dst string) []byte {
	b := []byte{8, 0, 0, 0, 0, 7, 0, 1, 'p', 'i', 'n', 'g'}
	binary.BigEndian.PutUint16(b[2:], ^fold(sum(b)))
	return header(1, src, dst, b)
}

// frame puts a packet on a wire from neighbour .9 to the router.
func frame(dev string, packet []byte) Hex {
	side := dev[len("eth")] - '0'
	b := []byte{2, 0, 0, 0, side, 1, 2, 0, 0, 0, side, 9, 8, 0}
	return append(b, packet...)
}

// arriving is a question.
func arriving(dev string, packet []byte) Question {
	return Question{In: dev, Frame: frame(dev, packet), Seq: "s"}
}

// say writes an answer in short lines: the rules met, then what came out.
func say(a Answer) string {
	var b strings.Builder
	for _, s := range a.Steps {
		fmt.Fprintf(&b, "%s %s %s %d %s\n", s.Table, s.Chain, s.Kind, s.N, s.Verdict)
	}
	for _, f := range a.Out {
		fmt.Fprintf(&b, "out %s %s\n", f.Dev, sayFrame(f.Bytes))
	}
	for _, p := range a.Delivered {
		fmt.Fprintf(&b, "in %s\n", sayPacket(p))
	}
	for _, f := range a.Flows {
		fmt.Fprintf(&b, "flow %s\n", f)
	}
	if a.Send != "" || a.Err != "" {
		fmt.Fprintf(&b, "send %s err %s\n", a.Send, a.Err)
	}
	return b.String()
}

func sayFrame(b []byte) string {
	if isARP(b) {
		return "arp"
	}
	return sayPacket(b[14:])
}

func sayPacket(b []byte) string {
	p, err := parseIPv4(b)
	if err != nil {
		return err.Error()
	}
	s := fmt.Sprintf("%d %s>%s ttl %d", p.proto, p.src, p.dst, p.ttl)
	switch {
	case p.proto == 1:
		return fmt.Sprintf("%s type %d code %d", s, p.payload[0], p.payload[1])
	case len(p.payload) >= 4:
		return fmt.Sprintf("%s ports %d>%d", s, binary.BigEndian.Uint16(p.payload),
			binary.BigEndian.Uint16(p.payload[2:]))
	}
	return s
}

// openRun opens a scenario, closed with the test.
func openRun(t testing.TB, sc Scenario) *Run {
	t.Helper()
	needRoot(t)
	r, err := Open(context.Background(), sc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// hold asks and compares with the expected lines.
func hold(t *testing.T, r *Run, q Question, want string) Answer {
	t.Helper()
	a, err := r.Ask(q)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.TrimSpace(say(a))
	want = strings.TrimSpace(strings.ReplaceAll(want, "\t", ""))
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	return a
}

const forwardRules = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:web - [0:0]
:log - [0:0]
-A FORWARD -p icmp -j DROP
-A FORWARD -p udp -j web
-A FORWARD -p udp -g log
-A web -p udp -m udp --dport 53 -j ACCEPT
-A web -p udp -m udp --dport 54 -j RETURN
-A web -p udp -m udp --dport 55
-A log -j RETURN
COMMIT
`

func TestForward(t *testing.T) {
	for _, backend := range []Backend{Legacy, NFT} {
		t.Run(backend.String(), func(t *testing.T) {
			r := openRun(t, Scenario{Hosts: []Host{router(forwardRules, nil)}, Backend: backend})
			hold(t, r, arriving("eth0", udp("10.0.0.9", "10.0.1.9", 1024, 53, "x")), `
				filter FORWARD rule 2 JUMP web
				filter web rule 1 ACCEPT
				out eth1 17 10.0.0.9>10.0.1.9 ttl 63 ports 1024>53`)
			hold(t, r, arriving("eth0", udp("10.0.0.9", "10.0.1.9", 1024, 54, "x")), `
				filter FORWARD rule 2 JUMP web
				filter web rule 2 RETURN
				filter FORWARD rule 3 GOTO log
				filter log rule 1 RETURN
				filter FORWARD policy 4 DROP`)
			hold(t, r, arriving("eth0", udp("10.0.0.9", "10.0.1.9", 1024, 55, "x")), `
				filter FORWARD rule 2 JUMP web
				filter web rule 3 CONTINUE
				filter web return 4 RETURN
				filter FORWARD rule 3 GOTO log
				filter log rule 1 RETURN
				filter FORWARD policy 4 DROP`)
			hold(t, r, arriving("eth0", echo("10.0.0.9", "10.0.1.9")), `
				filter FORWARD rule 1 DROP`)
		})
	}
}

const natRules = `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d 10.0.0.1/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.1.9:8080
-A POSTROUTING -o eth1 -j SNAT --to-source 10.0.1.1
COMMIT
`

func TestConversation(t *testing.T) {
	for _, backend := range []Backend{Legacy, NFT} {
		t.Run(backend.String(), func(t *testing.T) {
			r := openRun(t, Scenario{Hosts: []Host{router(natRules, nil)}, Backend: backend})
			verdict := map[Backend]string{Legacy: "", NFT: "ACCEPT"}[backend]
			hold(t, r, arriving("eth0", tcp("10.0.0.9", "10.0.0.1", 1024, 80, 2)), `
				nat PREROUTING rule 1 `+verdict+`
				nat POSTROUTING rule 1 `+verdict+`
				out eth1 6 10.0.1.1>10.0.1.9 ttl 63 ports 1024>8080
				flow ipv4 2 tcp 6 SYN_SENT src=10.0.0.9 dst=10.0.0.1 sport=1024 dport=80 `+
				`[UNREPLIED] src=10.0.1.9 dst=10.0.1.1 sport=8080 dport=1024 mark=0`)
			hold(t, r, arriving("eth1", tcp("10.0.1.9", "10.0.1.1", 8080, 1024, 0x12)), `
				out eth0 6 10.0.0.1>10.0.0.9 ttl 63 ports 80>1024
				flow ipv4 2 tcp 6 SYN_RECV src=10.0.0.9 dst=10.0.0.1 sport=1024 dport=80 `+
				`src=10.0.1.9 dst=10.0.1.1 sport=8080 dport=1024 mark=0`)
		})
	}
}

func TestAnswers(t *testing.T) {
	rules := strings.Replace(forwardRules, "-A FORWARD -p icmp -j DROP",
		"-A FORWARD -p icmp -j REJECT --reject-with icmp-admin-prohibited", 1)
	r := openRun(t, Scenario{Hosts: []Host{router(rules, nil)}, Backend: Legacy})
	hold(t, r, arriving("eth0", echo("10.0.0.9", "10.0.1.9")), `
		filter FORWARD rule 1 
		filter OUTPUT policy 1 ACCEPT
		out eth0 1 10.0.0.1>10.0.0.9 ttl 64 type 3 code 13`)
	hold(t, r, arriving("eth0", echo("10.0.0.9", "10.0.0.1")), `
		filter INPUT policy 1 ACCEPT
		filter OUTPUT policy 1 ACCEPT
		out eth0 1 10.0.0.1>10.0.0.9 ttl 64 type 0 code 0
		in 1 10.0.0.9>10.0.0.1 ttl 64 type 8 code 0`)
	hold(t, r, arriving("eth0", udp("10.0.0.9", "10.0.0.1", 1024, 9, "x")), `
		filter INPUT policy 1 ACCEPT
		filter OUTPUT policy 1 ACCEPT
		out eth0 1 10.0.0.1>10.0.0.9 ttl 64 type 3 code 3
		in 17 10.0.0.9>10.0.0.1 ttl 64 ports 1024>9`)
	dying := udp("10.0.0.9", "10.0.1.9", 1024, 53, "x")
	dying[8] = 1
	dying[10], dying[11] = 0, 0
	binary.BigEndian.PutUint16(dying[10:], ^fold(sum(dying[:20])))
	hold(t, r, arriving("eth0", dying), `
		filter OUTPUT policy 1 ACCEPT
		out eth0 1 10.0.0.1>10.0.0.9 ttl 64 type 11 code 0`)
}

const markRules = `*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A OUTPUT -p udp -m udp --dport 9 -j MARK --set-xmark 0x5/0xffffffff
-A POSTROUTING -o eth1 -m owner --uid-owner 77
COMMIT
`

const markRoutes = `default via 10.0.0.9 dev eth0
unicast default via 10.0.1.9 dev eth1 table 5
unicast 10.0.0.0/24 dev eth0 table main proto kernel scope link src 10.0.0.1
unicast 10.0.1.0/24 dev eth1 table main proto kernel scope link src 10.0.1.1
local 10.0.0.1 dev eth0 table local proto kernel scope host src 10.0.0.1
local 10.0.1.1 dev eth1 table local proto kernel scope host src 10.0.1.1
local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1
local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1
`

const markPolicy = `[{"priority":0,"src":"all","table":"local"},
{"priority":100,"src":"all","fwmark":"0x5","table":"5"},
{"priority":32766,"src":"all","table":"main"}]`

func TestLocalOut(t *testing.T) {
	h := router(markRules, map[string]string{"ip-route": markRoutes,
		"ip-rule.json": markPolicy})
	r := openRun(t, Scenario{Hosts: []Host{h}, Backend: Legacy})
	local := func(socket string, uid, mark uint32, p []byte) Question {
		return Question{Out: true, Packet: p, Socket: socket, UID: uid, Mark: mark, Seq: "s"}
	}
	// Rule OUTPUT 1 marks, and the packet is routed again; its source stays.
	hold(t, r, local("udp", 77, 0, udp("0.0.0.0", "9.9.9.9", 700, 9, "x")), `
		mangle OUTPUT rule 1 
		mangle OUTPUT policy 2 ACCEPT
		mangle POSTROUTING rule 1 CONTINUE
		mangle POSTROUTING policy 2 ACCEPT
		out eth1 17 10.0.0.1>9.9.9.9 ttl 64 ports 700>9`)
	// SO_MARK routes at once, so the source is the other interface's.
	hold(t, r, local("udp", 0, 5, udp("0.0.0.0", "9.9.9.9", 701, 8, "x")), `
		mangle OUTPUT policy 2 ACCEPT
		mangle POSTROUTING policy 2 ACCEPT
		out eth1 17 10.0.1.1>9.9.9.9 ttl 64 ports 701>8`)
	hold(t, r, local("raw", 0, 0, udp("10.0.0.1", "9.9.9.9", 702, 9, "x")), `
		mangle OUTPUT rule 1 
		mangle OUTPUT policy 2 ACCEPT
		mangle POSTROUTING policy 2 ACCEPT
		out eth1 17 10.0.0.1>9.9.9.9 ttl 64 ports 702>9`)
	hold(t, r, local("tcp", 0, 0, tcp("0.0.0.0", "9.9.9.9", 703, 80, 2)), `
		mangle OUTPUT policy 2 ACCEPT
		mangle POSTROUTING policy 2 ACCEPT
		out eth0 6 10.0.0.1>9.9.9.9 ttl 64 ports 703>80`)
	hold(t, r, local("icmp", 0, 0, echo("10.0.1.1", "9.9.9.9")), `
		mangle OUTPUT policy 2 ACCEPT
		mangle POSTROUTING policy 2 ACCEPT
		out eth0 1 10.0.1.1>9.9.9.9 ttl 64 type 8 code 0`)
	hold(t, r, local("udp", 0, 0, udp("10.0.1.5", "9.9.9.9", 704, 8, "x")),
		"send EADDRNOTAVAIL err")
}

// TestLoopback: what goes over lo is queued; it must be complete all the same.
func TestLoopback(t *testing.T) {
	r := openRun(t, Scenario{Hosts: []Host{router(markRules, nil)}, Backend: Legacy})
	for range 500 {
		q := Question{Out: true, Packet: echo("10.0.0.1", "10.0.1.1"), Socket: "raw", Seq: "s"}
		hold(t, r, q, `
			mangle OUTPUT policy 2 ACCEPT
			mangle POSTROUTING policy 2 ACCEPT
			mangle PREROUTING policy 1 ACCEPT
			mangle INPUT policy 1 ACCEPT
			mangle OUTPUT policy 2 ACCEPT
			mangle POSTROUTING policy 2 ACCEPT
			mangle PREROUTING policy 1 ACCEPT
			mangle INPUT policy 1 ACCEPT
			in 1 10.0.0.1>10.0.1.1 ttl 64 type 8 code 0
			in 1 10.0.1.1>10.0.0.1 ttl 64 type 0 code 0`)
	}
}

// TestSockets: a listed socket is found, and says nothing.
func TestSockets(t *testing.T) {
	h := router("", map[string]string{"sockets": `
udp UNCONN 0 0 10.0.0.1%eth0:53 0.0.0.0:* uid:5 ino:1 sk:1 <->
tcp LISTEN 0 128 0.0.0.0:80 0.0.0.0:* ino:2 sk:2 <->
tcp ESTAB 0 0 10.0.0.1:99 10.0.0.9:1024 ino:3 sk:3 <->
`})
	r := openRun(t, Scenario{Hosts: []Host{h}})
	hold(t, r, arriving("eth0", udp("10.0.0.9", "10.0.0.1", 1024, 53, "x")),
		"in 17 10.0.0.9>10.0.0.1 ttl 64 ports 1024>53")
	hold(t, r, arriving("eth0", tcp("10.0.0.9", "10.0.0.1", 1024, 80, 2)),
		"in 6 10.0.0.9>10.0.0.1 ttl 64 ports 1024>80")
	hold(t, r, arriving("eth0", tcp("10.0.0.9", "10.0.0.1", 1024, 99, 0x10)),
		"in 6 10.0.0.9>10.0.0.1 ttl 64 ports 1024>99")
	hold(t, r, arriving("eth0", tcp("10.0.0.9", "10.0.0.1", 1024, 81, 2)), `
		out eth0 6 10.0.0.1>10.0.0.9 ttl 64 ports 81>1024
		in 6 10.0.0.9>10.0.0.1 ttl 64 ports 1024>81`)
}

// TestPreload: a listed connection with NAT translates a reply at once.
func TestPreload(t *testing.T) {
	lines := `ipv4     2 tcp      6 431999 ESTABLISHED ` +
		`src=10.0.0.9 dst=10.0.0.1 sport=1024 dport=80 ` +
		`src=10.0.1.9 dst=10.0.1.1 sport=8080 dport=33 [ASSURED] mark=3 use=1 id=1
`
	h := router(natRules, map[string]string{"conntrack": lines})
	r := openRun(t, Scenario{Hosts: []Host{h}, Backend: Legacy})
	hold(t, r, arriving("eth1", tcp("10.0.1.9", "10.0.1.1", 8080, 33, 0x10)), `
		out eth0 6 10.0.0.1>10.0.0.9 ttl 63 ports 80>1024
		flow ipv4 2 tcp 6 ESTABLISHED src=10.0.0.9 dst=10.0.0.1 sport=1024 dport=80 `+
		`src=10.0.1.9 dst=10.0.1.1 sport=8080 dport=33 [ASSURED] mark=3`)
	// Another sequence starts from the file again; no sequence from nothing else.
	q := arriving("eth0", tcp("10.0.0.9", "10.0.1.9", 5, 80, 2))
	q.Seq = ""
	hold(t, r, q, `
		nat PREROUTING policy 2 ACCEPT
		nat POSTROUTING rule 1 
		out eth1 6 10.0.1.1>10.0.1.9 ttl 63 ports 5>80
		flow ipv4 2 tcp 6 ESTABLISHED src=10.0.0.9 dst=10.0.0.1 sport=1024 dport=80 `+
		`src=10.0.1.9 dst=10.0.1.1 sport=8080 dport=33 [ASSURED] mark=3
		flow ipv4 2 tcp 6 SYN_SENT src=10.0.0.9 dst=10.0.1.9 sport=5 dport=80 [UNREPLIED] `+
		`src=10.0.1.9 dst=10.0.1.1 sport=80 dport=5 mark=0`)
}

// TestCable: two hosts; ARP and the packet cross the cable in both directions.
func TestCable(t *testing.T) {
	a := router("", map[string]string{"ip-neigh.json": "[]",
		"meta.json": `{"links":{"eth1":{"peer_host":"b","peer":"eth0"}}}`})
	b := Host{Name: "b", Files: map[string]string{
		"ip-link.json": strings.ReplaceAll(testLinks, "02:00:00:00:0", "02:00:00:0b:0"),
		"ip-addr.json": strings.ReplaceAll(strings.ReplaceAll(testAddrs, "10.0.1.1", "10.0.2.1"),
			"10.0.0.1", "10.0.1.9"),
		"meta.json": `{"links":{"eth0":{"peer_host":"r","peer":"eth1"}}}`,
		"sysctl":    "net.ipv4.ip_forward = 1\n", "iptables-save": ""}}
	r := openRun(t, Scenario{Hosts: []Host{a, b}})
	q := Question{Host: "r", Out: true, Packet: echo("10.0.1.1", "10.0.1.9"), Socket: "raw"}
	hold(t, r, q, `
		out eth1 arp
		out eth0 arp
		out eth1 1 10.0.1.1>10.0.1.9 ttl 64 type 8 code 0
		out eth0 1 10.0.1.9>10.0.1.1 ttl 64 type 0 code 0
		in 1 10.0.1.1>10.0.1.9 ttl 64 type 8 code 0
		in 1 10.0.1.9>10.0.1.1 ttl 64 type 0 code 0`)
}

func BenchmarkOpen(b *testing.B) {
	needRoot(b)
	for b.Loop() {
		r, err := Open(b.Context(), Scenario{Hosts: []Host{router(natRules, nil)}})
		if err != nil {
			b.Fatal(err)
		}
		r.Close()
	}
}

func BenchmarkAsk(b *testing.B) {
	for _, flows := range []bool{false, true} {
		for _, backend := range []Backend{Legacy, NFT} {
			b.Run(fmt.Sprintf("%s/flows=%v", backend, flows), func(b *testing.B) {
				r := openRun(b, Scenario{Hosts: []Host{router(forwardRules, nil)}, Backend: backend})
				r.NoFlows = !flows
				q := arriving("eth0", udp("10.0.0.9", "10.0.1.9", 1024, 55, "x"))
				for b.Loop() {
					if _, err := r.Ask(q); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
