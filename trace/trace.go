// Package trace is the record of what happened to a packet: typed events that
// hold references and numbers, no text. Rooms write it while they decide; reports
// read it with the host at hand. A nil *Trace records nothing and costs nothing.
package trace

import (
	"reflect"
	"slices"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// Trace is the record of one walk.
type Trace struct {
	Events   []Event
	Outcomes []Outcome
	// Skips asks for Skip events: rules that did not match.
	Skips bool
	// Deps are the bits that the answer hung on.
	Deps field.Deps
	// Masq is what MASQUERADE chose last, until the NAT event that tells it.
	Masq *SourceChoice
	// Tried and Rules count the rules that were asked and that matched.
	Tried, Matched int
}

// Event is one step. Its concrete types are the structs of this package.
type Event interface{ Base() *Head }

// Head is in every event.
type Head struct {
	SKB int
	// Packet is the packet after an event that changed it.
	Packet *Snap
}

// Base implements Event.
func (h *Head) Base() *Head { return h }

// Snap is what is said of a packet after an event.
type Snap struct {
	Src, Dst     packet.Addr
	Proto        uint8
	SPort, DPort uint16
	HasPorts     bool
	Free         packet.Free
	Mark         uint32
	TTL          uint8
	In, Out      packet.Dev
}

// SnapOf takes a snapshot of a packet.
func SnapOf(p *packet.Packet) *Snap {
	s := &Snap{Src: p.Src(), Dst: p.Dst(), Proto: p.Protocol(), Free: p.Free, Mark: p.Mark,
		TTL: p.TTL(), In: p.In, Out: p.Out}
	s.SPort, s.DPort, s.HasPorts = p.Ports()
	return s
}

// On tells whether anything is recorded.
func (t *Trace) On() bool { return t != nil }

// Add records an event of a packet. Call it only where On holds, so that nothing
// is built for nobody.
func (t *Trace) Add(p *packet.Packet, e Event) {
	e.Base().SKB = p.SKB
	t.Events = append(t.Events, e)
}

// Changed records an event after which the packet looks different.
func (t *Trace) Changed(p *packet.Packet, e Event) {
	e.Base().Packet = SnapOf(p)
	t.Add(p, e)
}

// Alike tells whether two walks took the same way: the same events and outcomes, apart
// from what the dice were asked.
func (t *Trace) Alike(o *Trace) bool {
	if len(t.Outcomes) != len(o.Outcomes) || !reflect.DeepEqual(t.Outcomes, o.Outcomes) {
		return false
	}
	return slices.EqualFunc(withoutChoices(t.Events), withoutChoices(o.Events),
		func(a, b Event) bool { return reflect.DeepEqual(a, b) })
}

func withoutChoices(events []Event) []Event {
	var out []Event
	for _, e := range events {
		if _, ok := e.(*Choice); !ok {
			out = append(out, e)
		}
	}
	return out
}

// Notes returns where depends-on bits are noted, nil for a nil trace.
func (t *Trace) Notes() *field.Deps {
	if t == nil {
		return nil
	}
	return &t.Deps
}

// Family is the family of a hook or table.
type Family uint8

// The families.
const (
	IPv4 Family = iota
	IPv6
	Bridge
	ARP
)

// String returns the word that the trace's JSON uses: ip, ip6, bridge, arp.
func (f Family) String() string { return [...]string{"ip", "ip6", "bridge", "arp"}[f] }

// Hook is a netfilter hook.
//
// Kernel: include/uapi/linux/netfilter.h, nf_inet_hooks.
type Hook uint8

// The hooks of IPv4, IPv6 and bridges.
const (
	Prerouting Hook = iota
	Input
	Forward
	Output
	Postrouting
	Brouting
)

// String returns the name of the built-in chain.
func (h Hook) String() string {
	return [...]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING", "BROUTING"}[h]
}

// Verdict is what a rule or a chain decided.
type Verdict uint8

// The verdicts.
const (
	Continue Verdict = iota // the next rule
	Accept
	DropIt
	Queue
	Stolen
	Return
	Jump
	Goto
)

// String returns the word that the trace's JSON uses; Jump and Goto are followed
// by the chain there.
func (v Verdict) String() string {
	return [...]string{"CONTINUE", "ACCEPT", "DROP", "QUEUE", "STOLEN", "RETURN", "JUMP",
		"GOTO"}[v]
}

// RuleRef points at a rule of the host: Rule is 1-based in its chain, zero for the
// chain's policy or end. Table and chain are numbers of the host's rules.
type RuleRef struct {
	Table, Chain, Rule int
}

// Reason is the kernel's name of why it dropped a packet: SKB_DROP_REASON_ without
// the prefix.
type Reason string

// Why is our own closed list of why a packet was dropped.
type Why string

// Events. Devices, tables, chains and rules are numbers of the host.
type (
	// Receive is a frame that a device got.
	Receive struct {
		Head
		Dev    packet.Dev
		Frame  []byte
		Parent int // of a copy, a decapsulated packet
	}
	// Transmit is a frame that a device sent.
	Transmit struct {
		Head
		Dev    packet.Dev
		Frame  []byte
		Parent int // of an ARP frame: the packet that it answers or asks for
	}
	// LocalOut is an IP packet that this host built.
	LocalOut struct {
		Head
		Frame  []byte
		Parent int // what it answers, zero for none
	}
	// Deliver is an IP packet that passed INPUT.
	Deliver struct {
		Head
		Dev    packet.Dev
		Frame  []byte
		Socket uint32
	}
	// HookRun is a packet's arrival at one stage of a hook.
	HookRun struct {
		Head
		Family          Family
		Hook            Hook
		Priority        int
		Name            string // a stage's name: raw, conntrack, mangle ...
		In, Out         packet.Dev
		PhysIn, PhysOut packet.Dev
	}
	// Rule is a rule that matched.
	Rule struct {
		Head
		Ref     RuleRef
		Verdict Verdict
		Chain   int // target of Jump and Goto
	}
	// Skip is a rule that did not match, with the first test that failed.
	Skip struct {
		Head
		Ref    RuleRef
		Failed *field.Pred
		// Match is the index of the rule's -m whose test failed, -1 for one of the rule
		// itself (-s, -i ...). Unsure says that the test changes memory and was not asked
		// again: a later one may have failed instead.
		Match  int
		Unsure bool
	}
	// ChainEnd is the end of a user chain (Policy false) or of a base chain.
	ChainEnd struct {
		Head
		Ref     RuleRef
		Policy  bool
		Verdict Verdict
	}
	// Conntrack is what connection tracking said of a packet.
	Conntrack struct {
		Head
		State     CTState
		Orig      Tuple
		Reply     Tuple
		SNAT      bool
		DNAT      bool
		Confirmed bool
		Flow      packet.FlowID
	}
	// NAT is a translation of a packet's bytes.
	NAT struct {
		Head
		Dst      bool // the destination was translated
		From, To Endpoint
		Source   *SourceChoice // of MASQUERADE
	}
	// IPVS is what the load balancer did with a packet: of a client, or a server's answer
	// (Back).
	IPVS struct {
		Head
		Service       int // number of the service, -1 where the packet's is not known
		Index         int // of the real server in the service, -1 for none
		Method        uint8
		Client        Endpoint
		Virtual, Real Endpoint
		State         string // the connection's, behind the packet
		New, Back     bool
	}
	// Encap is a packet that was put into another one.
	Encap struct {
		Head
		Method string // ipip, gue, gre
		From   packet.Addr
		To     packet.Addr
	}
	// Decap is a packet that was taken out of another one, by a tunnel's device.
	Decap struct {
		Head
		Method string
		Dev    packet.Dev
	}
	// Route is a routing decision.
	Route struct {
		Head
		Tried   []RuleTry
		Rule    int // index of the rule that decided, -1 for none
		Table   uint32
		Index   int // index of the route in the host's list, -1 for none
		Kind    RouteKind
		Nexthop packet.Addr
		Out     packet.Dev
		Source  packet.Addr
		Check   *SourceCheck // on input
	}
	// Choice is an answer of the dice.
	Choice struct {
		Head
		world.Taken
	}
	// Neigh is the resolution of a next hop.
	Neigh struct {
		Head
		Dev   packet.Dev
		Addr  packet.Addr
		MAC   packet.MAC
		Found bool
	}
	// Reassemble is a packet made whole from fragments; Fragment its cutting.
	Reassemble struct {
		Head
		Fragments int
	}
	// Fragment is a packet that was cut for its way out.
	Fragment struct {
		Head
		MTU, Pieces int
	}
	// Drop is a packet's end.
	Drop struct {
		Head
		Reason Reason
		Why    Why
		By     *RuleRef
	}
)

// CTState is the word for a packet's relation to its connection.
type CTState uint8

// The states.
const (
	StateInvalid CTState = iota
	StateNew
	StateEstablished
	StateRelated
	StateUntracked
)

// String returns the word that the trace's JSON uses.
func (s CTState) String() string {
	return [...]string{"INVALID", "NEW", "ESTABLISHED", "RELATED", "UNTRACKED"}[s]
}

// Tuple is one direction of a connection. For ICMP the ports hold the id (SPort)
// and type and code (DPort: type<<8|code).
type Tuple struct {
	Src, Dst     packet.Addr
	SPort, DPort uint16
	Proto        uint8
	Free         packet.Free
}

// Endpoint is an address with a port; zero port for none.
type Endpoint struct {
	Addr packet.Addr
	Port uint16
	Free bool
}

// SourceChoice says which address MASQUERADE took and why.
type SourceChoice struct {
	Addr   packet.Addr
	Dev    packet.Dev
	Step   SourceStep
	Passed []PassedOver
}

// SourceStep is a step of inet_select_addr.
type SourceStep uint8

// The steps.
const (
	StepPrefix SourceStep = iota // a primary address whose prefix holds the next hop
	StepFirst                    // the device's first primary address of wide enough scope
	StepMaster                   // an address of the VRF, or of lo
	StepAny                      // another interface's, in order
	StepNone
	StepOpen // the snapshot has no addresses: an assumed one
)

// PassedOver is an address that was not taken.
type PassedOver struct {
	Addr packet.Addr
	Dev  packet.Dev
	Why  string // one of a closed list: "secondary", "scope host", "scope link", "later in the list"
}

// RuleTry is an ip rule that was consulted before the one that decided.
type RuleTry struct {
	Rule int // index in the host's list
	Why  RuleWhy
}

// RuleWhy says why the lookup went on behind a rule.
type RuleWhy uint8

// The reasons.
const (
	NoMatch RuleWhy = iota
	NoRoute
	Throw
	Suppressed
	Went // a goto
	Nop
)

// String returns the words that reports use.
func (w RuleWhy) String() string {
	return [...]string{"selector does not match", "no route in the table", "throw", "suppressed",
		"goto", "nop"}[w]
}

// RouteKind is the type of a route.
//
// Kernel: include/uapi/linux/rtnetlink.h, RTN_*.
type RouteKind uint8

// The kinds, with the kernel's numbers.
const (
	Unspec RouteKind = iota
	Unicast
	Local
	BroadcastRoute
	Anycast
	MulticastRoute
	Blackhole
	Unreachable
	Prohibit
	ThrowRoute
)

// String returns iproute2's word.
func (k RouteKind) String() string {
	return [...]string{"unspec", "unicast", "local", "broadcast", "anycast", "multicast",
		"blackhole", "unreachable", "prohibit", "throw"}[k]
}

// SourceCheck is the result of fib_validate_source.
type SourceCheck struct {
	OK     bool
	Why    Why        // empty when OK
	Dev    packet.Dev // the device that the way back would take
	Filter int        // effective rp_filter
	Table  uint32
	Index  int // index of the route back, -1 for none
}

// Result is how a packet ended.
type Result uint8

// The results.
const (
	Transmitted Result = iota
	Delivered
	Dropped
	Rejected
	Absorbed
)

// String returns the word that the trace's JSON uses.
func (r Result) String() string {
	return [...]string{"transmitted", "delivered", "dropped", "rejected", "absorbed"}[r]
}

// Made tells which packet begins with an event that was made of another one (a tunnel's, a
// copy, an answer): both numbers, zero where none was.
func Made(e Event) (skb, of int) {
	switch e := e.(type) {
	case *LocalOut:
		skb, of = e.SKB, e.Parent
	case *Receive:
		skb, of = e.SKB, e.Parent
	}
	if of == 0 {
		return 0, 0
	}
	return skb, of
}

// WentOn tells whether the packet did not end: it went into a tunnel or came out of one, and
// goes on as another packet.
func (o *Outcome) WentOn() bool { return o.Why == "encapsulated" || o.Why == "decapsulated" }

// Outcome is how one packet of the walk ended.
type Outcome struct {
	Result Result
	SKB    int
	Dev    packet.Dev
	Frame  []byte
	Free   packet.Free
	Socket uint32
	Reason Reason
	Why    Why
	By     *RuleRef
}
