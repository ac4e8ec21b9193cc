package match

import (
	"github.com/hookpath/hookpath/field"
	balancer "github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/xtables"
)

// ipvs matches the virtual service that a packet belongs to.
//
// Kernel: net/netfilter/xt_ipvs.c, ipvs_mt.
type ipvs struct {
	IPVS                                bool
	Proto                               ctProto
	Addr                                xtables.Host
	Port, CtlPort                       xtables.Span
	Dir                                 xtables.Enum
	Method                              xtables.Enum
	NotIPVS, NotProto, NotAddr, NotPort bool
	NotMethod, NotCtl                   bool
}

var ipvsMethods = []string{"MASQ", "", "IPIP", "GATE"}

func newIPVS() xtables.Match {
	return &ipvs{Port: xtables.PortSpan(0), CtlPort: xtables.PortSpan(0),
		Dir: xtables.Enum{Words: ctDirs}, Method: xtables.Enum{Words: ipvsMethods}}
}

// Options implements xtables.Match.
func (m *ipvs) Options(s *xtables.Spec) {
	s.Flag("ipvs", &m.IPVS).Not(&m.NotIPVS)
	s.Var("vproto", &m.Proto).Not(&m.NotProto)
	s.Var("vaddr", &m.Addr).Not(&m.NotAddr)
	s.Var("vport", &m.Port).Not(&m.NotPort)
	s.Var("vdir", &m.Dir)
	s.Var("vmethod", &m.Method).Not(&m.NotMethod)
	s.Var("vportctl", &m.CtlPort).Not(&m.NotCtl)
	s.Check(func(c *xtables.Context) error {
		return someOf(c, "ipvs", "vproto", "vaddr", "vport", "vdir", "vmethod", "vportctl")
	})
}

// Pred implements xtables.Match.
func (m *ipvs) Pred(*xtables.Build) field.Pred {
	return derived(func(e *xtables.Env) field.Result { return result(m.matches(e)) }, field.Src, field.Dst, field.Proto, field.SrcPort, field.DstPort, field.CtState)
}

// alone tells that --ipvs is the only option: then nothing but the packet's having been
// seen by IPVS counts.
func (m *ipvs) alone() bool {
	return (m.IPVS || m.NotIPVS) && m.Proto.Unset() && m.Addr.Unset() && m.Port.Unset() &&
		m.CtlPort.Unset() && !m.Dir.Set && !m.Method.Set
}

func (m *ipvs) matches(e *xtables.Env) bool {
	p := e.Packet
	if m.alone() {
		return p.IPVS != m.NotIPVS
	}
	if !p.IPVS || e.IPVS == nil || !e.IPVS.Speaks(p.Protocol()) {
		return false
	}
	if !m.Proto.Unset() && (p.Protocol() == m.Proto.n) == m.NotProto {
		return false
	}
	h := balancer.Header{Family: e.Family, Proto: p.Protocol(), Src: p.Src(), Dst: p.Dst(),
		L4: p.L4(), Inverse: true}
	id := e.IPVS.Out(e.World, &h)
	return id != 0 && m.conn(e, e.IPVS.View(e.World, id))
}

// conn asks the connection. The direction is conntrack's.
func (m *ipvs) conn(e *xtables.Env, v balancer.View) bool {
	if !m.Port.Unset() && (uint64(v.VPort) == m.Port.Lo) == m.NotPort {
		return false
	}
	if !m.CtlPort.Unset() && (v.Controlled && uint64(v.ControlPort) == m.CtlPort.Lo) == m.NotCtl {
		return false
	}
	if ct := e.Packet.CT; m.Dir.Set && (ct.Flow == 0 || ct.Info.IsReply() != (m.Dir.N == 1)) {
		return false
	}
	if m.Method.Set && (uint32(v.Method) == m.Method.N) == m.NotMethod {
		return false
	}
	same := masked(v.Virtual, m.Addr.Mask) == masked(m.Addr.Addr, m.Addr.Mask)
	return m.Addr.Unset() || same != m.NotAddr
}
