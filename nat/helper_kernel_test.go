package nat_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/nat"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// stream is a TCP connection between two peers that believe what they receive.
type stream struct {
	t        *testing.T
	r        *rig
	m        *model
	c        counts
	side     [2]int
	src, dst [2]packet.Addr
	sp, dp   [2]uint16
	snd, rcv [2]uint32
	got      [2][]byte // the last payload that came
}

// say sends a segment from a peer and lets the other one take it in.
func (s *stream) say(who int, flags uint8, data string) {
	s.t.Helper()
	b := make([]byte, 20+len(data))
	binary.BigEndian.PutUint16(b, s.sp[who])
	binary.BigEndian.PutUint16(b[2:], s.dp[who])
	binary.BigEndian.PutUint32(b[4:], s.snd[who])
	if flags&16 != 0 {
		binary.BigEndian.PutUint32(b[8:], s.rcv[who])
	}
	b[12], b[13], b[14] = 0x50, flags, 0x20
	copy(b[20:], data)
	sum(s.src[who], s.dst[who], packet.TCP, b, 16)
	ip := header(s.src[who], s.dst[who], packet.TCP, b)
	s.snd[who] += uint32(len(data)) + uint32(flags&1) + uint32(flags>>1&1)
	tk := &talk{proto: packet.TCP, side: s.side}
	if diff := s.r.compare(s.m, tk, who, ip, &s.c); diff != "" {
		s.t.Fatalf("%q\n%s\n%s", data, diff, s.m.save())
	}
	out := tk.seen[1-who]
	if out == nil {
		s.t.Fatalf("%q did not come through\n%s", data, s.m.save())
	}
	peer := 1 - who
	s.rcv[peer] = binary.BigEndian.Uint32(out[24:]) + uint32(len(out)-40) + uint32(flags&1) +
		uint32(flags>>1&1)
	s.src[peer], s.dst[peer] = packet.AddrFrom4(out[16:]), packet.AddrFrom4(out[12:])
	s.sp[peer], s.dp[peer] = binary.BigEndian.Uint16(out[22:]), binary.BigEndian.Uint16(out[20:])
	s.got[peer] = out[40:]
}

func (s *stream) open() {
	s.say(0, 2, "")
	s.say(1, 18, "")
	s.say(0, 16, "")
}

// dial makes a connection from a peer of s to an address that it was told.
func (s *stream) dial(who int, dst packet.Addr, dport uint16) *stream {
	d := &stream{t: s.t, r: s.r, m: s.m, side: [2]int{s.side[who], s.side[1-who]}}
	d.src[0], d.dst[0], d.sp[0], d.dp[0] = s.src[who], dst, 20, dport
	d.snd = [2]uint32{7000, 9000}
	return d
}

// numbers reads the address that a PORT command or a 227 answer names.
func numbers(t *testing.T, b []byte) (packet.Addr, uint16) {
	t.Helper()
	var n [6]int
	i, in := 0, false
	for _, c := range b[4:] {
		switch {
		case c >= '0' && c <= '9' && i < 6:
			n[i], in = n[i]*10+int(c-'0'), true
		case in:
			i, in = i+1, false
		}
	}
	return packet.AddrFrom4([]byte{byte(n[0]), byte(n[1]), byte(n[2]), byte(n[3])}),
		uint16(n[4]<<8 | n[5])
}

// helperRules are the translations that helpers are tried with.
var helperRules = map[string][]natRule{
	"none": nil,
	"source": {{hook: trace.Postrouting, src: netip.MustParsePrefix("10.0.1.0/24"),
		target: "MASQUERADE"}},
	"longer source": {{hook: trace.Postrouting, src: netip.MustParsePrefix("10.0.1.0/24"),
		target: "SNAT", text: "--to-source 198.51.100.1", r: nat.Range{Flags: nat.MapIPs,
			MinAddr: packet.MustParseAddr("198.51.100.1"), MaxAddr: packet.MustParseAddr("198.51.100.1")}}},
	"destination": {{hook: trace.Prerouting, dst: netip.MustParsePrefix("192.0.2.5/32"),
		target: "DNAT", text: "--to-destination 10.0.2.20", r: nat.Range{Flags: nat.MapIPs,
			MinAddr: packet.MustParseAddr("10.0.2.20"), MaxAddr: packet.MustParseAddr("10.0.2.20")}}},
}

func helperModel(r *rig, name string) *model {
	m := newModel(0)
	m.rules = helperRules[name]
	all := netip.MustParsePrefix("0.0.0.0/0")
	m.setZones([]zoneRule{
		{dev: 0, src: all, proto: packet.TCP, dport: 21, helper: conntrack.FTP},
		{dev: 0, src: all, proto: packet.UDP, dport: 69, helper: conntrack.TFTP},
	})
	r.run("iptables-legacy-restore", m.save())
	r.set(m.sys)
	r.flush()
	return m
}

// server is the address that clients use under a translation.
func server(name string) packet.Addr {
	if name == "destination" {
		return packet.MustParseAddr("192.0.2.5")
	}
	return packet.MustParseAddr("10.0.2.20")
}

// TestKernelFTP holds the FTP helper against the kernel: commands are rewritten, sequence
// numbers shifted, data connections related.
func TestKernelFTP(t *testing.T) {
	r := newRig(t)
	for name := range helperRules {
		s := &stream{t: t, r: r, m: helperModel(r, name), side: [2]int{0, 1}}
		s.src[0], s.dst[0] = packet.MustParseAddr("10.0.1.10"), server(name)
		s.sp[0], s.dp[0] = 40000, 21
		s.snd = [2]uint32{1000, 5000}
		s.open()
		s.say(1, 24, "220 hello\r\n")
		s.say(0, 16, "")
		s.say(0, 24, "USER x\r\n")
		s.say(1, 24, "331 ok\r\n")
		s.say(0, 24, "PORT 10,0,1,10,4,1\r\n")
		a, port := numbers(t, s.got[1])
		s.say(1, 24, "200 ok\r\n")
		d := s.dial(1, a, port)
		d.open()
		d.say(0, 24, "data")
		d.say(1, 17, "")
		d.say(0, 17, "")
		s.say(0, 24, "PASV\r\n")
		s.say(1, 24, "227 Passive (10,0,2,20,8,1)\r\n")
		a, port = numbers(t, s.got[0])
		s.say(0, 16, "")
		d = s.dial(0, a, port)
		d.open()
		d.say(0, 24, "more data")
		s.say(0, 24, "EPSV\r\n")
		s.say(1, 24, "229 Extended (|||2050|)\r\n")
		d = s.dial(0, s.dst[0], 2050)
		d.open()
		s.say(0, 24, "EPRT |1|10.0.1.10|1300|\r\n")
		s.say(1, 16, "")
		s.say(1, 24, "227 Passive (10,9,9,9,8,1)\r\n") // somebody else's address
		s.say(0, 24, "QUIT\r\n")
		s.say(1, 17, "")
		s.say(0, 17, "")
		t.Logf("%s: %d packets of the control connection agree", name, s.c.packets)
	}
}

// TestKernelTFTP holds the TFTP helper against the kernel.
func TestKernelTFTP(t *testing.T) {
	r := newRig(t)
	for name := range helperRules {
		m := helperModel(r, name)
		client := packet.MustParseAddr("10.0.1.10")
		var c counts
		ask := func(side int, src, dst packet.Addr, sp, dp uint16, data string) []byte {
			b := make([]byte, 8+len(data))
			binary.BigEndian.PutUint16(b, sp)
			binary.BigEndian.PutUint16(b[2:], dp)
			binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
			copy(b[8:], data)
			sum(src, dst, packet.UDP, b, 6)
			tk := &talk{proto: packet.UDP, side: [2]int{side, 1 - side}}
			if diff := r.compare(m, tk, 0, header(src, dst, packet.UDP, b), &c); diff != "" {
				t.Fatalf("%s: %q\n%s", name, data, diff)
			}
			if tk.seen[1] == nil {
				t.Fatalf("%s: %q did not come through", name, data)
			}
			return tk.seen[1]
		}
		out := ask(0, client, server(name), 1500, 69, "\x00\x01file\x00octet\x00")
		back := packet.AddrFrom4(out[12:])
		sp := binary.BigEndian.Uint16(out[20:])
		out = ask(1, packet.MustParseAddr("10.0.2.20"), back, 3000, sp, "\x00\x03\x00\x01data")
		ask(0, client, packet.AddrFrom4(out[12:]), 1500, binary.BigEndian.Uint16(out[20:]),
			"\x00\x04\x00\x01")
		ask(1, packet.MustParseAddr("10.0.2.20"), back, 3000, sp, "\x00\x03\x00\x02data")
	}
}

// TestKernelPingID: two pings with one id that are translated to one destination.
func TestKernelPingID(t *testing.T) {
	r := newRig(t)
	m := helperModel(r, "destination")
	client := packet.MustParseAddr("10.0.1.10")
	var c counts
	var ids []uint16
	for _, dst := range []string{"10.0.2.20", "192.0.2.5"} {
		l4 := []byte{8, 0, 0, 0, 0x12, 0x34, 0, 1}
		d := packet.MustParseAddr(dst)
		sum(client, d, packet.ICMP, l4, 2)
		tk := &talk{proto: packet.ICMP, side: [2]int{0, 1}}
		if diff := r.compare(m, tk, 0, header(client, d, packet.ICMP, l4), &c); diff != "" {
			t.Fatal(diff)
		}
		ids = append(ids, binary.BigEndian.Uint16(tk.seen[1][24:]))
	}
	if ids[0] != 0x1234 || ids[1] != 0 {
		t.Errorf("got ids %#x, want the first free one for the second", ids)
	}
}
