package match

import (
	"fmt"
	"strconv"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// conntrack matches a packet's relation to its connection, and the connection.
// Without a connection only --ctstate is asked, and all else is passed over.
//
// Kernel: net/netfilter/xt_conntrack.c, conntrack_mt, revision 3.
type conntrack struct {
	State, Status    xtables.Bits
	Proto            ctProto
	Addrs            [4]xtables.Host
	Ports            [4]xtables.Span
	Expire           xtables.Span
	Dir              xtables.Enum
	NotState         bool
	NotStatus        bool
	NotProto         bool
	NotAddr, NotPort [4]bool
	NotExpire        bool
}

// The words of --ctstate in the order of printing; state has the first five.
var ctStates = []xtables.Bit{
	{Word: "INVALID", N: field.CtInvalid}, {Word: "NEW", N: field.CtNew},
	{Word: "RELATED", N: field.CtRelated}, {Word: "ESTABLISHED", N: field.CtEstablished},
	{Word: "UNTRACKED", N: field.CtUntracked}, {Word: "SNAT", N: field.CtSNAT},
	{Word: "DNAT", N: field.CtDNAT},
}

// The words of --ctstatus: bits of nf_conn's status.
var ctStatuses = []xtables.Bit{
	{Word: "EXPECTED", N: 1 << 0}, {Word: "SEEN_REPLY", N: 1 << 1}, {Word: "ASSURED", N: 1 << 2},
	{Word: "CONFIRMED", N: 1 << 3},
}

var ctDirs = []string{"ORIGINAL", "REPLY"}

// The ends of a connection, as options name them.
var (
	ctEnds     = [4]string{"origsrc", "origdst", "replsrc", "repldst"}
	ctEndAddrs = [4]field.ID{field.CtOrigSrc, field.CtOrigDst, field.CtReplSrc, field.CtReplDst}
	ctEndPorts = [4]field.ID{field.CtOrigSPort, field.CtOrigDPort, field.CtReplSPort,
		field.CtReplDPort}
	ctAddrNames = [4]string{"ctorigsrc", "ctorigdst", "ctreplsrc", "ctrepldst"}
	ctPortNames = [4]string{"ctorigsrcport", "ctorigdstport", "ctreplsrcport", "ctrepldstport"}
)

func newConntrack() xtables.Match {
	m := &conntrack{State: xtables.Bits{Words: ctStates, Short: true},
		Status: xtables.Bits{Words: ctStatuses, None: "NONE", Short: true},
		Dir:    xtables.Enum{Words: ctDirs}}
	for i := range m.Ports {
		m.Ports[i] = xtables.PortSpan(0)
	}
	return m
}

// Options implements xtables.Match.
func (m *conntrack) Options(s *xtables.Spec) {
	s.Var("ctstate", &m.State).Not(&m.NotState)
	s.Var("ctproto", &m.Proto).Not(&m.NotProto)
	for i := range m.Addrs {
		s.Var(ctAddrNames[i], &m.Addrs[i]).Not(&m.NotAddr[i])
	}
	for i := range m.Ports {
		s.Var(ctPortNames[i], &m.Ports[i]).Not(&m.NotPort[i])
	}
	s.Var("ctstatus", &m.Status).Not(&m.NotStatus)
	s.Var("ctexpire", &m.Expire).Not(&m.NotExpire)
	s.Var("ctdir", &m.Dir)
	s.Check(m.check)
}

func (m *conntrack) check(c *xtables.Context) error {
	for _, name := range []string{"ctstate", "ctproto", "ctstatus", "ctexpire", "ctdir"} {
		if c.Spec.Given(name) {
			return nil
		}
	}
	for i := range ctEnds {
		if m.Addrs[i].Given || m.Ports[i].Given {
			return nil
		}
	}
	return fmt.Errorf("at least one option is needed")
}

// Pred implements xtables.Match.
func (m *conntrack) Pred(*xtables.Build) field.Pred {
	rest := m.connection()
	if !m.State.Given {
		return rest
	}
	state := m.State.Any(field.CtState, m.NotState)
	if rest.Op == field.OpTrue {
		return state
	}
	return field.And(state, field.Or(noConn(), rest))
}

// connection is what is asked of the connection itself.
func (m *conntrack) connection() field.Pred {
	ps := make([]field.Pred, 0, 12)
	if m.Dir.Set {
		ps = append(ps, field.Is(field.CtDir, field.Num(uint64(m.Dir.N))))
	}
	for i := range m.Addrs {
		ps = append(ps, m.Addrs[i].Test(ctEndAddrs[i], m.NotAddr[i]))
	}
	if m.Proto.given {
		set := field.Num(uint64(m.Proto.n))
		ps = append(ps, field.NotIf(m.NotProto, field.Is(field.CtProto, set)))
	}
	for i := range m.Ports {
		ps = append(ps, m.Ports[i].Test(ctEndPorts[i], m.NotPort[i]))
	}
	ps = append(ps, m.status(), m.Expire.Test(field.CtExpire, m.NotExpire))
	return field.And(ps...)
}

// status asks for status bits. NONE has none and so is never met.
func (m *conntrack) status() field.Pred {
	if m.Status.Given && m.Status.N == 0 {
		return field.And(field.Has(field.CtStatus), always(m.NotStatus))
	}
	return m.Status.Any(field.CtStatus, m.NotStatus)
}

// ctProto is a protocol by name or number, printed as a number.
type ctProto struct {
	n     uint8
	given bool
}

// Parse implements xtables.Value.
func (v *ctProto) Parse(a *xtables.Args) (err error) {
	v.given = true
	if v.n, err = xtables.ParseProto(lower(a.Word)); err != nil {
		return err
	}
	if v.n == 0 && a.Version >= xtables.V1811 {
		return fmt.Errorf("protocol 0 would match nothing, or everything")
	}
	return nil
}

// Append implements xtables.Value.
func (v *ctProto) Append(b []byte, _ trace.Family) []byte {
	return strconv.AppendUint(b, uint64(v.n), 10)
}

// Unset implements xtables.Value.
func (v *ctProto) Unset() bool { return !v.given }

// state is the older and shorter conntrack.
//
// Kernel: net/netfilter/xt_conntrack.c; iptables hands it over as conntrack and
// prints it as state.
type state struct {
	State xtables.Bits
	Not   bool
}

func newState() xtables.Match {
	return &state{State: xtables.Bits{Words: ctStates[:5], Short: true}}
}

// Options implements xtables.Match.
func (m *state) Options(s *xtables.Spec) { s.Var("state", &m.State).Not(&m.Not).Required() }

// Pred implements xtables.Match.
func (m *state) Pred(*xtables.Build) field.Pred { return m.State.Any(field.CtState, m.Not) }
