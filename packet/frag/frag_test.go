package frag_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/frag"
	"pgregory.net/rapid"
)

// spec describes a fragment: bytes off to end of a datagram whose byte i is i*7.
type spec struct {
	off, end int
	more, df bool
	tos      uint8
	opts     string
	id       uint16
}

const df, mf = 0x4000, 0x2000

func (s spec) bytes() []byte {
	h := make([]byte, 20, 20+len(s.opts)+s.end-s.off)
	h = append(h, s.opts...)
	h[0], h[1], h[8], h[9] = 0x40|byte(len(h)/4), s.tos, 64, packet.UDP
	flags := uint16(s.off / 8)
	if s.more {
		flags |= mf
	}
	if s.df {
		flags |= df
	}
	binary.BigEndian.PutUint16(h[2:], uint16(len(h)+s.end-s.off))
	binary.BigEndian.PutUint16(h[4:], s.id)
	binary.BigEndian.PutUint16(h[6:], flags)
	copy(h[12:], []byte{10, 0, 0, 9, 10, 0, 1, 9})
	packet.FixIP4(h)
	for i := s.off; i < s.end; i++ {
		h = append(h, byte(i*7))
	}
	return h
}

func (s spec) packet() *packet.Packet {
	p, _ := packet.FromIP(s.bytes())
	return p
}

func (s spec) String() string {
	word := ""
	if s.more {
		word += "+"
	}
	if s.df {
		word += "d"
	}
	return fmt.Sprintf("%d-%d%s", s.off, s.end, word)
}

// memory is the maps that a host has as world.Tables.
type memory struct {
	queues map[frag.Key]frag.Queue
	peers  map[frag.Peer]uint32
}

func newMemory() *memory {
	return &memory{map[frag.Key]frag.Queue{}, map[frag.Peer]uint32{}}
}

type queues map[frag.Key]frag.Queue

func (m queues) Get(k frag.Key) (frag.Queue, bool) { q, ok := m[k]; return q, ok }
func (m queues) Put(k frag.Key, q frag.Queue)      { m[k] = q }
func (m queues) Delete(k frag.Key)                 { delete(m, k) }

type peers map[frag.Peer]uint32

func (m peers) Get(k frag.Peer) (uint32, bool) { n, ok := m[k]; return n, ok }
func (m peers) Put(k frag.Peer, n uint32)      { m[k] = n }

type settings map[string]int

func (s settings) Int(name string, def int) int {
	if n, ok := s[name]; ok {
		return n
	}
	return def
}

func (m *memory) add(c *frag.Collector, p *packet.Packet, now int64) (*packet.Packet, frag.Result) {
	q, _, r := c.Add(queues(m.queues), peers(m.peers), frag.Arrival{Packet: p, Now: now})
	return q, r
}

// parse reads "0-8+ 8-16": fragments as String writes them.
func parse(t testing.TB, list string) []spec {
	t.Helper()
	var out []spec
	for _, w := range strings.Fields(list) {
		s := spec{more: strings.Contains(w, "+"), df: strings.Contains(w, "d")}
		if _, err := fmt.Sscanf(w, "%d-%d", &s.off, &s.end); err != nil {
			t.Fatalf("%q: %v", w, err)
		}
		out = append(out, s)
	}
	return out
}

var resultWords = [...]string{frag.Waiting: "wait", frag.Complete: "whole", frag.Duplicate: "dup",
	frag.Discarded: "gone"}

// TestCollect puts fragments in, one after another.
func TestCollect(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"in order", "0-8+ 8-16", "wait whole"},
		{"the other way round", "8-16 0-8+", "wait whole"},
		{"the middle last", "0-8+ 16-20 8-16+", "wait wait whole"},
		{"the middle first", "8-16+ 16-20 0-8+", "wait wait whole"},
		{"twice the same", "0-8+ 0-8+ 8-16", "wait dup whole"},
		{"part of what is there", "0-16+ 8-16+ 16-24", "wait dup whole"},
		{"a part of a row", "0-8+ 8-16+ 16-24+ 8-24+ 24-32", "wait wait wait dup whole"},
		{"over two rows that touch", "8-16+ 0-8+ 0-16+", "wait wait gone"},
		{"overlap at the front", "0-16+ 8-24+", "wait gone"},
		{"overlap at the back", "8-24+ 0-16+", "wait gone"},
		{"around what is there", "8-16+ 0-24+", "wait gone"},
		{"after an overlap all begins anew", "0-16+ 8-24+ 0-16+ 16-24", "wait gone wait whole"},
		{"behind the end", "8-16 16-24+", "wait gone"},
		{"another end", "8-16 8-24", "wait gone"},
		{"an earlier end", "0-24+ 8-16", "wait gone"},
		{"empty", "0-0+", "gone"},
		{"less than eight bytes before the end", "0-7+", "gone"},
		{"cut to eight bytes", "0-15+ 8-16", "wait whole"},
		{"the last one empty", "0-8+ 8-8", "wait gone"},
		{"too large as a whole", "0-65528+ 65528-65534", "wait gone"},
	}
	for _, tt := range tests {
		m, c := newMemory(), frag.New(settings{})
		var got []string
		for _, s := range parse(t, tt.in) {
			_, r := m.add(c, s.packet(), 0)
			got = append(got, resultWords[r])
		}
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("%s: %s: got %q, want %q", tt.name, tt.in, g, tt.want)
		}
	}
}

// TestWhole looks at the packet that fragments make.
func TestWhole(t *testing.T) {
	tests := []struct {
		in      string
		tos     []uint8
		largest uint16
		flags   uint16
		pmtu    bool
		toTOS   uint8
		dropped bool
	}{
		{in: "0-16+ 16-20", largest: 36},
		{in: "16-20 0-16+", largest: 36},
		{in: "0-16+d 16-20", largest: 36, flags: df, pmtu: true},
		{in: "0-16+ 16-20d", largest: 36},
		{in: "0-8+d 8-16d", largest: 28, flags: df, pmtu: true},
		{in: "0-8+ 8-16", tos: []uint8{0xb9, 0xbb}, largest: 28, toTOS: 0xbb},
		{in: "0-8+ 8-16", tos: []uint8{3, 3}, largest: 28, toTOS: 3},
		{in: "0-8+ 8-16", tos: []uint8{1, 2}, largest: 28, toTOS: 1},
		{in: "0-8+ 8-16", tos: []uint8{0, 2}, dropped: true},
		{in: "0-8+ 8-16", tos: []uint8{3, 0}, dropped: true},
	}
	for _, tt := range tests {
		m, c := newMemory(), frag.New(settings{})
		var p *packet.Packet
		for i, s := range parse(t, tt.in) {
			if tt.tos != nil {
				s.tos = tt.tos[i]
			}
			p, _ = m.add(c, s.packet(), 0)
		}
		if p == nil {
			if !tt.dropped {
				t.Errorf("%s: dropped", tt.in)
			}
			continue
		}
		ip := p.IP()
		flags := binary.BigEndian.Uint16(ip[6:])
		if tt.dropped || p.FragMax != tt.largest || flags != tt.flags || ip[1] != tt.toTOS ||
			(p.Flags&packet.FragPMTU != 0) != tt.pmtu {
			t.Errorf("%s %v: largest %d flags %#x tos %#x cb %b, want %+v", tt.in, tt.tos, p.FragMax,
				flags, ip[1], p.Flags, tt)
		}
		if packet.Fold(packet.Sum16(ip[:20], 0)) != 0 {
			t.Errorf("%s: the header's checksum is wrong", tt.in)
		}
	}
}

// TestTimeAndDistance sees fragments forgotten.
func TestTimeAndDistance(t *testing.T) {
	const second = 1e9
	first, last := spec{end: 8, more: true}, spec{off: 8, end: 16}
	c := frag.New(settings{"net.ipv4.ipfrag_time": 5, "net.ipv4.ipfrag_max_dist": 3})
	m := newMemory()
	m.add(c, first.packet(), 0)
	if _, r := m.add(c, last.packet(), 5*second); r != frag.Waiting {
		t.Errorf("after the timeout: got %s, want wait", resultWords[r])
	}
	m = newMemory()
	m.add(c, first.packet(), 0)
	if _, r := m.add(c, last.packet(), 5*second-1); r != frag.Complete {
		t.Errorf("before the timeout: got %s, want whole", resultWords[r])
	}
	for others, want := range map[int]frag.Result{2: frag.Complete, 3: frag.Waiting} {
		m = newMemory()
		m.add(c, first.packet(), 0)
		for i := range others {
			m.add(c, spec{end: 8, more: true, id: uint16(i + 1)}.packet(), 0)
		}
		if _, r := m.add(c, last.packet(), 0); r != want {
			t.Errorf("%d others between: got %s, want %s", others, resultWords[r], resultWords[want])
		}
	}
	off := frag.New(settings{"net.ipv4.ipfrag_high_thresh": 0})
	if _, r := newMemory().add(off, first.packet(), 0); r != frag.Discarded {
		t.Errorf("without memory: got %s, want gone", resultWords[r])
	}
}

// TestQueueIsAValue sees that a fork of the memory is not written by another.
func TestQueueIsAValue(t *testing.T) {
	m, c := newMemory(), frag.New(settings{})
	for _, s := range parse(t, "0-8+ 8-16+ 32-40+") {
		m.add(c, s.packet(), 0)
	}
	fork := newMemory()
	for k, q := range m.queues {
		fork.queues[k] = q
	}
	for k, n := range m.peers {
		fork.peers[k] = n
	}
	for _, s := range parse(t, "40-48+ 16-24+ 48-56") {
		m.add(c, s.packet(), 0)
	}
	var last *packet.Packet
	for _, s := range parse(t, "40-44 16-32+") {
		last, _ = fork.add(c, s.packet(), 0)
	}
	if last == nil || !bytes.Equal(last.IP()[20:], spec{end: 44}.bytes()[20:]) {
		t.Error("the fork did not get the packet that it was sent")
	}
}

// TestFragment cuts packets.
func TestFragment(t *testing.T) {
	tests := []struct {
		name     string
		in       spec
		mtu      int
		ignoreDF bool
		want     string
		outcome  frag.Outcome
	}{
		{"fits with eight bytes to spare", spec{end: 100}, 60, false, "0-40+ 40-80+ 80-100", 0},
		{"not a multiple of eight", spec{end: 100}, 63, false, "0-40+ 40-80+ 80-100", 0},
		{"the end is as large as the MTU", spec{end: 83}, 63, false, "0-40+ 40-83", 0},
		{"a middle fragment", spec{off: 80, end: 160, more: true}, 60, false, "80-120+ 120-160+", 0},
		{"a last fragment", spec{off: 80, end: 170}, 60, false, "80-120+ 120-160+ 160-170", 0},
		{"DF", spec{end: 100, df: true}, 60, false, "", frag.TooBig},
		{"DF does not count", spec{end: 100, df: true}, 60, true, "0-40+ 40-80+ 80-100", 0},
		{"no room", spec{end: 100}, 27, false, "", frag.NoRoom},
		{"just room", spec{end: 20}, 28, false, "0-8+ 8-16+ 16-20", 0},
	}
	for _, tt := range tests {
		pieces, outcome := frag.Fragment(tt.in.packet(), tt.mtu, tt.ignoreDF)
		if got := say(pieces); got != tt.want || outcome != tt.outcome {
			t.Errorf("%s: got %q %d, want %q %d", tt.name, got, outcome, tt.want, tt.outcome)
		}
	}
}

// say writes pieces as parse reads them.
func say(ps []*packet.Packet) string {
	var words []string
	for _, p := range ps {
		ip := p.IP()
		f := binary.BigEndian.Uint16(ip[6:])
		s := spec{off: p.FragOff(), more: f&mf != 0, df: f&df != 0}
		s.end = s.off + len(ip) - int(ip[0]&15)*4
		words = append(words, s.String())
	}
	return strings.Join(words, " ")
}

// TestOptions sees which options later fragments keep.
func TestOptions(t *testing.T) {
	const (
		lsrr  = "\x83\x07\x04\x0a\x00\x00\x01" // copied
		rr    = "\x07\x07\x04\x00\x00\x00\x00" // not copied
		noops = "\x01\x01\x01\x01\x01\x01\x01"
		end   = "\x00\x00"
	)
	in := spec{end: 100, opts: lsrr + rr + end}
	ps, _ := frag.Fragment(in.packet(), 76, false)
	for i, want := range []string{lsrr + rr + end, lsrr + noops + end, lsrr + noops + end} {
		if got := string(ps[i].IP()[20:36]); got != want {
			t.Errorf("fragment %d: got options %q, want %q", i, got, want)
		}
	}
	later := spec{off: 8, end: 108, opts: lsrr + rr + end}
	ps, _ = frag.Fragment(later.packet(), 76, false)
	if got := string(ps[1].IP()[20:36]); got != later.opts {
		t.Errorf("of a later fragment: got options %q, want %q", got, later.opts)
	}
}

// TestLeavesAsItCame cuts what was put together.
func TestLeavesAsItCame(t *testing.T) {
	tests := []struct {
		in   string
		mtu  int
		pull int // bytes of header that were rewritten
		want string
	}{
		{"0-16+ 16-48+ 48-50", 1500, 0, "0-16+ 16-48+ 48-50"},
		{"48-50 16-48+ 0-16+", 1500, 28, "0-16+ 16-48+ 48-50"},
		{"0-48+ 48-50", 36, 0, "0-16+ 16-32+ 32-48+ 48-50"},
		{"0-8+ 8-48", 1500, 28, "0-8+ 8-48"},
		{"0-8+ 8-48", 1500, 40, "0-40+ 40-48"},
		{"0-8+ 8-16+ 16-48", 1500, 40, "0-32+ 32-48"},
		{"0-16+d 16-24", 1500, 0, "0-16+ 16-24"},
		{"0-16+d 16-24", 1500, 40, "0-16+d 16-24d"},
	}
	for _, tt := range tests {
		m, c := newMemory(), frag.New(settings{})
		var p *packet.Packet
		for _, s := range parse(t, tt.in) {
			p, _ = m.add(c, s.packet(), 0)
		}
		p.Pull(tt.pull)
		if !frag.Needed(p, 1500) {
			t.Errorf("%s: would leave whole", tt.in)
		}
		ps, _ := frag.Fragment(p, tt.mtu, true)
		if got := say(ps); got != tt.want {
			t.Errorf("%s for %d, header of %d: got %q, want %q", tt.in, tt.mtu, tt.pull, got, tt.want)
		}
	}
}

// TestExceeds asks whether the sender hears that a packet is too big.
func TestExceeds(t *testing.T) {
	for _, tt := range []struct {
		df      bool
		largest uint16
		mtu     int
		want    bool
	}{
		{true, 0, 119, true}, {true, 0, 120, false}, {false, 0, 60, false},
		{true, 80, 80, false}, {true, 81, 80, true}, {false, 81, 80, false},
	} {
		p := spec{end: 100, df: tt.df}.packet()
		p.FragMax = tt.largest
		if got := frag.Exceeds(p, tt.mtu); got != tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
}

// TestRoundTrip cuts a packet, shuffles the pieces, and puts it together again.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		whole := spec{end: rapid.IntRange(1, 4000).Draw(t, "size")}
		mtu := rapid.IntRange(28, 1500).Draw(t, "mtu")
		ps, _ := frag.Fragment(whole.packet(), mtu, false)
		order := rapid.Permutation(ps).Draw(t, "order")
		m, c := newMemory(), frag.New(settings{"net.ipv4.ipfrag_max_dist": 0})
		for i, p := range order {
			if p.Len() > mtu {
				t.Fatalf("a piece of %d bytes for an MTU of %d", p.Len(), mtu)
			}
			if len(ps) == 1 {
				return
			}
			q, r := m.add(c, p, 0)
			if last := i == len(order)-1; last != (r == frag.Complete) {
				t.Fatalf("piece %d of %d: %s", i, len(order), resultWords[r])
			}
			if q != nil && !bytes.Equal(q.IP(), whole.bytes()) {
				t.Fatalf("got another packet back")
			}
		}
		if len(m.queues) != 0 {
			t.Fatal("something is left")
		}
	})
}

// FuzzCollect feeds any fragments: nothing panics, and no packet is longer than IPv4
// allows.
func FuzzCollect(f *testing.F) {
	f.Add([]byte{0, 1, 1, 8, 8, 0, 16, 3, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		m, c := newMemory(), frag.New(settings{})
		for ; len(in) >= 3; in = in[3:] {
			off := int(in[0]) * 8 * 33
			s := spec{off: off, end: off + int(in[1])*9, more: in[2]&1 != 0, df: in[2]&2 != 0,
				tos: in[2] >> 6}
			if s.end-s.off > 65000 {
				continue
			}
			p, r := m.add(c, s.packet(), 0)
			if (p != nil) != (r == frag.Complete) {
				t.Fatalf("packet %v with result %d", p, r)
			}
			if p == nil {
				continue
			}
			if p.Len() > 65535 || int(binary.BigEndian.Uint16(p.IP()[2:])) != p.Len() {
				t.Fatalf("a packet of %d bytes", p.Len())
			}
			frag.Fragment(p, int(in[2])*4, true)
		}
	})
}
