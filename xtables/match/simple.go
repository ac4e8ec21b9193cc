package match

import (
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// length matches the length of the IP packet, header included.
//
// Kernel: net/netfilter/xt_length.c, length_mt.
type length struct {
	Length xtables.Span
	Not    bool
}

func newLength() xtables.Match { return &length{Length: xtables.Span{Max: 65535}} }

// Options implements xtables.Match.
func (m *length) Options(s *xtables.Spec) { s.Var("length", &m.Length).Not(&m.Not).Required() }

// Pred implements xtables.Match.
func (m *length) Pred(*xtables.Build) field.Pred { return m.Length.Test(field.Len, m.Not) }

// ttl matches the time to live, or the hop limit of IPv6.
//
// Kernel: net/netfilter/xt_hl.c, ttl_mt and hl_mt6.
type ttl struct {
	Eq, Less, More number
	Not            bool
	prefix         string
}

func newTTL() xtables.Match { return newHops("ttl") }
func newHL() xtables.Match  { return newHops("hl") }

func newHops(prefix string) xtables.Match {
	n := number{Max: 255}
	return &ttl{Eq: n, Less: n, More: n, prefix: prefix}
}

// Options implements xtables.Match.
func (m *ttl) Options(s *xtables.Spec) {
	eq, lt, gt := m.prefix+"-eq", m.prefix+"-lt", m.prefix+"-gt"
	s.Var(eq, &m.Eq).Not(&m.Not).Alias(m.prefix)
	s.Var(lt, &m.Less)
	s.Var(gt, &m.More)
	s.ExactlyOne(eq, lt, gt)
}

// Pred implements xtables.Match.
func (m *ttl) Pred(*xtables.Build) field.Pred {
	switch {
	case m.Less.given:
		if m.Less.n == 0 {
			return field.Never()
		}
		return field.Is(field.TTL, field.Between(0, m.Less.n-1))
	case m.More.given:
		return field.Is(field.TTL, field.Between(m.More.n+1, 255))
	}
	return field.NotIf(m.Not, field.Is(field.TTL, field.Num(m.Eq.n)))
}

// pkttype matches to whom the link layer addressed the packet. What the host loops
// back to itself counts as multicast or broadcast, by its destination.
//
// Kernel: net/netfilter/xt_pkttype.c, pkttype_mt.
type pkttype struct {
	Type pktWord
	Not  bool
}

func newPkttype() xtables.Match { return &pkttype{} }

// Options implements xtables.Match.
func (m *pkttype) Options(s *xtables.Spec) { s.Var("pkt-type", &m.Type).Not(&m.Not).Required() }

// Pred implements xtables.Match.
func (m *pkttype) Pred(b *xtables.Build) field.Pred {
	is := func(t packet.Type) field.Pred { return is(field.PktType, uint64(t)) }
	multicast := field.Is(field.Dst, field.AddrPrefix(packet.V4(0xe0000000), 4))
	if b.Family == trace.IPv6 {
		multicast = field.Pred{}
	}
	test := is(m.Type.t)
	switch m.Type.t {
	case packet.Multicast:
		test = field.Or(test, field.And(is(packet.Loopback), multicast))
	case packet.Broadcast:
		if b.Family == trace.IPv4 {
			test = field.Or(test, field.And(is(packet.Loopback), field.Not(multicast)))
		}
	case packet.Loopback:
		test = field.Never()
	}
	return field.NotIf(m.Not, test)
}

// pktWord is the word for a packet type.
type pktWord struct{ t packet.Type }

var pktWords = [...]struct {
	word string
	t    packet.Type
}{
	{"unicast", packet.Host}, {"broadcast", packet.Broadcast}, {"multicast", packet.Multicast},
	{"otherhost", packet.OtherHost}, {"bcast", packet.Broadcast}, {"mcast", packet.Multicast},
	{"host", packet.Host},
}

// Parse implements xtables.Value.
func (v *pktWord) Parse(a *xtables.Args) error {
	for i := range pktWords {
		if pktWords[i].word == lower(a.Word) {
			v.t = pktWords[i].t
			return nil
		}
	}
	return fmt.Errorf("%q is none of unicast, broadcast, multicast, otherhost", a.Word)
}

// Append implements xtables.Value.
func (v *pktWord) Append(b []byte, _ trace.Family) []byte {
	return append(b, pktWords[v.t].word...)
}

// Unset implements xtables.Value.
func (v *pktWord) Unset() bool { return false }

// cpu matches the processor that handles the packet.
//
// Kernel: net/netfilter/xt_cpu.c, cpu_mt.
type cpu struct {
	CPU number
	Not bool
}

func newCPU() xtables.Match { return &cpu{} }

// Options implements xtables.Match.
func (m *cpu) Options(s *xtables.Spec) { s.Var("cpu", &m.CPU).Not(&m.Not).Required() }

// Pred implements xtables.Match. Nobody knows the processor, so the test forks the
// walk; other processors than the first are asked about by all the rest, so that what
// is taken first is the first processor.
func (m *cpu) Pred(*xtables.Build) field.Pred {
	n := m.CPU.n
	if n == 0 {
		return field.NotIf(m.Not, is(field.CPU, 0))
	}
	rest := []field.Range{{Hi: field.U(n - 1)}}
	if n < field.Ones(32).Lo {
		rest = append(rest, field.Range{Lo: field.U(n + 1), Hi: field.Ones(32)})
	}
	return field.NotIf(!m.Not, field.Is(field.CPU, field.Ranges(rest...)))
}

// devgroup matches the groups of the interfaces in and out.
//
// Kernel: net/netfilter/xt_devgroup.c, devgroup_mt.
type devgroup struct {
	Src, Dst       named
	NotSrc, NotDst bool
}

var devgroupNames = []string{"default"}

func newDevgroup() xtables.Match {
	n := named{names: devgroupNames}
	return &devgroup{Src: n, Dst: n}
}

// Options implements xtables.Match.
func (m *devgroup) Options(s *xtables.Spec) {
	s.Var("src-group", &m.Src).Not(&m.NotSrc)
	s.Var("dst-group", &m.Dst).Not(&m.NotDst)
	s.Check(func(c *xtables.Context) error { return someOf(c, "src-group", "dst-group") })
}

// Validate implements xtables.Validator.
func (m *devgroup) Validate(b *xtables.Build) error {
	switch {
	case !legacy(b):
	case m.Src.given && b.Hooks&^(atPrerouting|atInput|atForward) != 0:
		return fmt.Errorf("--src-group is for PREROUTING, INPUT and FORWARD")
	case m.Dst.given && b.Hooks&^(atForward|atOutput|atPostrouting) != 0:
		return fmt.Errorf("--dst-group is for FORWARD, OUTPUT and POSTROUTING")
	}
	return nil
}

// Pred implements xtables.Match.
func (m *devgroup) Pred(*xtables.Build) field.Pred {
	test := func(v *named, id field.ID, not bool) field.Pred {
		if !v.given {
			return field.Pred{}
		}
		return field.NotIf(not, under(id, uint64(v.Value), uint64(v.Mask)))
	}
	return field.And(test(&m.Src, field.InGroup, m.NotSrc),
		test(&m.Dst, field.OutGroup, m.NotDst))
}

// realm matches the realm of the packet's route.
//
// Kernel: net/netfilter/xt_realm.c, realm_mt.
type realm struct {
	Realm named
	Not   bool
}

var realmNames = []string{"cosmos"}

func newRealm() xtables.Match { return &realm{Realm: named{names: realmNames}} }

// Options implements xtables.Match.
func (m *realm) Options(s *xtables.Spec) { s.Var("realm", &m.Realm).Not(&m.Not).Required() }

// Pred implements xtables.Match.
func (m *realm) Pred(*xtables.Build) field.Pred {
	return field.NotIf(m.Not, field.Is(field.Realm, m.Realm.Set()))
}

// named is value[/mask] whose value may be a word of iproute2: names[n] is number n.
type named struct {
	xtables.Masked
	names []string
	given bool
}

// Parse implements xtables.Value.
func (v *named) Parse(a *xtables.Args) error {
	v.given = true
	for n, name := range v.names {
		if a.Word == name {
			v.Masked = xtables.Masked{Value: uint32(n), Mask: ^uint32(0)}
			return nil
		}
	}
	return v.Masked.Parse(a)
}

// Append implements xtables.Value.
func (v *named) Append(b []byte, f trace.Family) []byte {
	if v.Mask == ^uint32(0) && int(v.Value) < len(v.names) {
		return append(b, v.names[v.Value]...)
	}
	return v.Masked.Append(b, f)
}

// Unset implements xtables.Value.
func (v *named) Unset() bool { return !v.given }

// rpfilter matches packets whose source is reached through the interface that they
// came in by.
//
// Kernel: net/ipv4/netfilter/ipt_rpfilter.c, rpfilter_mt.
type rpfilter struct{ Loose, ValidMark, AcceptLocal, Invert bool }

func newRPFilter() xtables.Match { return &rpfilter{} }

// Options implements xtables.Match.
func (m *rpfilter) Options(s *xtables.Spec) {
	s.Flag("loose", &m.Loose)
	s.Flag("validmark", &m.ValidMark)
	s.Flag("accept-local", &m.AcceptLocal)
	s.Flag("invert", &m.Invert)
}

// Pred implements xtables.Match.
func (m *rpfilter) Pred(*xtables.Build) field.Pred {
	o := route.ReverseOptions{Loose: m.Loose, ValidMark: m.ValidMark, AcceptLocal: m.AcceptLocal}
	return xtables.Derived(func(e *xtables.Env) bool {
		return e.Routes.ReversePath(e.Packet, o, e.Deps()) != m.Invert
	}, field.In)
}

// quota matches until a number of bytes has passed the rule.
//
// Kernel: net/netfilter/xt_quota.c, quota_mt.
type quota struct {
	Quota number
	Not   bool
}

func newQuota() xtables.Match { return &quota{Quota: number{Max: ^uint64(0)}} }

// Options implements xtables.Match.
func (m *quota) Options(s *xtables.Spec) { s.Var("quota", &m.Quota).Not(&m.Not).Required() }

// Pred implements xtables.Match.
func (m *quota) Pred(b *xtables.Build) field.Pred {
	slot := xtables.Slot(b, m.Quota.n)
	assume(b, "-m quota counts as just loaded")
	return xtables.Call(func(e *xtables.Env) bool {
		left, n := &slot.In(e.World.State).V, uint64(e.Packet.Len())
		if *left < n {
			*left = 0 // from now on even small packets do not pass
			return m.Not
		}
		*left -= n
		return !m.Not
	}, field.Len)
}

// nfacct counts packets in a named object and matches them; only an object with a
// quota can fail to match, and then until the quota is used up.
//
// Kernel: net/netfilter/xt_nfacct.c, nfacct_mt.
type nfacct struct{ Name xtables.Text }

func newNfacct() xtables.Match { return &nfacct{xtables.Text{Max: 31}} }

// Options implements xtables.Match.
func (m *nfacct) Options(s *xtables.Spec) { s.Var("nfacct-name", &bare{&m.Name}).Required() }

// Pred implements xtables.Match.
func (m *nfacct) Pred(b *xtables.Build) field.Pred {
	assume(b, "accounting object %q is taken to have no quota", m.Name.S)
	return field.Pred{}
}
