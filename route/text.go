package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// Rules are the rules in the order in which they are asked.
func (f *FIB) Rules() int { return len(f.rules) }

// Rule returns a rule by its place.
func (f *FIB) Rule(i int) Rule { return f.rules[i].Rule }

// Routes counts the routes, those that were made from addresses too.
func (f *FIB) Routes() int { return len(f.cfg.Routes) }

// Route returns a route by its index.
func (f *FIB) Route(i int) Route { return f.cfg.Routes[i] }

// TableName is a table's name, its number where it has none.
func (f *FIB) TableName(id uint32) string { return f.cfg.Names.Table(id) }

// RuleText is a rule as `ip rule` prints it behind the priority.
func (f *FIB) RuleText(i int) string {
	if i < 0 || i >= len(f.rules) {
		return ""
	}
	return f.rules[i].Text(f.cfg.Names)
}

// RouteText is a route as `ip route show table all` prints it, in one line.
func (f *FIB) RouteText(i int) string {
	if i < 0 || i >= len(f.cfg.Routes) {
		return ""
	}
	return f.cfg.Routes[i].Text(f.cfg.Names)
}

// words is a line in the making.
type words []string

func (w *words) add(s ...string) { *w = append(*w, s...) }

func (w *words) addf(ok bool, format string, args ...any) {
	if ok {
		*w = append(*w, fmt.Sprintf(format, args...))
	}
}

// Text is the rule as `ip rule` prints it behind the priority.
//
// iproute2: ip/iprule.c, print_rule.
func (r *Rule) Text(n *Names) string {
	var w words
	w.addf(r.Not, "not")
	w.add("from", prefixText(r.Src, "all"))
	if r.Dst.IsValid() {
		w.add("to", prefixText(r.Dst, "0/0"))
	}
	w.addf(r.TOS != 0, "tos %s", tosText(r.TOS))
	w.addf(r.MarkMask == 0xffffffff, "fwmark 0x%x", r.Mark)
	w.addf(r.MarkMask != 0 && r.MarkMask != 0xffffffff, "fwmark 0x%x/0x%x", r.Mark, r.MarkMask)
	w.addf(r.In != "", "iif %s", r.In)
	w.addf(r.InGone, "[detached]")
	w.addf(r.Out != "", "oif %s", r.Out)
	w.addf(r.OutGone, "[detached]")
	w.addf(r.L3mdev, "lookup [l3mdev-table]")
	w.addf(r.UID.Set, "uidrange %d-%d", r.UID.Lo, r.UID.Hi)
	w.addf(r.Proto != 0, "ipproto %s", ProtoName(r.Proto))
	w.addf(!r.SPort.IsZero(), "sport %s", r.SPort)
	w.addf(!r.DPort.IsZero(), "dport %s", r.DPort)
	w.addf(r.DSCP.Set && r.DSCPMask == 0, "dscp %d", r.DSCP.N)
	w.addf(r.DSCP.Set && r.DSCPMask != 0, "dscp 0x%02x/0x%02x", r.DSCP.N, r.DSCPMask)
	r.actionText(&w, n)
	return strings.Join(w, " ")
}

func (r *Rule) actionText(w *words, n *Names) {
	if r.Action == ToTable && !r.L3mdev {
		w.add("lookup", n.Table(tableOr(r.Table, TableMain)))
		w.addf(r.SuppressPrefix.Set, "suppress_prefixlength %d", r.SuppressPrefix.N)
		w.addf(r.SuppressGroup.Set, "suppress_ifgroup %s", groupText(r.SuppressGroup.N))
	}
	w.addf(r.Realms != 0, "%s", realmText(r.Realms, n, true))
	switch r.Action {
	case Goto:
		w.addf(true, "goto %d", r.Goto)
		w.addf(r.Unresolved, "[unresolved]")
	case Nop:
		w.add("nop")
	case BlackholeAction:
		w.add("blackhole")
	case UnreachableAction:
		w.add("unreachable")
	case ProhibitAction:
		w.add("prohibit")
	}
	w.addf(r.Protocol != 0 && r.Protocol != ProtoKernel, "proto %s", n.Proto(r.Protocol))
}

func groupText(id uint32) string {
	if id == 0 {
		return "default"
	}
	return strconv.FormatUint(uint64(id), 10)
}

// String is the range as ip rule prints it.
func (p Ports) String() string {
	switch {
	case p.Mask != 0 && p.Mask != 0xffff:
		return fmt.Sprintf("0x%x/0x%x", p.Lo, p.Mask)
	case p.Hi <= p.Lo:
		return strconv.Itoa(int(p.Lo))
	}
	return fmt.Sprintf("%d-%d", p.Lo, p.Hi)
}

// protocolNames are the protocols that iproute2 names by itself or by
// /etc/protocols.
var protocolNames = map[uint8]string{packet.ICMP: "icmp", packet.IGMP: "igmp", packet.TCP: "tcp",
	packet.UDP: "udp", packet.DCCP: "dccp", packet.ESP: "esp", packet.AH: "ah",
	packet.GRE: "gre", packet.SCTP: "sctp", packet.UDPLite: "udplite", packet.IPIP: "ipencap",
	packet.ICMPv6: "ipv6-icmp"}

// ProtoName is the name of a transport protocol, "ipproto-N" where it has none.
func ProtoName(p uint8) string {
	if s, ok := protocolNames[p]; ok {
		return s
	}
	return fmt.Sprintf("ipproto-%d", p)
}

// ProtoNumber finds a transport protocol by its name or number.
func ProtoNumber(s string) (uint8, bool) {
	for p, name := range protocolNames {
		if name == s {
			return p, true
		}
	}
	if s == "ipip" || s == "ipv4" {
		return packet.IPIP, true
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "ipproto-"), 0, 8)
	return uint8(n), err == nil
}

// tosNames is iproute2's etc/iproute2/rt_dsfield.
var tosNames = map[uint8]string{0x28: "AF11", 0x30: "AF12", 0x38: "AF13", 0x48: "AF21",
	0x50: "AF22", 0x58: "AF23", 0x68: "AF31", 0x70: "AF32", 0x78: "AF33", 0x88: "AF41",
	0x90: "AF42", 0x98: "AF43", 0x20: "CS1", 0x40: "CS2", 0x60: "CS3", 0x80: "CS4", 0xa0: "CS5",
	0xc0: "CS6", 0xe0: "CS7", 0xb8: "EF"}

func tosText(t uint8) string {
	if s, ok := tosNames[t]; ok {
		return s
	}
	return fmt.Sprintf("0x%02x", t)
}

// ParseTOS reads an octet as iproute2 writes it: a name or a hex number.
func ParseTOS(s string) (uint8, bool) {
	for t, name := range tosNames {
		if name == s {
			return t, true
		}
	}
	if s == "default" {
		return 0, true
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), 16, 8)
	return uint8(n), err == nil
}

// realmText is iproute2's print of realms; a rule always prints "realms" with
// the word that fits.
func realmText(r uint32, n *Names, rule bool) string {
	from, to := r>>16, r&0xffff
	switch {
	case from != 0:
		return fmt.Sprintf("realms %s/%s", n.Realm(from), n.Realm(to))
	case rule:
		return "realms " + n.Realm(to)
	}
	return "realm " + n.Realm(to)
}

// prefixText prints a prefix without the length of a host, and all for none.
func prefixText(p netip.Prefix, all string) string {
	switch {
	case !p.IsValid() || p.Bits() == 0:
		return all
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

// Text is the route as `ip route show table all` prints it, in one line.
//
// iproute2: ip/iproute.c, print_route.
func (r *Route) Text(n *Names) string {
	var w words
	if r.Kind != trace.Unicast && r.Kind != trace.Unspec {
		w.add(r.Kind.String())
	}
	w.add(prefixText(r.Dst, "default"))
	w.addf(r.NHID != 0, "nhid %d", r.NHID)
	w.addf(r.TOS != 0, "tos %s", tosText(r.TOS))
	single := !r.Multipath && len(r.Hops) == 1
	if single {
		r.Hops[0].viaText(&w)
		w.addf(r.Hops[0].Dev != "", "dev %s", r.Hops[0].Dev)
	}
	w.addf(r.Table != TableMain && r.Table != 0, "table %s", n.Table(r.Table))
	w.addf(r.Protocol != 3, "proto %s", n.Proto(r.Protocol))
	w.addf(r.Scope != 0, "scope %s", r.Scope)
	w.addf(!r.Src.IsZero(), "src %s", r.Src)
	w.addf(r.Metric != 0, "metric %d", r.Metric)
	r.flagText(&w, single)
	w.addf(r.Realms != 0, "%s", realmText(r.Realms, n, false))
	r.metricText(&w)
	if !single {
		for i := range r.Hops {
			r.Hops[i].text(&w, n)
		}
	}
	return strings.Join(w, " ")
}

func (h *Hop) viaText(w *words) {
	switch {
	case h.Via.IsZero():
	case h.Via.Is4():
		w.add("via", h.Via.String())
	default:
		w.add("via inet6", h.Via.String())
	}
}

// text prints a hop of several.
func (h *Hop) text(w *words, n *Names) {
	w.add("nexthop")
	h.viaText(w)
	w.addf(h.Realms != 0, "%s", realmText(h.Realms, n, false))
	w.addf(h.Dev != "", "dev %s", h.Dev)
	w.addf(true, "weight %d", max(h.Weight, 1))
	h.flagText(w)
}

func (h *Hop) flagText(w *words) {
	w.addf(h.Dead, "dead")
	w.addf(h.OnLink, "onlink")
	w.addf(h.Pervasive, "pervasive")
	w.addf(h.Offload, "offload")
	w.addf(h.Trap, "trap")
	w.addf(h.LinkDown, "linkdown")
}

func (r *Route) flagText(w *words, single bool) {
	h := Hop{Dead: r.Dead, LinkDown: r.LinkDown}
	if single {
		h = r.Hops[0]
		h.Dead, h.LinkDown = h.Dead || r.Dead, h.LinkDown || r.LinkDown
	}
	h.flagText(w)
}

// metricOrder is the order in which the kernel numbers metrics.
var metricOrder = []string{"mtu", "window", "rtt", "rttvar", "ssthresh", "cwnd", "advmss",
	"reordering", "hoplimit", "initcwnd", "features", "rto_min", "initrwnd", "quickack", "congctl",
	"fastopen_no_cookie"}

// MetricNames are the metrics that a route can have, in the order of printing.
func MetricNames() []string { return slices.Clone(metricOrder) }

func (r *Route) metricText(w *words) {
	ms := slices.Clone(r.Metrics)
	if r.MTU != 0 || r.MTULock {
		m := Metric{Name: "mtu", Lock: r.MTULock, Value: strconv.FormatUint(uint64(r.MTU), 10)}
		ms = append([]Metric{m}, ms...)
	}
	slices.SortStableFunc(ms, func(a, b Metric) int {
		return slices.Index(metricOrder, a.Name) - slices.Index(metricOrder, b.Name)
	})
	for _, m := range ms {
		w.add(m.Name)
		w.addf(m.Lock, "lock")
		w.add(m.Value)
	}
}
