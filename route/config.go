// Package route decides where an IPv4 packet goes: ip rules, tables, the longest
// prefix, multipath, the choice of a source address, and whether the source is
// believed. It stands behind PREROUTING and before OUTPUT.
//
// Kernel: net/ipv4/route.c, fib_trie.c, fib_frontend.c, fib_rules.c; net/core/fib_rules.c.
package route

import (
	"net/netip"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Numbers of the tables that every host has.
//
// Kernel: include/uapi/linux/rtnetlink.h, RT_TABLE_*.
const (
	TableUnspec  uint32 = 0
	TableDefault uint32 = 253
	TableMain    uint32 = 254
	TableLocal   uint32 = 255
)

// ProtoKernel is the protocol of the routes that addresses bring along.
const ProtoKernel uint8 = 2

// Action is what an ip rule does.
//
// Kernel: include/uapi/linux/fib_rules.h, FR_ACT_*.
type Action uint8

// The actions.
const (
	ToTable Action = iota
	Goto
	Nop
	BlackholeAction
	UnreachableAction
	ProhibitAction
)

// Opt is a number that may be absent. The zero Opt is absent.
type Opt struct {
	N   uint32
	Set bool
}

// Some returns a present number.
func Some(n uint32) Opt { return Opt{n, true} }

// Ports are a range of ports, or a value and mask where Mask is not zero. The
// zero Ports selects everything.
type Ports struct{ Lo, Hi, Mask uint16 }

// IsZero tells whether nothing is asked of the port.
func (p Ports) IsZero() bool { return p == Ports{} }

// UIDs are a range of user ids. The zero UIDs selects everything.
type UIDs struct {
	Lo, Hi uint32
	Set    bool
}

// Rule is an ip rule. The zero Rule sends everything to the main table; an
// invalid prefix selects everything.
//
// Kernel: include/net/fib_rules.h, struct fib_rule.
type Rule struct {
	Priority        uint32
	Not             bool
	Src, Dst        netip.Prefix
	In, Out         string
	InGone, OutGone bool // the interface did not exist, as `[detached]` says
	Mark, MarkMask  uint32
	TOS             uint8
	DSCP            Opt // the newer selector of all six bits
	DSCPMask        uint8
	Proto           uint8
	SPort, DPort    Ports
	UID             UIDs
	L3mdev          bool
	Action          Action
	Table           uint32
	Goto            uint32
	Unresolved      bool // a goto whose target is not there
	SuppressPrefix  Opt
	SuppressGroup   Opt
	Realms          uint32 // from<<16 | to
	Protocol        uint8  // who made it
}

// Hop is one way on of a route. A zero Via is on link.
//
// Kernel: include/net/ip_fib.h, struct fib_nh.
type Hop struct {
	Via                      packet.Addr
	Dev                      string
	Weight                   int // zero counts as 1
	Realms                   uint32
	OnLink, Dead, LinkDown   bool
	Pervasive, Offload, Trap bool // printed only
}

// Metric is a metric of a route, as iproute2 names it.
type Metric struct {
	Name  string
	Lock  bool
	Value string
}

// Route is a route as `ip route` shows it.
//
// Kernel: net/ipv4/fib_lookup.h, struct fib_alias; include/net/ip_fib.h, struct fib_info.
type Route struct {
	Dst       netip.Prefix // always valid: default is 0.0.0.0/0
	TOS       uint8
	Kind      trace.RouteKind
	Table     uint32
	Protocol  uint8
	Scope     link.Scope
	Metric    uint32
	Src       packet.Addr
	Realms    uint32
	Hops      []Hop
	Multipath bool // written with nexthop, even where there is only one
	NHID      uint32
	MTU       uint32
	MTULock   bool
	Metrics   []Metric // all metrics but mtu, in the order of printing
	Dead      bool
	LinkDown  bool
	Notify    bool
}

// Nexthop is a nexthop object, `ip nexthop`.
//
// Kernel: net/ipv4/nexthop.c, struct nexthop.
type Nexthop struct {
	ID        uint32
	Hop       Hop
	Blackhole bool
	FDB       bool
	Group     []Member
	Resilient bool
	// Buckets counts, for each member of a resilient group, the buckets that it
	// has; nil where they are not known.
	Buckets  []uint64
	Scope    link.Scope
	Protocol uint8
}

// Member is a member of a group of nexthops.
type Member struct {
	ID     uint32
	Weight int // zero counts as 1
}

// Config is what a FIB is made of. Nil Rules are the kernel's three; nil Routes
// come from the addresses, and with Open what they do not know is open.
type Config struct {
	Rules    []Rule
	Routes   []Route
	Nexthops []Nexthop
	Links    *link.Table
	Sysctl   link.Sysctl
	Kernel   string // 6.18.1; empty is 6.18
	Open     bool
	Names    *Names        // nil are iproute2's defaults
	Schema   *world.Schema // for what ICMP errors tell; nil remembers nothing
}
