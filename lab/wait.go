package lab

import (
	"slices"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// held is a packet that waits on a host for its neighbour's answer.
type held struct {
	port
	addr packet.Addr
	skb  int
}

// resume gives packets that waited, and go on now that their neighbour has answered,
// the numbers that they had: on one journey a packet has one. What had waited before the
// journey keeps its new number.
func (j *Journey) resume(leg *Leg) {
	renamed := map[int]int{}
	for _, e := range leg.Trace.Events {
		n, ok := e.(*trace.Neigh)
		if !ok {
			continue
		}
		at := port{leg.host, n.Dev}
		if !n.Found {
			j.held = append(j.held, held{at, n.Addr, n.SKB})
			continue
		}
		i := slices.IndexFunc(j.held, func(h held) bool { return h.port == at && h.addr == n.Addr })
		if i < 0 || !j.first(leg, n) {
			continue
		}
		renamed[n.SKB] = j.held[i].skb
		j.held = slices.Delete(j.held, i, i+1)
	}
	if len(renamed) > 0 {
		j.rename(leg, renamed)
	}
}

// first tells whether a packet begins with an event: it had waited.
func (j *Journey) first(leg *Leg, n *trace.Neigh) bool {
	for _, e := range leg.Trace.Events {
		if e.Base().SKB == n.SKB {
			return e == trace.Event(n)
		}
	}
	return false
}

// rename gives packets of a leg other numbers, and takes back that they waited.
func (j *Journey) rename(leg *Leg, to map[int]int) {
	for _, e := range leg.Trace.Events {
		if n, ok := to[e.Base().SKB]; ok {
			e.Base().SKB = n
		}
	}
	for i := range leg.Trace.Outcomes {
		o := &leg.Trace.Outcomes[i]
		n, ok := to[o.SKB]
		if !ok {
			continue
		}
		o.SKB = n
		j.Outcomes = slices.DeleteFunc(j.Outcomes, func(old Outcome) bool {
			return old.SKB == n && old.Host == leg.Host && old.Why == "no-neighbour"
		})
	}
}
