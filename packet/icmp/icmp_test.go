package icmp_test

import (
	"encoding/binary"
	"testing"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/icmp"
)

// build makes a packet of 10.0.0.9 to 10.0.1.9.
func build(proto uint8, opts, l4 []byte, flags uint16) *packet.Packet {
	h := append(make([]byte, 20), opts...)
	h[0], h[1], h[8], h[9] = 0x40|byte(len(h)/4), 0xb9, 64, proto
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+len(l4)))
	binary.BigEndian.PutUint16(h[6:], flags)
	copy(h[12:], []byte{10, 0, 0, 9, 10, 0, 1, 9})
	packet.FixIP4(h)
	p, _ := packet.FromIP(append(h, l4...))
	return p
}

// TestMayAnswer lists what gets no error.
func TestMayAnswer(t *testing.T) {
	icmpOf := func(typ byte) *packet.Packet { return build(packet.ICMP, nil, make8(typ), 0) }
	typed := func(ty packet.Type) *packet.Packet {
		p := build(packet.UDP, nil, make8(0), 0)
		p.Type = ty
		return p
	}
	for _, tt := range []struct {
		name string
		p    *packet.Packet
		typ  uint8
		want bool
	}{
		{"a datagram", typed(packet.Host), 3, true},
		{"a broadcast frame", typed(packet.Broadcast), 3, false},
		{"a multicast frame", typed(packet.Multicast), 3, false},
		{"another host's frame", typed(packet.OtherHost), 3, false},
		{"its own packet", typed(packet.Outgoing), 3, true},
		{"a later fragment", build(packet.UDP, nil, make8(0), 5), 3, false},
		{"a first fragment", build(packet.UDP, nil, make8(0), 0x2000), 3, true},
		{"an echo request", icmpOf(8), 3, true}, {"an echo reply", icmpOf(0), 3, true},
		{"an unreachable", icmpOf(3), 3, false}, {"a redirect", icmpOf(5), 11, false},
		{"a time exceeded", icmpOf(11), 3, false}, {"an unknown type", icmpOf(19), 3, false},
		{"no ICMP header", build(packet.ICMP, nil, nil, 0), 3, false},
		{"an error, with an echo reply", icmpOf(3), 0, true},
	} {
		if got := icmp.MayAnswer(tt.p, tt.typ); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func make8(first byte) []byte { return []byte{first, 0, 0, 0, 0, 0, 0, 0} }

// TestErrorSize bounds what is quoted.
func TestErrorSize(t *testing.T) {
	src := packet.MustParseAddr("10.0.0.1")
	long := []byte{7, 39, 4, 38: 0, 39: 0}
	for _, tt := range []struct {
		size, mtu int
		opts      []byte
		want      int
	}{
		{8, 1500, nil, 56}, {527, 1500, nil, 575}, {528, 1500, nil, 576}, {529, 1500, nil, 576}, {1400, 9000, nil, 576},
		{1400, 300, nil, 300}, {1400, 68, nil, 68}, {1400, 49, nil, 49}, {1400, 48, nil, 0},
		{1400, 1500, long, 576}, {1400, 89, long, 89}, {1400, 88, long, 0},
	} {
		p := build(packet.UDP, tt.opts, make([]byte, tt.size), 0)
		p.CompileOptions(us{})
		echo, _ := p.Echo(us{}.IsUnicast)
		a := icmp.Answer{Src: src, TTL: 64, MTU: tt.mtu, Options: echo}
		got := a.Error(p.IP(), icmp.Message{Type: 3, Code: 4, Info: 1280})
		if len(got) != tt.want {
			t.Errorf("%+v: got %d bytes", tt, len(got))
			continue
		}
		if got == nil {
			continue
		}
		n := int(got[0]&15) * 4
		if packet.Fold(packet.Sum16(got[:n], 0)) != 0 || packet.Fold(packet.Sum16(got[n:], 0)) != 0 ||
			binary.BigEndian.Uint32(got[n+4:]) != 1280 || got[1] != 0xb8&0x1e|0xc0 {
			t.Errorf("%+v: % x", tt, got[:n+8])
		}
	}
}

// TestSocketReset lists segments that are not answered.
func TestSocketReset(t *testing.T) {
	md5 := append([]byte{19, 18}, make([]byte, 18)...)
	for _, tt := range []struct {
		name   string
		flags  byte
		opts   []byte
		strict bool
		want   bool
	}{
		{"SYN", 2, nil, true, true}, {"RST", 4, nil, true, false},
		{"a signature", 2, md5, true, false}, {"a signature, older", 2, md5, false, false},
		{"broken options", 2, append([]byte{8, 99}, make([]byte, 18)...), true, false},
		{"broken options, older", 2, append([]byte{8, 99}, make([]byte, 18)...), false, true},
		{"broken at the end", 2, append(make([]byte, 0, 20), 1, 1, 1, 1, 8, 99, 0, 0), true, true},
		{"behind the end of options", 2, append([]byte{0}, md5[:19]...), true, true},
	} {
		l4 := append(make([]byte, 20), tt.opts...)
		l4[12], l4[13] = byte(len(l4)/4)<<4, tt.flags
		a := icmp.Answer{TTL: 64}
		_, got := a.SocketReset(build(packet.TCP, nil, l4, 0).IP(), tt.strict)
		if got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestRejectSum is about the versions that the kernel at hand is not.
func TestRejectSum(t *testing.T) {
	p := build(packet.DCCP, nil, []byte{1, 2, 3, 4}, 0)
	if !icmp.RejectSumOK(p, false) || icmp.RejectSumOK(p, true) {
		t.Error("DCCP is summed up by kernels that do not know it, and by no others")
	}
}

// FuzzAnswers feeds anything with an IPv4 header: nothing panics, and an answer is a
// whole packet.
func FuzzAnswers(f *testing.F) {
	f.Add(build(packet.TCP, []byte{7, 7, 4, 0, 0, 0, 0, 1}, make([]byte, 24), 0).IP())
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) < 20 || in[0]>>4 != 4 || int(in[0]&15)*4 < 20 || int(in[0]&15)*4 > len(in) {
			return
		}
		p, _ := packet.FromIP(in)
		icmp.RejectSumOK(p, true)
		icmp.MayAnswer(p, 3)
		p.CompileOptions(us{})
		echo, _ := p.Echo(us{}.IsUnicast)
		a := icmp.Answer{Src: p.Dst(), TTL: 64, MTU: 200, Options: echo}
		whole(t, a.Error(p.IP(), icmp.Message{Type: 3, Code: 3}))
		b, _ := icmp.Reset(p.IP(), 64)
		whole(t, b)
		b, _ = a.SocketReset(p.IP(), true)
		whole(t, b)
		if len(p.L4()) >= 8 {
			whole(t, a.EchoReply(p.IP()))
		}
	})
}

func whole(t *testing.T, b []byte) {
	t.Helper()
	if b == nil {
		return
	}
	n := int(b[0]&15) * 4
	if n < 20 || n > len(b) || int(binary.BigEndian.Uint16(b[2:])) != len(b)&0xffff ||
		packet.Fold(packet.Sum16(b[:n], 0)) != 0 {
		t.Fatalf("not a whole packet: % x", b)
	}
}
