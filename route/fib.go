package route

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// FIB is a host's routing: rules, tables, routes. It does not change once it is
// made and may be shared.
type FIB struct {
	cfg      Config
	links    *link.Table
	rules    []rule
	tables   map[uint32]*table
	main     *table
	def      *table
	local    *table
	nexthops map[uint32]*Nexthop
	hint     Hint

	merged      bool // local and main share one trie: no rule was ever changed
	dissect     bool // some rule looks at protocol or ports
	customLocal bool // a local route that no address brought along
	classes     bool // realms are used
	hashPolicy  int
	hashFields  int
	useNeigh    bool
	bcAll       bool // conf.all.bc_forwarding
	version     int  // 6018 for 6.18
	assumed     []string
	exceptions  exceptions
	remembers   bool
}

// hop is one way on of an alias.
//
// Kernel: include/net/ip_fib.h, struct fib_nh_common.
type hop struct {
	via      packet.Addr
	dev      packet.Dev
	scope    link.Scope // of the way to the gateway
	weight   uint64
	realms   uint32
	saddr    packet.Addr
	dead     bool
	linkdown bool
	ignored  bool // linkdown counts on this device
}

// gateway tells whether packets are sent to the gateway and not to their
// destination itself.
func (h *hop) gateway() bool { return !h.via.IsZero() && h.scope == link.ScopeLink }

// alias is a route in a table.
//
// Kernel: net/ipv4/fib_lookup.h, struct fib_alias.
type alias struct {
	route  int32 // in Config.Routes
	table  uint32
	tos    uint8
	kind   trace.RouteKind
	scope  link.Scope
	bits   uint8 // prefix length, in the family's width
	err    Errno
	dead   bool
	object bool // the hops come from a nexthop object
	group  *Nexthop
	metric uint32
	src    packet.Addr
	hops   []hop
}

// New makes a FIB. Where routes name a link, a table or a nexthop that is not
// there it fails.
func New(c Config) (*FIB, error) {
	f := &FIB{cfg: c, links: c.Links, tables: map[uint32]*table{},
		nexthops: map[uint32]*Nexthop{}, version: kernelVersion(c.Kernel)}
	if f.cfg.Rules == nil {
		f.cfg.Rules = DefaultRules()
	}
	f.addRules()
	for i := range c.Nexthops {
		f.nexthops[c.Nexthops[i].ID] = &f.cfg.Nexthops[i]
	}
	f.completeRoutes()
	if err := f.addRoutes(); err != nil {
		return nil, err
	}
	f.settings()
	if c.Schema != nil {
		f.remembers = true
		f.exceptions = world.Add(c.Schema, world.NewTable[exceptionKey, exception])
	}
	return f, nil
}

func (f *FIB) addRules() {
	f.rules = newRules(f.cfg.Rules, f.links)
	f.merged = isDefault(f.rules)
	for i := range f.rules {
		f.dissect = f.dissect || f.rules[i].needsPorts()
		f.classes = f.classes || f.rules[i].Realms != 0
	}
}

func (f *FIB) settings() {
	s := f.cfg.Sysctl
	f.hashPolicy = s.Int("net.ipv4.fib_multipath_hash_policy", 0)
	f.hashFields = s.Int("net.ipv4.fib_multipath_hash_fields", 7)
	f.useNeigh = s.Int("net.ipv4.fib_multipath_use_neigh", 0) != 0
	f.bcAll = s.Int("net.ipv4.conf.all.bc_forwarding", 0) != 0
}

// defaultVersion is the kernel where the snapshot does not say.
const defaultVersion = 6018

// kernelVersion turns 6.18.1-x into 6018.
func kernelVersion(s string) int {
	parts := strings.SplitN(s, ".", 3)
	if len(parts) < 2 {
		return defaultVersion
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(strings.TrimRight(leadingDigits(parts[1]), " "))
	if err1 != nil || err2 != nil {
		return defaultVersion
	}
	return major*1000 + minor
}

func leadingDigits(s string) string {
	i := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if i < 0 {
		return s
	}
	return s[:i]
}

// errors of the kinds.
//
// Kernel: net/ipv4/fib_semantics.c, fib_props.
func kindError(k trace.RouteKind) Errno {
	switch k {
	case trace.Blackhole:
		return EINVAL
	case trace.Unreachable:
		return EHOSTUNREACH
	case trace.Prohibit:
		return EACCES
	case trace.ThrowRoute:
		return EAGAIN
	}
	return 0
}

func (f *FIB) addRoutes() error {
	byTable := map[uint32][]entry{}
	for i := range f.cfg.Routes {
		r := &f.cfg.Routes[i]
		a, err := f.newAlias(i, r)
		if err != nil {
			return fmt.Errorf("route %s: %w", f.RouteText(i), err)
		}
		id := r.Table
		if id == TableUnspec {
			id = TableMain
		}
		a.table = id
		byTable[id] = append(byTable[id], entry{prefixOf(r.Dst), a})
		f.classes = f.classes || r.Realms != 0
		f.customLocal = f.customLocal || r.Kind == trace.Local && r.Protocol != ProtoKernel
	}
	if f.cfg.Open {
		byTable[TableMain] = append(byTable[TableMain], openEntry())
	}
	for id := range byTable {
		f.tables[id] = newTable(id, byTable[id])
	}
	f.mergeLocal(byTable)
	f.main, f.def, f.local = f.tables[TableMain], f.tables[TableDefault], f.tables[TableLocal]
	for i := range f.rules {
		f.rules[i].table = f.tables[tableOr(f.rules[i].Table, TableMain)]
	}
	f.resolveGateways()
	return nil
}

// mergeLocal puts local and main into one trie, as the kernel does until a rule
// is changed for the first time: then a longer prefix in main wins over a
// shorter one in local.
//
// Kernel: net/ipv4/fib_frontend.c, fib_new_table, fib_unmerge.
func (f *FIB) mergeLocal(byTable map[uint32][]entry) {
	if !f.merged {
		return
	}
	all := append(slices.Clone(byTable[TableLocal]), byTable[TableMain]...)
	t := newTable(TableMain, all)
	f.tables[TableMain], f.tables[TableLocal] = t, t
}

func tableOr(id, def uint32) uint32 {
	if id == TableUnspec {
		return def
	}
	return id
}

// newAlias makes a route ready. Gateways are resolved later.
func (f *FIB) newAlias(i int, r *Route) (alias, error) {
	a := alias{route: int32(i), tos: r.TOS, kind: r.Kind, scope: r.Scope, dead: r.Dead,
		err: kindError(r.Kind), metric: r.Metric, src: r.Src, bits: uint8(r.Dst.Bits())}
	if !r.Dst.IsValid() {
		return a, fmt.Errorf("no destination")
	}
	if a.kind == trace.Unspec {
		a.kind = trace.Unicast
	}
	if a.err != 0 {
		return a, nil
	}
	if r.NHID != 0 && f.nexthops[r.NHID] != nil {
		return a, f.objectHops(&a, r)
	}
	if len(r.Hops) == 0 {
		return a, fmt.Errorf("nexthop %d does not exist", r.NHID)
	}
	a.object = r.NHID != 0
	for _, h := range r.Hops {
		made, err := f.newHop(&h, a.scope == link.ScopeHost)
		if err != nil {
			return a, err
		}
		if made.realms == 0 {
			made.realms = r.Realms
		}
		made.linkdown = made.linkdown || r.LinkDown && len(r.Hops) == 1
		f.classes = f.classes || made.realms != 0
		a.hops = append(a.hops, made)
	}
	return a, nil
}

// newHop makes one way on. A local route's device is not watched for its carrier.
//
// Kernel: net/ipv4/fib_semantics.c, fib_check_nh_nongw, fib_create_info.
func (f *FIB) newHop(h *Hop, host bool) (hop, error) {
	out := hop{via: h.Via, weight: uint64(max(h.Weight, 1)), realms: h.Realms, dead: h.Dead,
		linkdown: h.LinkDown, scope: link.ScopeHost}
	if host {
		out.scope = link.ScopeNowhere
	}
	if !h.Via.IsZero() {
		out.scope = link.ScopeLink
	}
	l := f.links.ByName(h.Dev)
	switch {
	case l != nil:
		out.dev = l.Index
		out.ignored = l.Conf.IgnoreLinkdown
	case h.Dev != "":
		return out, fmt.Errorf("device %q does not exist", h.Dev)
	case h.Via.IsZero():
		return out, fmt.Errorf("neither gateway nor device")
	}
	if l != nil && !host {
		out.dead = out.dead || !l.Is(link.Up)
		out.linkdown = out.linkdown || !l.Is(link.LowerUp)
	}
	return out, nil
}

// objectHops takes the hops of a nexthop object.
//
// Kernel: net/ipv4/nexthop.c, nh_create_ipv4, nexthop_create_group.
func (f *FIB) objectHops(a *alias, r *Route) error {
	a.object = true
	nh := f.nexthops[r.NHID]
	if nh.FDB {
		return &link.UnsupportedError{What: fmt.Sprintf("nexthop %d fdb", nh.ID),
			Why: "a route cannot use it"}
	}
	if nh.Blackhole {
		a.err = EINVAL
		return nil
	}
	members := nh.Group
	if members == nil {
		members = []Member{{ID: nh.ID, Weight: 1}}
	} else {
		a.group = nh
	}
	for _, m := range members {
		one := f.nexthops[m.ID]
		if one == nil || one.Group != nil {
			return fmt.Errorf("nexthop %d: member %d is not a nexthop", nh.ID, m.ID)
		}
		h, err := f.newHop(&one.Hop, false)
		if err != nil {
			return fmt.Errorf("nexthop %d: %w", m.ID, err)
		}
		h.weight = uint64(max(m.Weight, 1))
		if one.Scope != link.ScopeUniverse {
			h.scope = one.Scope // the dump tells how far away the gateway is
		}
		a.hops = append(a.hops, h)
	}
	return nil
}

// resolveGateways finds, for each gateway, how far away it is and by which
// device, as the kernel does when the route is made. A gateway that no route
// leads to (the snapshot is not whole) counts as on link.
//
// Kernel: net/ipv4/fib_semantics.c, fib_check_nh_v4_gw.
func (f *FIB) resolveGateways() {
	for _, t := range f.tables {
		for i := range t.aliases {
			a := &t.aliases[i]
			for j := range a.hops {
				if h := &a.hops[j]; f.needsLookup(a, j) {
					f.resolve(t, a, h)
				}
			}
		}
	}
	for _, t := range f.tables {
		for i := range t.aliases {
			f.setSources(&t.aliases[i])
		}
	}
}

func (f *FIB) needsLookup(a *alias, j int) bool {
	h := &a.hops[j]
	if !h.via.Is4() {
		return false
	}
	if a.object {
		return h.dev == 0
	}
	return !f.cfg.Routes[a.route].Hops[j].OnLink
}

func (f *FIB) resolve(t *table, a *alias, h *hop) {
	fl := Flow{Dst: h.via, Scope: max(a.scope+1, link.ScopeLink), Out: h.dev,
		In: link.Loopback, Flags: IgnoreLinkState}
	found, err := result{}, EAGAIN
	if a.table != TableMain {
		found, err = t.lookup(&fl)
	}
	if err != 0 {
		found, err = f.lookup(&fl, nil)
	}
	if err != 0 || f.openMiss(&found) || found.a.kind != trace.Unicast && found.a.kind != trace.Local {
		return
	}
	h.scope, h.dev = found.a.scope, found.hop.dev
	if l := f.links.ByIndex(h.dev); l != nil {
		h.ignored = l.Conf.IgnoreLinkdown
	}
}

// setSources computes the address that each way on prefers.
//
// Kernel: net/ipv4/fib_semantics.c, fib_info_update_nhc_saddr.
func (f *FIB) setSources(a *alias) {
	for i := range a.hops {
		h := &a.hops[i]
		scope := a.scope
		if a.object && h.scope > 0 {
			scope = h.scope - 1
		}
		h.saddr = f.links.Select(h.dev, h.via, scope)
	}
}

// prefix is a route's destination without pointers, its length in 128 bits.
type prefix struct {
	addr packet.Addr
	bits int
}

func prefixOf(p netip.Prefix) prefix {
	p = p.Masked()
	n := p.Bits()
	if p.Addr().Is4() {
		n += 96
	}
	return prefix{packet.AddrFrom(p.Addr()), n}
}

func (p prefix) holds(a packet.Addr) bool { return commonBits(p.addr, a) >= p.bits }

// around tells whether p holds q, which is of the same family.
func (p prefix) around(q prefix) bool { return family(p) == family(q) && p.holds(q.addr) }

func (p prefix) netip() netip.Prefix {
	n := p.bits
	if p.addr.Is4() {
		n -= 96
	}
	return netip.PrefixFrom(p.addr.Netip(), n)
}

// commonBits counts the leading bits that two addresses share.
func commonBits(a, b packet.Addr) int {
	for i := range a {
		if x := a[i] ^ b[i]; x != 0 {
			return 8*i + bits.LeadingZeros8(x)
		}
	}
	return 128
}
