package gen

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/hookpath/hookpath/internal/kernel"
)

// talk is a conversation: the frame that came out last, which the other end
// answers.
type talk struct {
	dev   string // where the frame came out; "" if the host itself has it
	frame []byte // Ethernet
	turns int
}

// pending is the question whose answer Learn will see.
type pending struct {
	question kernel.Question
	from     *talk
	bent     *rule
}

// Bent names the rule that the last question was bent to, if any: the step that
// its trace should hold.
func (g *Gen) Bent() (table, chain string, n int, ok bool) {
	r := g.last.bent
	if r == nil {
		return "", "", 0, false
	}
	n = slices.Index(r.chain.rules, r) + 1
	return r.table, r.name, n, n > 0
}

// Next draws the next question.
func (g *Gen) Next() kernel.Question {
	g.asked++
	g.last = pending{}
	q, t := g.nextQuestion()
	q.ID, q.Seq, q.Host = fmt.Sprint(g.asked), "s", "r"
	g.last.question, g.last.from = q, t
	return q
}

func (g *Gen) nextQuestion() (kernel.Question, *talk) {
	if len(g.talks) > 0 && g.chance(45) {
		return g.answer(pick(g, g.talks))
	}
	d := g.draft()
	if d.reply && len(g.talks) > 0 {
		g.last.bent = nil
		return g.answer(pick(g, g.talks))
	}
	return g.question(d), nil
}

// Begin tells of a question that somebody else drew: Learn may then make it a
// conversation, which Answer goes on with.
func (g *Gen) Begin(q kernel.Question) { g.last = pending{question: q} }

// Answer has the other end of a conversation speak; false where none goes on.
func (g *Gen) Answer() (kernel.Question, bool) {
	for len(g.talks) > 0 {
		t := pick(g, g.talks)
		if b := t.frame[14:]; len(b) < 28 || len(b) < int(b[0]&15)*4+8 {
			g.forget(t)
			continue
		}
		q, _ := g.answer(t)
		g.last = pending{question: q, from: t}
		return q, true
	}
	return kernel.Question{}, false
}

// maxTalks bounds how many conversations may go on.
const maxTalks = 8

// Learn takes the kernel's answer to the last question: what came out may be
// answered.
func (g *Gen) Learn(a kernel.Answer) {
	t := g.last.from
	if t == nil {
		t = &talk{}
		if len(g.talks) < maxTalks {
			g.talks = append(g.talks, t)
		} else {
			g.talks[g.IntN(maxTalks)] = t
		}
	}
	t.turns++
	t.frame = nil
	for _, f := range a.Out {
		if len(f.Bytes) > 34 && f.Bytes[12] == 8 && f.Bytes[13] == 0 {
			t.frame, t.dev = bytes.Clone(f.Bytes), f.Dev
		}
	}
	if t.frame == nil && len(a.Delivered) > 0 && len(a.Delivered[0]) > 28 {
		t.frame = append(make([]byte, 14), a.Delivered[0]...)
		t.dev = ""
	}
	if t.frame == nil || t.turns > 8 {
		g.forget(t)
	}
}

func (g *Gen) forget(t *talk) {
	for i := range g.talks {
		if g.talks[i] == t {
			g.talks = append(g.talks[:i], g.talks[i+1:]...)
			return
		}
	}
}

// answer has the other end of a talk speak: a reply, or an ICMP error.
func (g *Gen) answer(t *talk) (kernel.Question, *talk) {
	b := bytes.Clone(t.frame[14:])
	n := int(b[0]&15) * 4
	if n < 20 || len(b) < n+8 {
		return g.question(g.draft()), nil
	}
	if g.chance(12) {
		return g.wrap(t, g.icmpError(b, t.dev)), t
	}
	swap4(b[12:16], b[16:20])
	b[8] = 64
	switch b[9] {
	case 6:
		b = g.answerTCP(b, n)
	case 17, 132, 136:
		swap2(b[n:], b[n+2:])
		if binary.BigEndian.Uint16(b[n:]) == tftp && g.chance(70) { // it answers from anywhere
			binary.BigEndian.PutUint16(b[n:], 4000)
		}
		b = g.answerSCTP(b, n)
	case 1:
		b[n] = map[byte]byte{8: 0, 0: 8}[b[n]]
	}
	if g.chance(3) && t.dev != "" {
		b = g.spoil(b)
	}
	return g.wrap(t, finish(b)), t
}

// answerTCP swaps ports and goes on in the handshake, or ends the connection.
func (g *Gen) answerTCP(b []byte, n int) []byte {
	if len(b) < n+20 {
		return b
	}
	old := b[n+13]
	seq, ack := binary.BigEndian.Uint32(b[n+4:]), binary.BigEndian.Uint32(b[n+8:])
	data := len(b) - n - int(b[n+12]>>4)*4
	next := seq + uint32(max(data, 0))
	if old&3 != 0 { // SYN and FIN count
		next++
	}
	if old&0x10 == 0 {
		ack = 5000
	} else {
		ack, next = g.around(ack), g.around(next)
	}
	b = b[:n+20]
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	swap2(b[n:], b[n+2:])
	binary.BigEndian.PutUint32(b[n+4:], ack)
	binary.BigEndian.PutUint32(b[n+8:], next)
	b[n+12], b[n+13] = 5<<4, g.answerFlags(old)
	binary.BigEndian.PutUint16(b[n+14:], 8192)
	return b
}

// around draws, at times, a number at the edge of a window of 8,192 bytes or far from it.
func (g *Gen) around(n uint32) uint32 {
	if !g.chance(8) {
		return n
	}
	return n + one[uint32](g, 8191, 8192, 8193, 70000, ^uint32(0), ^uint32(8192), ^uint32(70000))
}

func (g *Gen) answerFlags(old uint8) uint8 {
	switch {
	case g.chance(7):
		return 0x14 // reset
	case old&0x12 == 2:
		return 0x12
	case old&1 != 0:
		return 0x11
	case g.chance(15):
		return 0x11
	}
	return one[uint8](g, 0x10, 0x18)
}

// answerSCTP turns an INIT into an INIT ACK and so on, roughly.
func (g *Gen) answerSCTP(b []byte, n int) []byte {
	if b[9] == 132 && len(b) > n+12 {
		b[n+12] = map[byte]byte{1: 2, 2: 10, 10: 11, 11: 0}[b[n+12]]
	}
	return b
}

// icmpError is an error about packet b, from its receiver or from a router.
func (g *Gen) icmpError(b []byte, dev string) []byte {
	src, _ := netip.AddrFromSlice(b[16:20])
	if g.chance(40) {
		src = g.within(pick(g, remotes()))
	}
	dst, _ := netip.AddrFromSlice(b[12:16])
	if g.host != nil && g.chance(15) { // nobody's error, though it quotes a connection
		dst = g.anyAddr()
	}
	quote := b[:min(len(b), one(g, int(b[0]&15)*4+8, 128))]
	kind := one(g, [2]uint8{3, 1}, [2]uint8{3, 3}, [2]uint8{11, 0}, [2]uint8{3, 4}, [2]uint8{3, 13},
		[2]uint8{12, 0}, [2]uint8{5, 1})
	d := draft{src: src, dst: dst, proto: 1, ttl: 64, icmpType: kind[0], icmpCode: kind[1],
		payload: string(quote)}
	p := d.packet()
	p[20+4], p[20+5], p[20+6], p[20+7] = 0, 0, 0, 0
	switch {
	case kind == [2]uint8{3, 4}:
		binary.BigEndian.PutUint16(p[20+6:], one(g, uint16(1200), 700, 90))
	case kind[0] == 5 && g.chance(70):
		g.redirect(p, dev)
	}
	return finish(p)
}

// redirect has a router beside the device name another one, where the host is our own.
func (g *Gen) redirect(p []byte, dev string) {
	if g.host == nil {
		return
	}
	f := g.host.iface(dev)
	if f == nil {
		return
	}
	from, to := pick(g, f.neighs[:3]).As4(), pick(g, f.neighs).As4()
	copy(p[12:], from[:])
	copy(p[20+4:], to[:])
}

// wrap makes packet b a question of the talk's other end: a frame into the
// device where the last one came out, or a packet that the host sends.
func (g *Gen) wrap(t *talk, b []byte) kernel.Question {
	if t.dev == "" {
		return kernel.Question{Out: true, Packet: b, Socket: "raw", Transparent: true}
	}
	frame := bytes.Clone(t.frame[:14])
	copy(frame[0:6], t.frame[6:12])
	copy(frame[6:12], t.frame[0:6])
	return kernel.Question{In: t.dev, Frame: append(frame, b...)}
}

func swap4(a, b []byte) {
	for i := range 4 {
		a[i], b[i] = b[i], a[i]
	}
}

func swap2(a, b []byte) {
	for i := range 2 {
		a[i], b[i] = b[i], a[i]
	}
}
