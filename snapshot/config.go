package snapshot

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// Options are what the question adds to a snapshot.
type Options struct {
	// Devs are interfaces that the question names; where the snapshot lists none,
	// they exist.
	Devs []string
	// Now is the time where meta.json does not say it.
	Now world.Instant
	// Changes are commands that change the host: ip rule, ip route, ip addr,
	// sysctl -w, iptables, conntrack -D.
	Changes []string
}

// Config reads all files of the snapshot and puts them together. What the snapshot
// does not say and the answer rests on is in Config.Assumed.
func (d *Dir) Config(o Options) (walk.Config, error) {
	r := &reader{d: d, o: o, c: &walk.Config{Name: d.Name, Now: o.Now}}
	for _, step := range []func() error{r.meta, r.names, r.rules, r.links, r.routes, r.neighs,
		r.sysctl, r.sockets, r.memory, r.ipvs, r.foreign, r.change} {
		if err := step(); err != nil {
			return walk.Config{}, err
		}
	}
	r.notes()
	return *r.c, nil
}

// reader is a Config in the making.
type reader struct {
	d      *Dir
	o      Options
	c      *walk.Config
	tables *route.Names
	find   devFinder
	absent []string
}

func (r *reader) has(name string) bool { _, ok := r.d.Files[name]; return ok }

// file returns a file with the name that errors use; nil where it is not there.
func (r *reader) file(name string) (string, []byte, bool) {
	data, ok := r.d.Files[name]
	return r.d.file(name), data, ok
}

func (r *reader) assume(format string, v ...any) {
	r.c.Assumed = append(r.c.Assumed, walk.Assumption(fmt.Sprintf(format, v...)))
}

func (r *reader) meta() error {
	r.c.Cables = maps.Clone(r.d.Cables)
	file, data, ok := r.file("meta.json")
	if ok {
		m, err := parseMeta(file, data)
		if err != nil {
			return err
		}
		if err := m.apply(file, r.c); err != nil {
			return err
		}
		r.absent = m.Absent
		if m.Kernel == "" {
			r.assume("kernel 6.18: meta.json does not say")
		}
		return nil
	}
	r.assume("no meta.json: kernel 6.18")
	return nil
}

func (r *reader) names() (err error) {
	file, data, ok := r.file("rt_tables")
	if ok {
		if r.tables, err = parseRTTables(file, data); err != nil {
			return err
		}
	}
	for _, name := range r.d.sorted("rt_tables.d/") {
		more, err := parseRTTables(r.d.file(name), r.d.Files[name])
		if err != nil {
			return err
		}
		if r.tables == nil {
			r.tables = more
			continue
		}
		for id, s := range more.Tables {
			r.tables.Tables[id] = s
		}
	}
	r.c.Routes.Names = r.tables
	return nil
}

func (r *reader) rules() error {
	rules, assumed, err := r.d.Rulesets(trace.IPv4)
	if err != nil {
		return err
	}
	r.c.Rules = rules
	has := func(f saveFile) bool { return r.has(f.name) }
	if !slices.ContainsFunc(saveFiles(trace.IPv4), has) {
		r.assume("no iptables-save file: no rules")
	}
	for _, a := range assumed {
		r.assume("%s", a)
	}
	var n *nftRules
	if file, data, ok := r.file("nft.json"); ok {
		if n, err = parseNFT(file, data); err != nil {
			return err
		}
	}
	hookedOf(n, rules, r.c)
	return nil
}

// links reads interfaces and addresses; ip-addr has both.
func (r *reader) links() error {
	c := &r.c.Links
	var fromAddr []link.Link
	file, data, hasLinks := r.file("ip-link.json")
	if hasLinks {
		links, err := parseIPLink(file, data)
		if err != nil {
			return err
		}
		c.Links = links
	}
	file, data, hasAddrs := r.file("ip-addr.json")
	if hasAddrs {
		addrs, links, err := parseIPAddr(file, withIndexes(data, c.Links))
		if err != nil {
			return err
		}
		c.Addrs, fromAddr = addrs, links
	}
	switch {
	case !hasLinks && hasAddrs:
		c.Links = fromAddr
	case !hasLinks:
		c.Links, c.OpenLinks, r.c.OpenLinks = link.Invent(r.devices()), true, true
		r.assume("no ip-link file: interfaces %s", linkNames(c.Links))
	}
	if !hasAddrs {
		c.OpenAddrs, r.c.OpenAddrs = true, true
		r.assume("no ip-addr file: addresses open")
	}
	r.find = finder(c.Links)
	return r.groups()
}

// withIndexes adds the indexes of ip-link to a list of addresses that was written by
// hand with names alone.
func withIndexes(data []byte, links []link.Link) []byte {
	var objs []map[string]json.RawMessage
	if len(links) == 0 || !isJSON(data) || json.Unmarshal(data, &objs) != nil {
		return data
	}
	find, changed := finder(links), false
	for _, o := range objs {
		var name string
		if _, ok := o["ifindex"]; ok || json.Unmarshal(o["ifname"], &name) != nil {
			continue
		}
		if dev := find(name); dev != 0 {
			o["ifindex"], changed = strconv.AppendUint(nil, uint64(dev), 10), true
		}
	}
	if !changed {
		return data
	}
	out, err := json.Marshal(objs)
	if err != nil {
		return data
	}
	return out
}

func linkNames(links []link.Link) string {
	var names []string
	for i := range links {
		names = append(names, links[i].Name)
	}
	return strings.Join(names, " ")
}

// groups reads the multicast groups that interfaces have joined.
func (r *reader) groups() (err error) {
	file, data, ok := r.file("ip-maddr.json")
	if !ok {
		r.c.Links.OpenGroups = true
		return nil
	}
	r.c.Links.Memberships, err = parseIPMaddr(file, data)
	return err
}

func (r *reader) routes() (err error) {
	c := &r.c.Routes
	file, data, ok := r.file("ip-rule.json")
	if ok {
		if c.Rules, err = parseIPRule(file, data, r.tables); err != nil {
			return err
		}
	} else {
		r.assume("no ip-rule file: the kernel's three rules")
	}
	if file, data, ok = r.file("ip-nexthop.json"); ok {
		if c.Nexthops, err = parseIPNexthop(file, data, r.tables); err != nil {
			return err
		}
		if file, data, ok = r.file("ip-nexthop-bucket.json"); ok {
			if err = parseIPNexthopBucket(file, data, c.Nexthops); err != nil {
				return err
			}
		}
	}
	if file, data, ok = r.file("ip-route"); ok {
		c.Routes, err = parseIPRoute(file, data, r.tables, false)
		return err
	}
	c.Open, r.c.OpenRoutes = true, true
	r.assume("no ip-route file: routes open")
	return nil
}

func (r *reader) neighs() error {
	c := &r.c.Links
	file, data, ok := r.file("ip-neigh.json")
	if ok {
		ns, _, err := parseIPNeigh(file, data, r.find)
		if err != nil {
			return err
		}
		c.Neighs = ns
	} else {
		c.OpenNeighs, r.c.OpenNeigh = true, true
		r.assume("no ip-neigh file: next hops resolve to 00:00:00:00:00:00")
	}
	if file, data, ok = r.file("ip-neigh-proxy.json"); ok {
		_, ps, err := parseIPNeigh(file, data, r.find)
		if err != nil {
			return err
		}
		c.Proxies = ps
	}
	return nil
}

func (r *reader) sysctl() (err error) {
	file, data, ok := r.file("sysctl")
	if !ok {
		r.c.OpenSysctl = true
		r.assume("no sysctl file: forwarding on, the rest at the kernel's default")
		return nil
	}
	r.c.Sysctl, err = parseSysctl(file, data)
	r.c.Links.Sysctl, r.c.Routes.Sysctl = r.c.Sysctl, r.c.Sysctl
	return err
}

func (r *reader) sockets() (err error) {
	file, data, ok := r.file("sockets")
	if !ok {
		r.c.OpenSockets = true
		r.assume("no sockets file: nobody listens")
		return nil
	}
	if r.c.Sockets, err = parseSockets(file, data); err != nil {
		return err
	}
	if r.c.OpenLinks {
		r.nameSocketDevices()
	}
	socket.Resolve(r.c.Sockets, func(name string) packet.Dev { return r.find(name) })
	return nil
}

// nameSocketDevices lets sockets be bound to interfaces that nobody else named.
func (r *reader) nameSocketDevices() {
	var names []string
	for i := range r.c.Links.Links {
		names = append(names, r.c.Links.Links[i].Name)
	}
	for i := range r.c.Sockets {
		if n := r.c.Sockets[i].DevName; n != "" {
			names = append(names, n)
		}
	}
	r.c.Links.Links = link.Invent(names)
	r.find = finder(r.c.Links.Links)
}

// memory reads what the host remembers: sets and connections.
func (r *reader) memory() (err error) {
	if file, data, ok := r.file("ipset-save"); ok {
		if r.c.Sets, err = parseIPSet(file, data, r.c.Now); err != nil {
			return err
		}
	}
	if file, data, ok := r.file("conntrack"); ok {
		if r.c.Flows, err = parseConntrack(file, data, r.c.Now); err != nil {
			return err
		}
	}
	if file, data, ok := r.file("conntrack-expect"); ok {
		if r.c.Expects, err = parseExpect(file, data, r.c.Now); err != nil {
			return err
		}
	}
	return nil
}

// foreign lists what is on the way and not run.
func (r *reader) foreign() error {
	found, err := r.d.foreign()
	if err != nil {
		return err
	}
	r.c.Foreign = append(r.c.Foreign, found...)
	return nil
}

// notes are the files that say something and are not read.
func (r *reader) notes() {
	for _, name := range r.d.sorted("xt/") {
		r.assume("%s is not read: it counts as empty", name)
	}
	for _, name := range slices.Sorted(maps.Keys(r.d.Files)) {
		if base, ok := strings.CutSuffix(name, ".err"); ok {
			line, _, _ := bytes.Cut(r.d.Files[name], []byte{'\n'})
			r.assume("%s could not be collected: %s", base, cutText(line))
		}
	}
	for _, name := range r.d.Unread {
		r.assume("%s is not a file of a snapshot: it is not read", name)
	}
}

func cutText(line []byte) string { return string(line[:min(len(line), 80)]) }

// devices are the names of interfaces that the other files and the question
// mention, in the order in which they are found.
func (r *reader) devices() []string {
	var names []string
	add := func(name string) {
		if name != "" && name != "lo" && !strings.HasSuffix(name, "+") {
			names = append(names, name)
		}
	}
	for _, rs := range r.c.Rules {
		for _, t := range rs.Tables {
			for _, ch := range t.Chains {
				for i := range ch.Rules {
					add(ch.Rules[i].IP.In)
					add(ch.Rules[i].IP.Out)
				}
			}
		}
	}
	r.routeDevices(add)
	for _, name := range r.o.Devs {
		add(name)
	}
	return names
}

// routeDevices finds the interfaces of ip-rule and ip-route; their errors are
// reported when the files are read for good.
func (r *reader) routeDevices(add func(string)) {
	if file, data, ok := r.file("ip-rule.json"); ok {
		rules, _ := parseIPRule(file, data, r.tables)
		for i := range rules {
			add(rules[i].In)
			add(rules[i].Out)
		}
	}
	if file, data, ok := r.file("ip-nexthop.json"); ok {
		nhs, _ := parseIPNexthop(file, data, r.tables)
		for i := range nhs {
			add(nhs[i].Hop.Dev)
		}
	}
	if file, data, ok := r.file("ip-route"); ok {
		routes, _ := parseIPRoute(file, data, r.tables, false)
		for i := range routes {
			for _, h := range routes[i].Hops {
				add(h.Dev)
			}
		}
	}
}

// Flow reads one line of `conntrack -L`.
func Flow(line string, now world.Instant) (conntrack.Flow, error) {
	flows, err := parseConntrack("connection", []byte(line), now)
	if err != nil {
		return conntrack.Flow{}, err
	}
	if len(flows) != 1 {
		return conntrack.Flow{}, fmt.Errorf("%q is not one connection", line)
	}
	return flows[0], nil
}
