package link

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// The words of trace.PassedOver.
const (
	passedSecondary = "secondary"
	passedScope     = "scope " // and the scope's name
	passedPrefix    = "its prefix does not hold the next hop"
	passedLater     = "later in the list"
)

// SelectAddr picks the source address for what leaves by dev towards dst (zero
// for any), at least as wide as scope, and says who was passed over and why.
//
// Kernel: net/ipv4/devinet.c, inet_select_addr.
func (t *Table) SelectAddr(dev packet.Dev, dst packet.Addr, scope Scope) trace.SourceChoice {
	s := selection{t: t, dst: dst, scope: scope, explain: true}
	s.run(dev)
	return s.c
}

// Select is SelectAddr without the explanation. It does not allocate.
func (t *Table) Select(dev packet.Dev, dst packet.Addr, scope Scope) packet.Addr {
	s := selection{t: t, dst: dst, scope: scope}
	s.run(dev)
	return s.c.Addr
}

// selection is one run of inet_select_addr.
type selection struct {
	t       *Table
	dst     packet.Addr
	scope   Scope
	explain bool
	c       trace.SourceChoice
}

func (s *selection) run(dev packet.Dev) {
	l := s.t.ByIndex(dev)
	if l == nil {
		s.c.Step = trace.StepNone
		return
	}
	if l.HasIP() && s.onDevice(l) {
		return
	}
	master := s.t.L3Master(dev)
	if m := s.t.ByIndex(master); m != nil && m.HasIP() && s.primary(m, trace.StepMaster) {
		return
	}
	s.anywhere(dev, master)
}

// onDevice looks for a primary address whose prefix holds the next hop, else
// takes the first primary one.
func (s *selection) onDevice(l *Link) bool {
	localnet := localnetScope(l)
	first := -1
	addrs := s.t.Addrs(l.Index)
	for i := range addrs {
		a := &addrs[i]
		switch {
		case !a.Local.Is4():
		case a.Secondary:
			s.passed(a, passedSecondary)
		case min(a.Scope, localnet) > s.scope:
			s.passed(a, passedScope+a.Scope.String())
		case !s.dst.IsAny() && a.Holds(s.dst):
			s.pickMatch(addrs, i, first)
			return true
		case first < 0:
			first = i
			if s.dst.IsAny() {
				s.take(a, trace.StepFirst)
				return true
			}
		default:
			s.passed(a, passedPrefix)
		}
	}
	if first < 0 {
		return false
	}
	s.take(&addrs[first], trace.StepFirst)
	return true
}

// pickMatch takes the address whose prefix holds the next hop.
func (s *selection) pickMatch(addrs []Addr, i, first int) {
	if first >= 0 {
		s.passed(&addrs[first], passedPrefix)
	}
	for j := i + 1; s.explain && j < len(addrs); j++ {
		if a := &addrs[j]; a.Local.Is4() && !a.Secondary && a.Holds(s.dst) {
			s.passed(a, passedLater)
		}
	}
	s.take(&addrs[i], trace.StepPrefix)
}

// localnetScope is how wide an address of scope host counts.
func localnetScope(l *Link) Scope {
	if l.Conf.RouteLocalnet {
		return ScopeLink
	}
	return ScopeHost
}

// primary takes the first primary address of a device that is wide enough and
// not of scope link.
//
// Kernel: net/ipv4/devinet.c, in_dev_select_addr.
func (s *selection) primary(l *Link, step trace.SourceStep) bool {
	addrs := s.t.Addrs(l.Index)
	for i := range addrs {
		a := &addrs[i]
		switch {
		case !a.Local.Is4():
		case a.Secondary:
			s.passed(a, passedSecondary)
		case a.Scope == ScopeLink || a.Scope > s.scope:
			s.passed(a, passedScope+a.Scope.String())
		default:
			s.take(a, step)
			return true
		}
	}
	return false
}

// anywhere asks every device of the same VRF, or of none, in order. The loopback
// device comes first, as addresses on it are preferred.
func (s *selection) anywhere(dev, master packet.Dev) {
	for i := range s.t.links {
		l := &s.t.links[i]
		if s.t.L3Master(l.Index) != master || !l.HasIP() {
			continue
		}
		step := trace.StepAny
		if l.Index == Loopback {
			step = trace.StepMaster
		}
		explain := s.explain
		s.explain = explain && l.Index != dev && l.Index != master
		found := s.primary(l, step)
		s.explain = explain
		if found {
			return
		}
	}
	s.c.Step = trace.StepNone
}

func (s *selection) passed(a *Addr, why string) {
	if s.explain {
		s.c.Passed = append(s.c.Passed, trace.PassedOver{Addr: a.Local, Dev: a.Dev, Why: why})
	}
}

func (s *selection) take(a *Addr, step trace.SourceStep) {
	s.c.Addr, s.c.Dev, s.c.Step = a.Local, a.Dev, step
}

// OnLink tells whether a prefix of the device holds both addresses; the zero b
// is in every one.
//
// Kernel: net/ipv4/devinet.c, inet_addr_onlink.
func (t *Table) OnLink(dev packet.Dev, a, b packet.Addr) bool {
	for i := range t.Addrs(dev) {
		ad := &t.Addrs(dev)[i]
		if ad.Holds(a) && (b.IsAny() || ad.Holds(b)) {
			return true
		}
	}
	return false
}

// Confirm looks for an address that is fit to talk to dst: local itself when it
// is given, on dev, or on any device when dev is zero. Zero is none.
//
// Kernel: net/ipv4/devinet.c, inet_confirm_addr.
func (t *Table) Confirm(dev packet.Dev, dst, local packet.Addr, scope Scope) packet.Addr {
	if dev != 0 {
		return t.confirmOn(dev, dst, local, scope)
	}
	for i := range t.links {
		if a := t.confirmOn(t.links[i].Index, dst, local, scope); !a.IsZero() {
			return a
		}
	}
	return packet.Addr{}
}

// confirmOn follows confirm_addr_indev: it looks for an address and for a prefix
// that holds both ends, which may come from two entries.
func (t *Table) confirmOn(dev packet.Dev, dst, local packet.Addr, scope Scope) packet.Addr {
	l := t.ByIndex(dev)
	if l == nil || !l.HasIP() {
		return packet.Addr{}
	}
	var addr packet.Addr
	same := false
	for i := range t.Addrs(dev) {
		a := &t.Addrs(dev)[i]
		wide := min(a.Scope, localnetScope(l)) <= scope
		if addr.IsZero() && (local.IsAny() || local == a.Local) && wide {
			addr = a.Local
			if same {
				break
			}
		}
		if same {
			continue
		}
		same = (local.IsAny() || a.Holds(local)) && (dst.IsAny() || a.Holds(dst))
		if !same || addr.IsZero() {
			continue
		}
		if !local.IsAny() || dst.IsAny() || a.Holds(addr) {
			break
		}
		if wide {
			addr = a.Local
			break
		}
		same = false // look for a larger prefix that holds addr too
	}
	if !same {
		return packet.Addr{}
	}
	return addr
}
