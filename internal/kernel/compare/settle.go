package compare

import (
	"encoding/binary"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// maxBranches bounds the answers of the dice that are tried for one question, maxStates
// the memories that are kept side by side.
const (
	maxBranches = 64
	maxStates   = 32
)

// agreement is what a search for the kernel's dice found.
type agreement struct {
	walk     *walk.Walk // the first that agreed, nil for none
	from     *world.State
	dice     world.Dice
	followed int
	states   []*world.State // the memories that agreeing walks left
	first    *walk.Walk     // the most probable one, where it differs
	diff     *Diff
}

// remember keeps a memory, unless another answer made the same of the same one before:
// the first of these is states[since].
func (g *agreement) remember(st *world.State, since int) {
	if !slices.ContainsFunc(g.states[since:], st.Same) {
		g.states = append(g.states, st)
	}
}

// settle looks for the answers of the dice under which the engine does what the kernel
// did, and returns that walk. More than one answer may agree: all memories that they lead
// to go on. Otherwise it returns the most probable walk and how it differs.
func (t *Tally) settle(p *pair, q *kernel.Question, a *kernel.Answer) (*walk.Walk, *Diff) {
	var g agreement
	for _, st := range append([]*world.State{p.state}, p.others...) {
		p.state = st
		p.search(q, a, &g)
	}
	p.flows = a.Flows
	if g.walk == nil {
		return g.first, g.diff
	}
	t.Followed += min(1, g.followed)
	p.state = g.from
	diff := t.cover(p, g.walk, q, a, g.dice)
	p.state, p.others = g.states[0], g.states[1:]
	return g.walk, diff
}

// search tries the ports that may have been drawn until some agree: at first those that
// answer all draws, then those that leave some open.
func (p *pair) search(q *kernel.Question, a *kernel.Answer, g *agreement) {
	lists := p.drawn(a)
	for _, open := range []bool{false, true} {
		for _, drawn := range lists {
			agreed, draws := p.branches(q, a, drawn, open, g)
			if agreed || !draws { // without a draw all ports are alike
				return
			}
		}
	}
}

// branches tries the answers of the dice, the most probable first. It tells whether one
// agreed, and whether ports were drawn. open allows draws that nothing answered.
func (p *pair) branches(q *kernel.Question, a *kernel.Answer, drawn []uint16, open bool,
	g *agreement) (agreed, draws bool) {
	forced, since := []int{}, len(g.states)
	for n := 0; n < maxBranches && forced != nil && len(g.states) < maxStates; n++ {
		dice := world.Dice{Forced: forced, Drawn: drawn}
		k, followed := p.try(q, a, dice, false)
		draws = draws || k.World.Dice.Draws > 0
		diff := p.differ(k, a)
		answered := len(drawn) - len(k.World.Dice.Drawn)
		switch {
		case diff == nil && !open && k.World.Dice.Draws > answered:
		case diff == nil && g.walk == nil:
			g.walk, g.from, g.dice, g.followed = k, p.state, dice, followed
			fallthrough
		case diff == nil:
			agreed = true
			g.remember(k.World.State, since)
		case g.first == nil:
			g.first, g.diff = k, diff
		}
		forced = next(k.World.Dice.Taken, forced)
	}
	return agreed, draws
}

// next is the next way through the tree of choices, depth first; nil when all were gone.
func next(taken []world.Taken, forced []int) []int {
	for i := len(taken) - 1; i >= 0; i-- {
		tried := 0 // alternatives are numbered from the most probable one on
		if i < len(forced) {
			tried = (forced[i] - taken[i].Best() + taken[i].N) % taken[i].N
		}
		if tried+1 >= taken[i].N {
			continue
		}
		out := make([]int, i+1)
		for j := range i {
			out[j] = taken[j].Index
		}
		out[i] = (taken[i].Best() + tried + 1) % taken[i].N
		return out
	}
	return nil
}

// drawn are the ports that the kernel's NAT may have drawn: those of sources, and of
// destinations, as its new connections show; what was delivered, sent or quoted where no
// connection is left; those of a rule, where nothing shows but a checksum; none.
func (p *pair) drawn(a *kernel.Answer) [][]uint16 {
	var src, dst []uint16
	for _, f := range a.Flows {
		if slices.Contains(p.flows, f) {
			continue
		}
		o, r := ends(f)
		if o[0] != r[1] {
			src = append(src, r[1])
		}
		if o[1] != r[0] {
			dst = append(dst, r[0])
		}
	}
	var out [][]uint16
	if len(src) > 0 {
		out = append(out, src)
	}
	if len(dst) > 0 {
		out = append(out, dst, append(slices.Clone(dst), src...))
	}
	seen := seenPorts(a)
	for _, x := range slices.Concat(seen, p.takenPorts(), p.rangedPorts()) {
		out = append(out, []uint16{x})
	}
	for _, x := range seen {
		for _, y := range seen {
			out = append(out, []uint16{x, y})
		}
	}
	return append(out, nil)
}

// rangePattern is the range of ports of a NAT rule.
var rangePattern = regexp.MustCompile(`(?:--to-ports |[0-9]:)(\d+)-(\d+)`)

// rangedPorts are the ports that the rules choose from, where they are few.
func (p *pair) rangedPorts() []uint16 {
	const few = 16
	var all []uint16
	for _, m := range rangePattern.FindAllSubmatch(p.files[saveName[p.backend]], -1) {
		first, _ := strconv.ParseUint(string(m[1]), 10, 16)
		last, _ := strconv.ParseUint(string(m[2]), 10, 16)
		for n := first; n <= last && last-first < few; n++ {
			all = append(all, uint16(n))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// takenPorts are those that connections have already: one that drew them clashes.
func (p *pair) takenPorts() []uint16 {
	var all []uint16
	for _, f := range p.flows {
		_, r := ends(f)
		all = append(all, r[0], r[1])
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// seenPorts are the ports and ids of the packets that the kernel handed out, and of those
// that they quote.
func seenPorts(a *kernel.Answer) []uint16 {
	var all []uint16
	for _, b := range a.Delivered {
		all = append(all, packetPorts(b)...)
	}
	for _, f := range a.Out {
		all = append(all, packetPorts(f.Bytes[min(packet.EthernetLen, len(f.Bytes)):])...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// packetPorts are the ports of an IP packet, or the id of an ICMP one, and those of the
// packet in an ICMP error.
func packetPorts(b []byte) []uint16 {
	p, ok := packet.FromIP(slices.Clone(b))
	if !ok || !p.Is4() {
		return nil
	}
	l4 := p.L4()
	if p.Protocol() != packet.ICMP {
		src, dst, ok := p.Ports()
		if !ok {
			return nil
		}
		return []uint16{src, dst}
	}
	if len(l4) < 8 {
		return nil
	}
	if quoted := l4[8:]; len(quoted) >= 20 && quoted[0]>>4 == 4 {
		return packetPorts(quoted)
	}
	return []uint16{binary.BigEndian.Uint16(l4[4:])}
}

// ends are the ports (source, destination) of both directions of a connection's line.
func ends(line string) (orig, reply [2]uint16) {
	var all []uint16
	for _, w := range strings.Fields(line) {
		var n uint16
		for _, key := range []string{"sport=%d", "dport=%d", "id=%d"} {
			if _, err := fmt.Sscanf(w, key, &n); err == nil {
				all = append(all, n)
				if key == "id=%d" { // counts as both ports
					all = append(all, n)
				}
			}
		}
	}
	if len(all) != 4 {
		return
	}
	return [2]uint16{all[0], all[1]}, [2]uint16{all[2], all[3]}
}
