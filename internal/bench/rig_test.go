package bench

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
)

// load is what is measured as loading: from the bytes of the files to a host with all
// its indexes.
func load(tb testing.TB, files map[string][]byte) *walk.Host {
	tb.Helper()
	d := snapshot.Dir{Name: "node", Files: files}
	cfg, err := d.Config(snapshot.Options{})
	if err != nil {
		tb.Fatal(err)
	}
	h, _, err := walk.Build(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// TCP flags.
const (
	synFlag, ack = 0x02, 0x10
)

// segment is the frame of a TCP segment without payload that arrives on a device.
func segment(h *walk.Host, dev string, p packet.Sentence, seq, ackSeq uint32, flags byte) []byte {
	p.Proto, p.Given = packet.TCP, packet.GivenSPort|packet.GivenDPort
	p.Complete()
	ip, err := p.Packet()
	if err != nil {
		panic(err)
	}
	l4 := ip[20:]
	binary.BigEndian.PutUint32(l4[4:], seq)
	binary.BigEndian.PutUint32(l4[8:], ackSeq)
	l4[13], l4[16], l4[17] = flags, 0, 0
	binary.BigEndian.PutUint16(l4[16:],
		packet.Fold(packet.Sum16(l4, packet.PseudoSum(p.Src, p.Dst, packet.TCP, len(l4)))))
	q, _ := packet.FromIP(ip)
	q.PushLink(h.Links.ByName(dev).MAC, packet.MAC{2, 0, 0, 0, 1, 9})
	return slices.Clone(q.Frame())
}

// request is a client's segment to a Service.
func request(h *walk.Host, sport uint16, dst packet.Addr, flags byte) []byte {
	s := packet.Sentence{Src: packet.MustParseAddr(Client), Dst: dst, SPort: sport, DPort: Port}
	if flags == synFlag {
		return segment(h, In, s, 1000, 0, flags)
	}
	return segment(h, In, s, 1001, 5001, flags)
}

// rig walks frames through a host without observer, in memory that lasts.
type rig struct {
	tb  testing.TB
	h   *walk.Host
	in  packet.Dev
	out packet.Dev
	k   *walk.Walk
	// last is how the last frame ended.
	last trace.Outcome
}

func newRig(tb testing.TB, h *walk.Host) *rig {
	r := &rig{tb: tb, h: h, in: h.Links.ByName(In).Index, out: h.Links.ByName("eth0").Index}
	w := h.NewWorld(h.Memory().Fork())
	w.Dice.Rand = rand.New(rand.NewPCG(1, 2))
	r.k = h.NewWalk(w, nil)
	r.k.End = r.end
	return r
}

func (r *rig) end(o *trace.Outcome) { r.last = *o }

// walk takes one frame through the host; it must leave again.
func (r *rig) walk(dev packet.Dev, frame []byte) {
	r.k.Reset()
	r.h.Receive(r.k, dev, frame)
	if r.k.Err != nil {
		r.tb.Fatal(r.k.Err)
	}
	if r.last.Result != trace.Transmitted {
		r.tb.Fatalf("%s: %s", r.last.Result, r.last.Why)
	}
}

// observed walks one frame through a host and returns its trace.
func observed(tb testing.TB, h *walk.Host, frame []byte) *trace.Trace {
	tb.Helper()
	tr := &trace.Trace{}
	k := h.NewWalk(h.NewWorld(h.Memory().Fork()), tr)
	h.Receive(k, h.Links.ByName(In).Index, frame)
	if k.Err != nil {
		tb.Fatal(k.Err)
	}
	return tr
}

// establish opens a connection to a Service and returns the client's next segment.
func (r *rig) establish(sport uint16, dst packet.Addr) []byte {
	r.k.End = func(o *trace.Outcome) { r.last = *o; r.last.Frame = slices.Clone(o.Frame) }
	defer func() { r.k.End = r.end }()
	r.walk(r.in, request(r.h, sport, dst, synFlag))
	p, _ := packet.FromFrame(r.last.Frame)
	sp, dp, _ := p.Ports()
	answer := packet.Sentence{Src: p.Dst(), Dst: p.Src(), SPort: dp, DPort: sp}
	r.walk(r.out, segment(r.h, "eth0", answer, 5000, 1001, synFlag|ack))
	next := request(r.h, sport, dst, ack)
	r.walk(r.in, next)
	return next
}

// forget deletes a packet's connection, so that the next one is the first again.
func (r *rig) forget(p *packet.Packet) {
	id, _ := r.k.Conntrack.Hit(r.k.World, p)
	r.k.Conntrack.Kill(r.k.World, id)
}
