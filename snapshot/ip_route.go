package snapshot

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
)

// routeKinds are the types that begin a line of `ip route`.
var routeKinds = map[string]trace.RouteKind{"unicast": trace.Unicast, "local": trace.Local,
	"broadcast": trace.BroadcastRoute, "anycast": trace.Anycast,
	"multicast": trace.MulticastRoute, "blackhole": trace.Blackhole,
	"unreachable": trace.Unreachable, "prohibit": trace.Prohibit, "throw": trace.ThrowRoute}

// parseIPRoute reads `ip -d -o route show table all`, the text of `ip route` in
// any form, or its JSON. v6 tells the family of a default route that does not
// show it.
func parseIPRoute(file string, data []byte, names *route.Names, v6 bool) ([]route.Route, error) {
	r := routeReader{names: names, v6: v6, routes: []route.Route{}}
	if isJSON(data) {
		return r.json(file, data)
	}
	if err := textLines(file, data, r.line); err != nil {
		return nil, err
	}
	return r.routes, nil
}

type routeReader struct {
	names  *route.Names
	v6     bool
	routes []route.Route
}

// line reads a route, or an indented line that goes on with the one before.
func (r *routeReader) line(p place, line string) error {
	w := &wordList{p, strings.Fields(line)}
	if !indented(line) {
		rt, err := r.route(w)
		r.routes = append(r.routes, rt)
		return err
	}
	if len(r.routes) == 0 {
		return p.errorf("%q stands before the first route", w.peek())
	}
	switch w.peek() {
	case "nh_info", "cache": // the nexthop is in ip-nexthop.json
		return nil
	case "nexthop":
		return r.words(w, &r.routes[len(r.routes)-1])
	}
	return p.errorf("%q is not a nexthop", w.peek())
}

func (r *routeReader) route(w *wordList) (route.Route, error) {
	rt := route.Route{Kind: trace.Unicast, Table: route.TableMain, Protocol: 3}
	if k, ok := routeKinds[w.peek()]; ok {
		rt.Kind = k
		w.next()
	} else if w.peek() == "nat" || w.peek() == "xresolve" {
		return rt, w.unsupported("route type "+w.peek(), "")
	}
	if err := r.destination(w, &rt, w.next()); err != nil {
		return rt, err
	}
	rt.Hops = []route.Hop{{}}
	if err := r.words(w, &rt); err != nil {
		return rt, err
	}
	r.finish(&rt)
	return rt, nil
}

func (r *routeReader) destination(w *wordList, rt *route.Route, s string) error {
	if s == "default" || s == "0/0" || s == "::/0" {
		rt.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.v6 || s == "::/0" {
			rt.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		return nil
	}
	p, ok := parsePrefix(s)
	if !ok {
		return w.errorf("%q is not a destination", s)
	}
	rt.Dst = p
	return nil
}

// finish puts the one way on in place: error routes have none, and what was said
// by nexthop has been read already.
func (r *routeReader) finish(rt *route.Route) {
	h := rt.Hops[0]
	if h == (route.Hop{}) && !rt.Multipath {
		rt.Hops = nil
	}
	if rt.Dst.Bits() == 0 && rt.Dst.Addr().Is4() && !h.Via.IsZero() && !h.Via.Is4() && r.v6 {
		rt.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
}

// words reads options up to the end of the line. Behind "nexthop" they belong to
// another way on.
func (r *routeReader) words(w *wordList, rt *route.Route) error {
	rr := routeWords{w, rt, r.names}
	for !w.empty() {
		if w.accept("nexthop") {
			if !rt.Multipath {
				rt.Multipath, rt.Hops = true, nil
			}
			rt.Hops = append(rt.Hops, route.Hop{Weight: 1})
			continue
		}
		if err := rr.word(w.next()); err != nil {
			return err
		}
	}
	return nil
}

// routeWords reads the words of a route.
type routeWords struct {
	*wordList
	rt    *route.Route
	names *route.Names
}

// hop is the way on that is being read.
func (rr routeWords) hop() *route.Hop {
	if len(rr.rt.Hops) == 0 {
		rr.rt.Hops = []route.Hop{{}}
	}
	return &rr.rt.Hops[len(rr.rt.Hops)-1]
}

func (rr routeWords) word(key string) error {
	if done, err := rr.hopWord(key); done {
		return err
	}
	if done, err := rr.flag(key); done {
		return err
	}
	if slices.Contains(route.MetricNames(), key) {
		return rr.metric(key)
	}
	return rr.routeWord(key)
}

// hopWord reads what belongs to one way on.
func (rr routeWords) hopWord(key string) (bool, error) {
	var err error
	switch key {
	case "via":
		if !rr.accept("inet6") {
			rr.accept("inet")
		}
		rr.hop().Via, err = rr.addr(key)
	case "dev", "oif":
		rr.hop().Dev, err = rr.value(key)
	case "weight":
		var n uint64
		n, err = rr.number(key, 9)
		rr.hop().Weight = int(n)
	case "realm", "realms":
		var n uint32
		n, err = parseRealms(rr.wordList, rr.names)
		if rr.rt.Multipath {
			rr.hop().Realms = n
		} else {
			rr.rt.Realms = n
		}
	case "encap", "as", "ttl-propagate":
		err = rr.unsupported("route option "+key, "lightweight tunnels are not walked")
	default:
		return false, nil
	}
	return true, err
}

// flag reads a flag of a route or of one way on.
func (rr routeWords) flag(key string) (bool, error) {
	whole := !rr.rt.Multipath
	switch key {
	case "dead":
		rr.rt.Dead = rr.rt.Dead || whole
		rr.hop().Dead = true
	case "linkdown":
		rr.rt.LinkDown = rr.rt.LinkDown || whole
		rr.hop().LinkDown = true
	case "onlink":
		rr.hop().OnLink = true
	case "pervasive":
		rr.hop().Pervasive = true
	case "offload", "rt_offload":
		rr.hop().Offload = true
	case "trap", "rt_trap":
		rr.hop().Trap = true
	case "notify":
		rr.rt.Notify = true
	case "unresolved", "offload_failed", "cache", "equalize":
	case "cloned":
		return true, rr.unsupported("a cloned route", "")
	default:
		return false, nil
	}
	return true, nil
}

func (rr routeWords) metric(key string) error {
	m := route.Metric{Name: key, Lock: rr.accept("lock")}
	if key == "fastopen_no_cookie" && rr.empty() {
		return rr.errorf("%s: value is missing", key)
	}
	var err error
	if m.Value, err = rr.value(key); err != nil {
		return err
	}
	if key != "mtu" {
		rr.rt.Metrics = append(rr.rt.Metrics, m)
		return nil
	}
	n, err := strconv.ParseUint(m.Value, 0, 32)
	if err != nil {
		return rr.errorf("mtu: %q is not a number", m.Value)
	}
	rr.rt.MTU, rr.rt.MTULock = uint32(n), m.Lock
	return nil
}

// routeWord reads what belongs to the route as a whole.
func (rr routeWords) routeWord(key string) (err error) {
	rt := rr.rt
	switch key {
	case "table":
		s := rr.next()
		id, ok := rr.names.TableID(s)
		if rt.Table = id; !ok {
			return rr.errorf("table: %q is not known: rt_tables is missing or does not have it", s)
		}
	case "proto", "protocol":
		s := rr.next()
		id, ok := rr.names.ProtoID(s)
		if rt.Protocol = id; !ok {
			return rr.errorf("proto: %q is not known", s)
		}
	case "scope":
		s := rr.next()
		sc, ok := link.ParseScope(s)
		if rt.Scope = sc; !ok {
			return rr.errorf("scope: %q is not known", s)
		}
	case "src":
		rt.Src, err = rr.addr(key)
	case "tos", "dsfield":
		s := rr.next()
		t, ok := route.ParseTOS(s)
		if rt.TOS = t; !ok {
			return rr.errorf("tos: %q is not an octet", s)
		}
	case "metric", "preference", "priority":
		var n uint64
		n, err = rr.number(key, 32)
		rt.Metric = uint32(n)
	case "nhid":
		var n uint64
		n, err = rr.number(key, 32)
		rt.NHID = uint32(n)
	case "from":
		if s := rr.next(); s != "all" && s != "default" && s != "::/0" {
			return rr.unsupported("route option from "+s, "source routing of IPv6")
		}
	case "pref", "expires", "error", "users", "age", "used", "uid", "mark":
		rr.next() // no part in the choice of an IPv4 route, or shown for clones only
	default:
		return rr.unsupported("route option "+strconv.Quote(key), "")
	}
	return err
}

// routeKeys are the keys of `ip -d -j route` that are read.
var routeKeys = map[string]string{"type": "", "dst": "", "nhid": "nhid", "tos": "tos",
	"gateway": "via", "via": "", "dev": "dev", "table": "table", "protocol": "proto",
	"scope": "scope", "prefsrc": "src", "metric": "metric", "flags": "", "flow": "",
	"metrics": "", "nexthops": "", "encap": "encap", "from": "from"}

// routeIgnored are keys that do not change where a packet goes, with the reason.
var routeIgnored = map[string]string{"nh_info": "ip-nexthop.json says it", "pref": "IPv6",
	"expires": "a life time", "cache": "clones only", "uid": "clones only", "mark": "clones only",
	"users": "counters", "age": "counters", "used": "counters", "error": "clones only"}

func (r *routeReader) json(file string, data []byte) ([]route.Route, error) {
	objs, err := jsonObjects(file, data)
	if err != nil {
		return nil, err
	}
	for i := range objs {
		w, err := routeJSONWords(&objs[i])
		if err != nil {
			return nil, err
		}
		rt, err := r.route(w)
		if err != nil {
			return nil, err
		}
		r.routes = append(r.routes, rt)
	}
	return r.routes, nil
}

// routeJSONWords turns the JSON form of a route into the words of its text form.
func routeJSONWords(o *object) (*wordList, error) {
	if err := o.known(routeKeys, routeIgnored); err != nil {
		return nil, err
	}
	w := &wordList{place: o.place}
	if o.has("type") {
		w.words = append(w.words, o.str("type"))
	}
	w.words = append(w.words, o.str("dst"))
	for _, k := range []string{"nhid", "tos", "table", "protocol", "scope", "prefsrc", "metric",
		"encap", "from"} {
		if o.has(k) {
			w.words = append(w.words, routeKeys[k], o.str(k))
		}
	}
	if err := hopWords(o, w); err != nil {
		return nil, err
	}
	if err := metricWords(o, w); err != nil {
		return nil, err
	}
	var hops []map[string]json.RawMessage
	if err := o.get("nexthops", &hops); err != nil {
		return nil, err
	}
	for _, h := range hops {
		w.words = append(w.words, "nexthop")
		if err := hopWords(&object{o.place, h}, w); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// hopWords appends the words of one way on.
func hopWords(o *object, w *wordList) error {
	for _, k := range []string{"gateway", "dev", "weight", "encap"} {
		if key := map[string]string{"gateway": "via"}[k]; o.has(k) && key != "" {
			w.words = append(w.words, key, o.str(k))
		} else if o.has(k) && !(k == "encap" && o.has("dst")) {
			w.words = append(w.words, k, o.str(k))
		}
	}
	var via struct{ Family, Host string }
	var flow struct{ From, To string }
	var flags []string
	for _, err := range []error{o.get("via", &via), o.get("flow", &flow), o.get("flags", &flags)} {
		if err != nil {
			return err
		}
	}
	if via.Host != "" {
		w.words = append(w.words, "via", via.Host)
	}
	if flow.From != "" || flow.To != "" {
		w.words = append(w.words, "realms", flow.From+"/"+flow.To)
	}
	w.words = append(w.words, flags...)
	return nil
}

// metricWords appends the metrics. JSON does not tell which are locked.
func metricWords(o *object, w *wordList) error {
	var list []map[string]json.RawMessage
	if err := o.get("metrics", &list); err != nil {
		return err
	}
	for _, keys := range list {
		m := object{o.place, keys}
		for _, name := range route.MetricNames() {
			key := map[string]string{"congctl": "congestion"}[name]
			if key == "" {
				key = name
			}
			if m.has(key) {
				w.words = append(w.words, name, m.str(key))
				delete(m.keys, key)
			}
		}
		if m.has("ecn") {
			w.words = append(w.words, "features", "ecn")
			delete(m.keys, "ecn")
		}
		delete(m.keys, "tcp_usec_ts")
		if err := m.known(); err != nil {
			return err
		}
	}
	return nil
}
