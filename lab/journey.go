package lab

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// Question is a packet that sets off from a host of the lab.
type Question struct {
	// Host is one of the lab, or one that differs from it by what only this question
	// knows; its name tells which.
	Host  *walk.Host
	In    packet.Dev  // where Frame arrives
	Frame []byte      // an Ethernet frame
	Local *walk.Local // what a program sends instead, nil for a frame
	Now   world.Instant
	// Reply walks the answer of whoever got the packet back. Data walks what follows an
	// answered SYN: the segment that ends the handshake, with the first data.
	Reply, Data bool
	Skips       bool // traces rules that did not match too
	// Prepare tells the first walk what the question leaves open or takes for granted;
	// nil does nothing.
	Prepare func(*walk.Walk) error
}

// Way is the part of a conversation that a leg belongs to.
type Way uint8

// The ways: there, back, and there again with data over the connection that was made.
const (
	Request Way = iota
	Reply
	Data
)

// Leg is what happened on one host between two cables.
type Leg struct {
	Host  *walk.Host // as it stands in the lab
	World *world.World
	Trace *trace.Trace
	Way   Way
	host  int
}

// Outcome is how one packet ended. Its world is that of the host where it did.
type Outcome struct {
	Host  *walk.Host
	World *world.World
	trace.Outcome
}

// Journey is one walk of a question over all the hosts that it comes by.
type Journey struct {
	Legs     []Leg
	Outcomes []Outcome // without those that a cable carried on
	Inferred []string  // the cables that nothing named
	// ReplySKB and DataSKB are the numbers of the answer and of the data that were walked,
	// zero for none.
	ReplySKB, DataSKB int
	Err               error

	lab    *Lab
	q      *Question
	from   States
	dice   *world.Dice
	worlds []*world.World // by host, nil where it did not come by
	queue  []hop
	held   []held
	skbs   int
}

// maxHops bounds the cables that one question can run over.
const maxHops = 64

// Walk walks a question from the given memory of the hosts. The dice are shared by all.
func (l *Lab) Walk(q *Question, from States, dice *world.Dice) *Journey {
	j := &Journey{lab: l, q: q, from: from, dice: dice, worlds: make([]*world.World, len(l.Hosts))}
	n := l.index(q.Host.Name)
	k := j.begin(n, q.Host)
	if q.Prepare != nil {
		if j.Err = q.Prepare(k); j.Err != nil {
			return j
		}
	}
	j.start(n, k, Request)
	if q.Reply && j.Err == nil {
		j.converse()
	}
	return j
}

// start sends the question's packet, and follows what comes of it.
func (j *Journey) start(n int, k *walk.Walk, way Way) {
	if j.q.Local != nil {
		j.q.Host.Send(k, *j.q.Local)
	} else {
		j.q.Host.Receive(k, j.q.In, j.q.Frame)
	}
	j.done(n, k, way)
	j.run()
}

// begin begins a leg on a host. Its packets have numbers of their own.
func (j *Journey) begin(n int, h *walk.Host) *walk.Walk {
	k := h.NewWalk(j.world(n), &trace.Trace{Skips: j.q.Skips})
	k.Number(0, j.skbs)
	return k
}

// run follows the cables.
func (j *Journey) run() {
	for n := 0; len(j.queue) > 0 && j.Err == nil; n++ {
		j.race()
		h := j.queue[0]
		j.queue = j.queue[1:]
		host := j.lab.Hosts[h.host]
		if n >= maxHops {
			j.Outcomes = append(j.Outcomes, Outcome{Host: host, Outcome: trace.Outcome{
				Result: trace.Dropped, SKB: h.skb, Reason: "NOT_SPECIFIED", Why: "loop"}})
			continue
		}
		k := j.begin(h.host, host)
		k.Number(h.skb, j.skbs)
		host.Receive(k, h.dev, h.frame)
		j.done(h.host, k, h.leg)
	}
}

// world is the memory of a host on this journey.
func (j *Journey) world(n int) *world.World {
	w := j.worlds[n]
	if w == nil {
		h := j.lab.Hosts[n]
		w = h.NewWorld(j.from[h.Name].Fork())
		w.Now, w.Dice = j.q.Now, j.dice
		j.worlds[n] = w
	}
	j.dice.Host = n
	return w
}

// done takes over what a walk recorded.
func (j *Journey) done(n int, k *walk.Walk, way Way) {
	if j.Err == nil {
		j.Err = k.Err
	}
	t := k.Trace
	j.skbs = k.Numbered()
	ownRoutes(t.Events)
	leg := Leg{Host: j.lab.Hosts[n], World: k.World, Trace: t, Way: way, host: n}
	j.resume(&leg)
	j.Legs = append(j.Legs, leg)
	for i := range t.Outcomes {
		o := t.Outcomes[i]
		if o.Result == trace.Transmitted && j.carry(&leg, &o) {
			continue
		}
		j.Outcomes = append(j.Outcomes, Outcome{Host: leg.Host, World: k.World, Outcome: o})
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

// States is what the hosts that the journey came by remember after it.
func (j *Journey) States() States {
	s := States{}
	for n, w := range j.worlds {
		if w != nil {
			s[j.lab.Hosts[n].Name] = w.State
		}
	}
	return s
}

// Hosts are those that the journey came by, in order.
func (j *Journey) Hosts() []*walk.Host {
	var out []*walk.Host
	seen := map[int]bool{}
	for _, l := range j.Legs {
		if !seen[l.host] {
			seen[l.host] = true
			out = append(out, l.Host)
		}
	}
	return out
}

// Join takes another way into j, if it went the same way and left the same behind.
func (j *Journey) Join(o *Journey) bool {
	if j.Err != nil || o.Err != nil || len(j.Legs) != len(o.Legs) {
		return false
	}
	for i := range j.Legs {
		a, b := &j.Legs[i], &o.Legs[i]
		if a.host != b.host || a.Way != b.Way || !a.Trace.Alike(b.Trace) {
			return false
		}
	}
	for n, w := range j.worlds {
		if v := o.worlds[n]; (w == nil) != (v == nil) || w != nil && !w.State.Same(v.State) {
			return false
		}
	}
	for i := range j.Legs {
		d := &j.Legs[i].Trace.Deps
		for id := range d {
			d[id] = d[id].Or(o.Legs[i].Trace.Deps[id])
		}
	}
	return true
}
