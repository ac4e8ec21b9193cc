package cli

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/explore"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/lab"
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
	after []lab.States
}

// ask walks a question from the given memory of the hosts.
func (l *hosts) ask(q *question, from lab.States) (*answer, error) {
	a, err := l.ready(q)
	if err != nil {
		return nil, err
	}
	net, set := l.joined(), a.set()
	branches, cut := explore.All(func(dice *world.Dice) *lab.Journey {
		return net.Walk(set, from, dice)
	}, (*lab.Journey).Join, explore.Options{Drawn: q.Drawn})
	out := &answer{}
	out.ID, out.Cut = q.ID, cut
	for i := range branches {
		j := branches[i].Result
		if j.Err != nil {
			return nil, j.Err
		}
		out.Branches = append(out.Branches, branch(&branches[i]))
		out.after = append(out.after, from.With(j.States()))
		out.Assumed = append(out.Assumed, l.assumed(j)...)
	}
	return out, nil
}

// set is the question as a lab takes it.
func (a *asked) set() *lab.Question {
	q := &lab.Question{Host: a.host(), In: a.in, Frame: a.bytes, Now: a.now, Reply: a.Reply, Data: a.data,
		Skips: a.skips, Prepare: a.prepare}
	if a.Out {
		q.Local = &a.local
	}
	return q
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

// prepare tells the walk what the question leaves open, and puts the connection into
// memory that "ct established" asks for.
func (a *asked) prepare(k *walk.Walk) error {
	if a.unknownMAC {
		k.Unknown(field.MACSrc)
	}
	if a.unknownUID {
		k.Unknown(field.UID)
	}
	if a.unknownGID {
		k.Unknown(field.GID)
	}
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

// assumed lists what the answer rests on, of the hosts that it came by.
func (l *hosts) assumed(j *lab.Journey) []string {
	var out []string
	for _, h := range j.Hosts() {
		for _, a := range l.find(h.Name).assumed {
			if len(l.nodes) > 1 {
				a = h.Name + ": " + a
			}
			out = append(out, a)
		}
	}
	return slices.Concat(out, j.Inferred, borrowed(j), tunnelled(j))
}

// tunnels are the kinds of interface that send what they get on in packets of their own.
var tunnels = []string{"ipip", "sit", "gre", "gretap", "erspan", "vti", "ip6tnl", "vxlan", "geneve",
	"wireguard"}

// tunnelled tells of packets that left by an interface which wraps them: the outer packet is
// not walked.
func tunnelled(j *lab.Journey) []string {
	var out []string
	for _, l := range j.Legs {
		for _, e := range l.Trace.Events {
			t, ok := e.(*trace.Transmit)
			if !ok {
				continue
			}
			dev := l.Host.Links.ByIndex(t.Dev)
			if dev != nil && slices.Contains(tunnels, dev.Kind) {
				out = append(out, fmt.Sprintf("%s: what %s (%s) makes of the packet is not walked: it is shown "+
					"as it enters the tunnel", l.Host.Name, dev.Name, dev.Kind))
			}
		}
	}
	return out
}

// borrowed tells what is assumed of addresses that MASQUERADE took.
func borrowed(j *lab.Journey) []string {
	var out []string
	for _, l := range j.Legs {
		for _, e := range l.Trace.Events {
			t, ok := e.(*trace.NAT)
			if !ok || t.Source == nil {
				continue
			}
			dev := l.Host.Links.Name(t.Source.Dev)
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

// branch turns a journey into a report.
func branch(b *explore.Branch[*lab.Journey]) report.Branch {
	j := b.Result
	out := report.Branch{Prob: b.Prob, Taken: b.Taken, Reply: j.ReplySKB, Data: j.DataSKB}
	for _, o := range j.Outcomes {
		out.Outcomes = append(out.Outcomes, report.Outcome(o))
	}
	sort.SliceStable(out.Outcomes, func(i, k int) bool {
		return out.Outcomes[i].SKB < out.Outcomes[k].SKB
	})
	for _, h := range j.Hosts() {
		for _, p := range h.Programs() {
			out.Rules += p.Rules()
		}
		out.Deps = append(out.Deps, deps(j, h))
	}
	for _, l := range j.Legs {
		out.Tried += l.Trace.Tried
		out.Matched += l.Trace.Matched
		for _, e := range l.Trace.Events {
			if c, ok := e.(*trace.Choice); ok && !decided(b.Taken, c.Key) {
				continue
			}
			out.Steps = append(out.Steps, report.Step{Host: l.Host, World: l.World,
				Reply: l.Way == lab.Reply, Data: l.Way == lab.Data, Event: e})
		}
	}
	return out
}

// deps are the bits that a journey hung on, on one host.
func deps(j *lab.Journey, h *walk.Host) report.Deps {
	out := report.Deps{Host: h}
	for _, l := range j.Legs {
		switch {
		case l.Host != h:
		case out.Deps == nil:
			out.Deps = &l.Trace.Deps
		default:
			for id := range l.Trace.Deps {
				out.Deps[id] = out.Deps[id].Or(l.Trace.Deps[id])
			}
		}
	}
	return out
}

// decided tells whether a choice made a difference.
func decided(taken []world.Taken, k world.Key) bool {
	return slices.ContainsFunc(taken, func(t world.Taken) bool { return t.Key == k })
}
