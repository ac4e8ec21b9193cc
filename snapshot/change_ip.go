package snapshot

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
)

// changeIP is one command of iproute2.
func (r *reader) changeIP(w *wordList) error {
	w.accept("-4")
	object, verb := w.next(), w.next()
	switch {
	case object != "" && strings.HasPrefix("rule", object) && len(object) > 1:
		return r.changeIPRule(verb, w)
	case object != "" && strings.HasPrefix("route", object):
		return r.changeIPRoute(verb, w)
	case object != "" && strings.HasPrefix("address", object):
		return r.changeIPAddr(verb, w)
	}
	return fmt.Errorf("ip %s is not understood here: %s are", object, understood)
}

// changeIPRule adds or deletes a rule.
//
// Kernel: net/core/fib_rules.c, fib_nl_newrule and fib_nl_delrule.
func (r *reader) changeIPRule(verb string, w *wordList) error {
	c := &r.c.Routes
	if c.Rules == nil {
		c.Rules = route.DefaultRules()
	}
	rule, given, err := r.ruleCommand(w)
	if err != nil {
		return err
	}
	switch verb {
	case "add", "a":
		if !given {
			rule.Priority = freePriority(c.Rules)
		}
		if slices.Contains(c.Rules, rule) {
			return fmt.Errorf("there is such a rule already")
		}
		at := slices.IndexFunc(c.Rules, func(o route.Rule) bool { return o.Priority > rule.Priority })
		if at < 0 {
			at = len(c.Rules)
		}
		c.Rules = slices.Insert(slices.Clone(c.Rules), at, rule)
		return nil
	case "del", "delete", "d":
		return deleteRule(c, rule, given)
	}
	return fmt.Errorf("ip rule %s: only add and del are understood here", verb)
}

// ruleCommand reads a rule as it is typed: its priority stands anywhere.
func (r *reader) ruleCommand(w *wordList) (rule route.Rule, given bool, err error) {
	// The protocol is boot, which ip rule does not print.
	rr := ruleReader{w, &rule, r.tables}
	for !w.empty() {
		switch key := w.next(); key {
		case "priority", "pref", "preference", "order", "prio":
			n, err := w.number(key, 32)
			if err != nil {
				return rule, false, err
			}
			rule.Priority, given = uint32(n), true
		default:
			if err := rr.word(key); err != nil {
				return rule, false, err
			}
		}
	}
	if rule.Action == route.ToTable && rule.Table == 0 && !rule.L3mdev {
		rule.Table = route.TableMain
	}
	return rule, given, nil
}

// freePriority is one less than that of the second rule.
//
// Kernel: net/core/fib_rules.c, fib_default_rule_pref.
func freePriority(rules []route.Rule) uint32 {
	if len(rules) > 1 && rules[1].Priority > 0 {
		return rules[1].Priority - 1
	}
	return 0
}

// deleteRule takes away the first rule that has all that was said; the priority alone is
// enough.
func deleteRule(c *route.Config, want route.Rule, given bool) error {
	bare := route.Rule{Priority: want.Priority, Protocol: want.Protocol, Table: route.TableMain}
	i := slices.IndexFunc(c.Rules, func(o route.Rule) bool {
		if given && o.Priority != want.Priority {
			return false
		}
		if given && want == bare {
			return true
		}
		o.Priority, o.Protocol = want.Priority, want.Protocol
		return o == want
	})
	if i < 0 {
		return fmt.Errorf("there is no such rule")
	}
	c.Rules = slices.Delete(slices.Clone(c.Rules), i, i+1)
	return nil
}

// routeVerbs are what ip route can do to a host.
var routeVerbs = []string{"add", "replace", "change", "append", "prepend", "del", "delete"}

// changeIPRoute adds, replaces or deletes a route.
//
// Kernel: net/ipv4/fib_trie.c, fib_table_insert and fib_table_delete.
func (r *reader) changeIPRoute(verb string, w *wordList) error {
	scoped, tabled := slices.Contains(w.words, "scope"), slices.Contains(w.words, "table")
	if !slices.Contains(routeVerbs, verb) {
		return fmt.Errorf("ip route %s: only %s are understood here", verb,
			strings.Join(routeVerbs, ", "))
	}
	rr := routeReader{names: r.tables}
	rt, err := rr.route(w)
	if err != nil {
		return err
	}
	routeDefaults(&rt, scoped, tabled)
	c := &r.c.Routes
	at := slices.IndexFunc(c.Routes, func(o route.Route) bool { return sameKey(&o, &rt) })
	switch verb {
	case "del", "delete":
		return deleteRoute(c, &rt, slices.Contains(w.words, "metric"))
	case "add":
		if at >= 0 {
			return fmt.Errorf("there is a route to %s with this metric already: replace it", rt.Dst)
		}
	case "change":
		if at < 0 {
			return fmt.Errorf("there is no route to %s to change", rt.Dst)
		}
	}
	if err := r.checkHops(&rt); err != nil {
		return err
	}
	c.Routes = slices.Clone(c.Routes)
	switch {
	case at >= 0 && verb != "append" && verb != "prepend":
		c.Routes[at] = rt
	case at >= 0 && verb == "prepend":
		c.Routes = slices.Insert(c.Routes, at, rt)
	default:
		c.Routes = append(c.Routes, rt)
	}
	return nil
}

// routeDefaults fills in what iproute2 does for a typed route.
//
// iproute2: ip/iproute.c, iproute_modify.
func routeDefaults(rt *route.Route, scoped, tabled bool) {
	near := rt.Kind == trace.BroadcastRoute || rt.Kind == trace.MulticastRoute ||
		rt.Kind == trace.Anycast
	if !tabled && (rt.Kind == trace.Local || rt.Kind == trace.BroadcastRoute ||
		rt.Kind == trace.Anycast) {
		rt.Table = route.TableLocal
	}
	direct := rt.Kind == trace.Unicast && rt.NHID == 0 && !rt.Multipath && len(rt.Hops) > 0 &&
		rt.Hops[0].Via.IsZero()
	switch {
	case scoped:
	case rt.Kind == trace.Local:
		rt.Scope = link.ScopeHost
	case near || direct:
		rt.Scope = link.ScopeLink
	}
}

// sameKey tells whether two routes exclude each other.
func sameKey(a, b *route.Route) bool {
	return a.Table == b.Table && a.Dst == b.Dst && a.TOS == b.TOS && a.Metric == b.Metric
}

// deleteRoute takes away the first route that has all that was said.
func deleteRoute(c *route.Config, want *route.Route, metric bool) error {
	i := slices.IndexFunc(c.Routes, func(o route.Route) bool {
		return o.Table == want.Table && o.Dst == want.Dst && o.TOS == want.TOS &&
			(want.Kind == trace.Unicast || o.Kind == want.Kind) &&
			(!metric || o.Metric == want.Metric) && (want.Src.IsZero() || o.Src == want.Src) &&
			hopsFit(o.Hops, want.Hops)
	})
	if i < 0 {
		return fmt.Errorf("there is no such route")
	}
	c.Routes = slices.Delete(slices.Clone(c.Routes), i, i+1)
	return nil
}

// hopsFit tells whether a route has the ways on that a command names.
func hopsFit(have, want []route.Hop) bool {
	for i, h := range want {
		if i >= len(have) || h.Dev != "" && h.Dev != have[i].Dev ||
			!h.Via.IsZero() && h.Via != have[i].Via {
			return false
		}
	}
	return true
}

// checkHops finds the interface of each gateway, as the kernel does when a route is
// added.
//
// Kernel: net/ipv4/fib_semantics.c, fib_check_nh.
func (r *reader) checkHops(rt *route.Route) error {
	for i := range rt.Hops {
		h := &rt.Hops[i]
		if h.Dev != "" {
			if _, err := r.dev(h.Dev); err != nil {
				return err
			}
		}
		if h.Via.IsZero() || h.OnLink {
			continue
		}
		dev := r.linkOf(h.Via)
		switch {
		case h.Dev == "" && dev == "":
			return fmt.Errorf("gateway %s is on no link", h.Via)
		case h.Dev == "":
			h.Dev = dev
		}
	}
	if len(rt.Hops) == 0 && rt.Kind == trace.Unicast && rt.NHID == 0 {
		return fmt.Errorf("the route has neither via nor dev")
	}
	return nil
}

// linkOf is the interface of the longest direct route to an address; to one of the host's own,
// the interface that has it.
//
// Kernel: net/ipv4/fib_semantics.c, fib_check_nh_v4_gw, which looks the gateway up as any packet.
func (r *reader) linkOf(a packet.Addr) string {
	made := r.addressRoutes()
	for _, kind := range []trace.RouteKind{trace.Local, trace.Unicast} {
		for _, routes := range [][]route.Route{r.c.Routes.Routes, made} {
			if dev := direct(routes, kind, a); dev != "" {
				return dev
			}
		}
	}
	return ""
}

// direct is the interface of the longest route of a kind, without a gateway, to an address.
func direct(routes []route.Route, kind trace.RouteKind, a packet.Addr) string {
	dev, most := "", -1
	for i := range routes {
		o := &routes[i]
		if o.Kind == kind && len(o.Hops) == 1 && o.Hops[0].Via.IsZero() &&
			o.Dst.Contains(a.Netip()) && o.Dst.Bits() > most {
			dev, most = o.Hops[0].Dev, o.Dst.Bits()
		}
	}
	return dev
}

// addressRoutes are the routes that the present addresses bring along.
func (r *reader) addressRoutes() []route.Route {
	links := r.c.Links
	links.Schema = nil
	t, err := link.New(links)
	if err != nil {
		return nil
	}
	return route.AddressRoutes(t)
}

// changeIPAddr adds or deletes an address, with the routes that go with it.
//
// Kernel: net/ipv4/devinet.c, __inet_insert_ifa; net/ipv4/fib_frontend.c, fib_add_ifaddr.
func (r *reader) changeIPAddr(verb string, w *wordList) error {
	a, err := r.addrCommand(w)
	if err != nil {
		return err
	}
	c := &r.c.Links
	same := func(o link.Addr) bool {
		return o.Dev == a.Dev && o.Local == a.Local && o.PrefixLen == a.PrefixLen
	}
	before := r.addressRoutes()
	at := slices.IndexFunc(c.Addrs, same)
	switch {
	case verb == "add" || verb == "replace" || verb == "a":
		if at >= 0 {
			return fmt.Errorf("the interface has this address already")
		}
		a.Secondary = slices.ContainsFunc(c.Addrs, func(o link.Addr) bool {
			return !o.Secondary && o.Dev == a.Dev && o.PrefixLen == a.PrefixLen && o.Holds(a.Local)
		})
		c.Addrs = append(slices.Clone(c.Addrs), a)
	case verb != "del" && verb != "delete" && verb != "d":
		return fmt.Errorf("ip addr %s: only add and del are understood here", verb)
	case at < 0:
		return fmt.Errorf("the interface has no such address")
	default:
		gone := c.Addrs[at]
		r.removeAddr(at)
		defer r.withoutAddr(gone)
	}
	r.followAddrs(before)
	return nil
}

// removeAddr takes an address away, and the secondary ones of its network with it unless
// they are promoted.
//
// Kernel: net/ipv4/devinet.c, __inet_del_ifa.
func (r *reader) removeAddr(at int) {
	c := &r.c.Links
	gone := c.Addrs[at]
	sysctl := func(dev string) bool {
		return r.c.Sysctl.Int("net.ipv4.conf."+dev+".promote_secondaries", 0) != 0
	}
	promote := sysctl("all") || sysctl(strings.ReplaceAll(r.nameOf(gone.Dev), ".", "/"))
	c.Addrs = slices.Delete(slices.Clone(c.Addrs), at, at+1)
	if gone.Secondary {
		return
	}
	inNet := func(o link.Addr) bool {
		return o.Secondary && o.Dev == gone.Dev && o.PrefixLen == gone.PrefixLen && gone.Holds(o.Local)
	}
	if !promote {
		c.Addrs = slices.DeleteFunc(c.Addrs, inNet)
	} else if i := slices.IndexFunc(c.Addrs, inNet); i >= 0 {
		c.Addrs[i].Secondary = false
	}
}

// withoutAddr takes the routes away that need an address that is gone: those with it as
// their source, and with an interface's last one all that lead there.
//
// Kernel: net/ipv4/fib_frontend.c, fib_del_ifaddr, fib_inetaddr_event, fib_disable_ip.
func (r *reader) withoutAddr(gone link.Addr) {
	left := func(same func(link.Addr) bool) bool { return slices.ContainsFunc(r.c.Links.Addrs, same) }
	sourceGone := !left(func(o link.Addr) bool { return o.Local == gone.Local })
	last := !left(func(o link.Addr) bool { return o.Dev == gone.Dev && o.Local.Is4() })
	dev := r.nameOf(gone.Dev)
	r.c.Routes.Routes = slices.DeleteFunc(slices.Clone(r.c.Routes.Routes), func(o route.Route) bool {
		return sourceGone && !o.Src.IsZero() && o.Src == gone.Local ||
			last && len(o.Hops) == 1 && o.Hops[0].Dev == dev
	})
	if last {
		r.c.Links.Neighs = slices.DeleteFunc(slices.Clone(r.c.Links.Neighs),
			func(n link.Neigh) bool { return n.Dev == gone.Dev && n.Addr.Is4() })
	}
}

// nameOf is the name of an interface.
func (r *reader) nameOf(dev packet.Dev) string {
	for i := range r.c.Links.Links {
		if l := &r.c.Links.Links[i]; l.Index == dev {
			return l.Name
		}
	}
	return ""
}

// addrCommand reads an address as it is typed.
func (r *reader) addrCommand(w *wordList) (link.Addr, error) {
	i := slices.Index(w.words, "dev")
	if i < 0 || i+1 >= len(w.words) {
		return link.Addr{}, fmt.Errorf("dev INTERFACE is missing")
	}
	dev, err := r.dev(w.words[i+1])
	if err != nil {
		return link.Addr{}, err
	}
	w.words = slices.Delete(slices.Clone(w.words), i, i+2)
	if i := slices.Index(w.words, "label"); i >= 0 {
		w.words = slices.Delete(w.words, i, i+1)
	}
	if i := slices.Index(w.words, "broadcast"); i >= 0 {
		w.words[i] = "brd"
	}
	if i := slices.Index(w.words, "brd"); i >= 0 && i+1 < len(w.words) && w.words[i+1] == "+" {
		if p, ok := parsePrefix(w.words[0]); ok {
			w.words[i+1] = lastAddr(p).String()
		}
	}
	if len(w.words) > 0 && strings.HasPrefix(w.words[0], "127.") && !slices.Contains(w.words, "scope") {
		w.words = append(w.words, "scope", "host") // as iproute2 does
	}
	return addrText(w, dev)
}

func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

// followAddrs gives the routes what addresses brought along or took away. A local table
// that is not in the snapshot is made from the addresses later.
func (r *reader) followAddrs(before []route.Route) {
	c := &r.c.Routes
	local := slices.ContainsFunc(c.Routes, isLocal)
	main := local || slices.ContainsFunc(c.Routes, func(o route.Route) bool { return !isLocal(o) })
	after := r.addressRoutes()
	has := func(list []route.Route, o route.Route) bool {
		return slices.ContainsFunc(list, func(x route.Route) bool { return reflect.DeepEqual(x, o) })
	}
	kept := func(o route.Route) bool { return isLocal(o) && local || !isLocal(o) && main }
	c.Routes = slices.Clone(c.Routes)
	for _, o := range after {
		if kept(o) && !has(before, o) {
			c.Routes = append(c.Routes, o)
		}
	}
	for _, o := range before {
		if !has(after, o) {
			c.Routes = slices.DeleteFunc(c.Routes, func(x route.Route) bool {
				return sameKey(&x, &o) && x.Kind == o.Kind && hopsFit(x.Hops, o.Hops)
			})
		}
	}
}

func isLocal(o route.Route) bool { return o.Table == route.TableLocal }
