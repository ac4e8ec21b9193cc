package cli

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/explore"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/report"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// answer is a report with the memory that each branch leaves behind.
type answer struct {
	report.Answer
	after []states
}

// ask walks a question from the given memory of the hosts.
func (l *lab) ask(q *question, from states) (*answer, error) {
	a, err := l.ready(q)
	if err != nil {
		return nil, err
	}
	h := a.host()
	branches, cut := explore.All(func(dice *world.Dice) *journey {
		j := &journey{l: l, from: from, now: a.now, dice: dice, legs: map[*node]*world.World{}}
		j.first(a, h)
		return j
	}, (*journey).join, explore.Options{Drawn: q.Drawn})
	out := &answer{}
	out.ID, out.Cut = q.ID, cut
	for i := range branches {
		j := branches[i].Result
		if j.err != nil {
			return nil, j.err
		}
		out.Branches = append(out.Branches, j.branch(&branches[i]))
		out.after = append(out.after, from.with(j.states()))
		out.Assumed = append(out.Assumed, j.assumed()...)
	}
	return out, nil
}

// join takes another way into j, if it went the same way and left the same behind.
func (j *journey) join(o *journey) bool {
	if j.err != nil || o.err != nil || len(j.traces) != len(o.traces) || len(j.legs) != len(o.legs) {
		return false
	}
	for i := range j.traces {
		if a, b := j.traces[i], o.traces[i]; a.n != b.n || a.reply != b.reply || !a.tr.Alike(b.tr) {
			return false
		}
	}
	for n, w := range j.legs {
		if v := o.legs[n]; v == nil || !w.State.Same(v.State) {
			return false
		}
	}
	for i := range j.traces {
		d := &j.traces[i].tr.Deps
		for id := range d {
			d[id] = d[id].Or(o.traces[i].tr.Deps[id])
		}
	}
	return true
}

// host is the host with what the question says of open routes.
func (a *asked) host() *walk.Host {
	if a.hint == (route.Hint{}) {
		return a.n.Host
	}
	h := *a.n.Host
	h.Routes = h.Routes.WithHint(a.hint)
	return &h
}

// open tells the walk what the question leaves open.
func (a *asked) open(k *walk.Walk) {
	if a.unknownMAC {
		k.Unknown(field.MACSrc)
	}
	if a.unknownUID {
		k.Unknown(field.UID)
	}
	if a.unknownGID {
		k.Unknown(field.GID)
	}
}

// establish puts the connection into memory that "ct established" asks for.
func (a *asked) establish(k *walk.Walk) error {
	if a.ct != "established" && a.ct != "related" {
		return nil
	}
	p, ok := packet.FromFrame(a.bytes)
	if a.Out {
		p, ok = packet.FromIP(a.bytes)
	}
	if !ok {
		return nil
	}
	if a.ct == "related" {
		return expect(k, p)
	}
	f, err := snapshot.Flow(flowLine(p), k.World.Now)
	if err != nil {
		return err
	}
	return k.Conntrack.Load(k.World, f)
}

// expect lets a connection of the same two hosts expect the packet's, as FTP's control
// connection does.
func expect(k *walk.Walk, p *packet.Packet) error {
	sport, dport, _ := p.Ports()
	const control = 21
	line := fmt.Sprintf("tcp 6 431999 ESTABLISHED src=%s dst=%s sport=%d dport=%d src=%s dst=%s "+
		"sport=%d dport=%d [ASSURED] mark=0 use=1", p.Src(), p.Dst(), sport^1, control, p.Dst(), p.Src(),
		control, sport^1)
	f, err := snapshot.Flow(line, k.World.Now)
	if err != nil {
		return err
	}
	if err := k.Conntrack.Load(k.World, f); err != nil {
		return err
	}
	e := conntrack.Foreseen{MasterTuple: f.Tuples[conntrack.Original]}
	e.Tuple = conntrack.Tuple{Src: p.Src(), Dst: p.Dst(), SPort: sport, DPort: dport,
		Proto: p.Protocol()}
	e.SPortMask = 0xffff
	for i := range e.SrcMask {
		e.SrcMask[i] = 0xff
	}
	e.Timeout = k.World.Now + 300*world.Second
	return k.Conntrack.LoadExpects(k.World, e)
}

// flowLine is the connection of a packet, established, as conntrack -L prints it.
func flowLine(p *packet.Packet) string {
	sport, dport, _ := p.Ports()
	ends := func(src, dst packet.Addr, sp, dp uint16) string {
		return fmt.Sprintf("src=%s dst=%s sport=%d dport=%d", src, dst, sp, dp)
	}
	there, back := ends(p.Src(), p.Dst(), sport, dport), ends(p.Dst(), p.Src(), dport, sport)
	switch p.Protocol() {
	case packet.TCP:
		return "tcp 6 431999 ESTABLISHED " + there + " " + back + " [ASSURED] mark=0 use=1"
	case packet.UDP:
		return "udp 17 119 " + there + " " + back + " [ASSURED] mark=0 use=1"
	case packet.ICMP:
		id := uint16(0)
		if l4 := p.L4(); len(l4) >= 6 {
			id = binary.BigEndian.Uint16(l4[4:])
		}
		return fmt.Sprintf("icmp 1 29 src=%s dst=%s type=8 code=0 id=%d src=%s dst=%s type=0 code=0 "+
			"id=%d mark=0 use=1", p.Src(), p.Dst(), id, p.Dst(), p.Src(), id)
	}
	return fmt.Sprintf("unknown %d 599 src=%s dst=%s src=%s dst=%s mark=0 use=1", p.Protocol(),
		p.Src(), p.Dst(), p.Dst(), p.Src())
}

// journey is one walk of a question over all the hosts that it comes by.
type journey struct {
	l        *lab
	from     states
	now      world.Instant
	dice     *world.Dice
	legs     map[*node]*world.World
	traces   []leg
	outcomes []report.Outcome
	queue    []hop
	skbs     int
	inferred []string
	replySKB int // the answer that was walked back, zero for none
	err      error
}

// leg is what happened on one host between two cables.
type leg struct {
	n     *node
	tr    *trace.Trace
	reply bool
}

// hop is a frame on a cable.
type hop struct {
	n     *node
	dev   packet.Dev
	frame []byte
	skb   int
	reply bool
}

// maxHops bounds the cables that one question can run over.
const maxHops = 64

// first walks the question's packet on its host, and then what leaves by cables.
func (j *journey) first(a *asked, h *walk.Host) {
	k := j.walk(a.n, h, a.skips)
	a.open(k)
	if j.err = a.establish(k); j.err != nil {
		return
	}
	if a.Out {
		h.Send(k, a.local)
	} else {
		h.Receive(k, a.in, a.bytes)
	}
	j.done(a.n, k, false)
	j.run(a.skips)
	if a.Reply && j.err == nil {
		j.answer(a)
	}
}

// walk begins a leg on a host. Its packets have numbers of their own.
func (j *journey) walk(n *node, h *walk.Host, skips bool) *walk.Walk {
	k := h.NewWalk(j.world(n), &trace.Trace{Skips: skips})
	k.Number(0, j.skbs)
	return k
}

// run follows the cables.
func (j *journey) run(skips bool) {
	for n := 0; len(j.queue) > 0 && j.err == nil; n++ {
		h := j.queue[0]
		j.queue = j.queue[1:]
		if n >= maxHops {
			j.outcomes = append(j.outcomes, report.Outcome{Host: h.n.Host, Outcome: trace.Outcome{
				Result: trace.Dropped, SKB: h.skb, Reason: "NOT_SPECIFIED", Why: "loop"}})
			continue
		}
		k := j.walk(h.n, h.n.Host, skips)
		k.Number(h.skb, j.skbs)
		h.n.Receive(k, h.dev, h.frame)
		j.done(h.n, k, h.reply)
	}
}

// world is the memory of a host on this journey. All hosts share the dice.
func (j *journey) world(n *node) *world.World {
	w := j.legs[n]
	if w == nil {
		w = n.NewWorld(j.from[n.Name].Fork())
		w.Now, w.Dice = j.now, j.dice
		j.legs[n] = w
	}
	j.dice.Host = slices.Index(j.l.nodes, n)
	return w
}

// done takes over what a walk recorded.
func (j *journey) done(n *node, k *walk.Walk, reply bool) {
	if j.err == nil {
		j.err = k.Err
	}
	t := k.Trace
	j.skbs = k.Numbered()
	ownRoutes(t.Events)
	j.traces = append(j.traces, leg{n, t, reply})
	for i := range t.Outcomes {
		o := t.Outcomes[i]
		if o.Result == trace.Transmitted {
			if peer, dev := j.l.peer(n, o.Dev); peer != nil {
				j.queue = append(j.queue, hop{peer, dev, o.Frame, o.SKB, reply})
				continue
			}
			if h, ok := j.infer(n, t, &o); ok {
				h.reply = reply
				j.queue = append(j.queue, h)
				continue
			}
		}
		j.outcomes = append(j.outcomes, report.Outcome{Host: n.Host, World: k.World, Outcome: o})
	}
}

// ownRoutes gives routing decisions that were made without a packet at hand to the
// packet that they were made for: the local one that follows, else the one before.
func ownRoutes(events []trace.Event) {
	last := 0
	if e := nextOwned(events); e != nil {
		last = e.Base().SKB
	}
	for i, e := range events {
		if h := e.Base(); h.SKB == 0 {
			h.SKB = last
			if n := nextOwned(events[i+1:]); n != nil {
				if out, ok := n.(*trace.LocalOut); ok {
					h.SKB = out.SKB
				}
			}
		}
		last = e.Base().SKB
	}
}

func nextOwned(events []trace.Event) trace.Event {
	for _, e := range events {
		if e.Base().SKB != 0 {
			return e
		}
	}
	return nil
}

// states is what the hosts remember after the journey.
func (j *journey) states() states {
	s := states{}
	for n, w := range j.legs {
		s[n.Name] = w.State
	}
	return s
}

// assumed lists what the answer rests on, of the hosts that it came by.
func (j *journey) assumed() []string {
	var out []string
	for _, n := range j.hosts() {
		for _, a := range n.assumed {
			if len(j.l.nodes) > 1 {
				a = n.Name + ": " + a
			}
			out = append(out, a)
		}
	}
	return append(append(out, j.inferred...), j.borrowed()...)
}

// borrowed tells what is assumed of addresses that MASQUERADE took.
func (j *journey) borrowed() []string {
	var out []string
	for _, l := range j.traces {
		for _, e := range l.tr.Events {
			t, ok := e.(*trace.NAT)
			if !ok || t.Source == nil {
				continue
			}
			dev := l.n.Links.Name(t.Source.Dev)
			switch t.Source.Step {
			case trace.StepAny:
				out = append(out, fmt.Sprintf("MASQUERADE borrows %s of %s: interfaces are asked in the order "+
					"of their numbers, the kernel goes by the order of registration", t.Source.Addr, dev))
			case trace.StepOpen:
				out = append(out, fmt.Sprintf("%s stands for the address of %s", t.Source.Addr, dev))
			}
		}
	}
	return out
}

// hosts are those that the journey came by, in order.
func (j *journey) hosts() []*node {
	var out []*node
	seen := map[*node]bool{}
	for _, l := range j.traces {
		if !seen[l.n] {
			seen[l.n] = true
			out = append(out, l.n)
		}
	}
	return out
}

// branch turns the journey into a report.
func (j *journey) branch(b *explore.Branch[*journey]) report.Branch {
	out := report.Branch{Prob: b.Prob, Taken: b.Taken, Outcomes: j.outcomes, Reply: j.replySKB}
	sort.SliceStable(out.Outcomes, func(i, k int) bool {
		return out.Outcomes[i].SKB < out.Outcomes[k].SKB
	})
	for _, n := range j.hosts() {
		d := report.Deps{Host: n.Host}
		for _, p := range n.Programs() {
			out.Rules += p.Rules()
		}
		for _, l := range j.traces {
			if l.n != n {
				continue
			}
			if d.Deps == nil {
				d.Deps = &l.tr.Deps
				continue
			}
			for id := range l.tr.Deps {
				d.Deps[id] = d.Deps[id].Or(l.tr.Deps[id])
			}
		}
		out.Deps = append(out.Deps, d)
	}
	for _, l := range j.traces {
		out.Tried += l.tr.Tried
		out.Matched += l.tr.Matched
		for _, e := range l.tr.Events {
			if c, ok := e.(*trace.Choice); ok && !decided(b.Taken, c.Key) {
				continue
			}
			out.Steps = append(out.Steps, report.Step{Host: l.n.Host, World: j.legs[l.n],
				Reply: l.reply, Event: e})
		}
	}
	return out
}

// decided tells whether a choice made a difference.
func decided(taken []world.Taken, k world.Key) bool {
	return slices.ContainsFunc(taken, func(t world.Taken) bool { return t.Key == k })
}
