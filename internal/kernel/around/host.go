// Package around builds a host around rules that came without one: the interfaces,
// addresses, routes and sets that they name, so that packets can meet them. It also
// draws packets from the rules' own tests.
//
// It stands beside the packet's way; package compare asks both worlds about the host.
package around

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// Host is a made-up host.
type Host struct {
	// Files are those of a snapshot.
	Files map[string]string
	devs  []string
	own   []netip.Addr // addresses besides the devices' own
	picks map[pick]netip.Addr
	sets  []set
	tests []tests
}

// pick is a destination that a way through the rules asks for, by the device that it
// asks for besides.
type pick struct {
	dev string
	dst netip.Prefix
}

// maxOwn bounds the addresses that rules make the host's own, maxPicks the routes.
const (
	maxOwn   = 32
	maxPicks = 4000
)

// New builds a host around the text of iptables-save. Chains that the text appends to
// and does not declare are declared, and entered from a built-in chain.
func New(rules string) (*Host, error) {
	rules = declare(rules)
	d := &snapshot.Dir{Name: "r", Files: map[string][]byte{"iptables-save": []byte(rules)}}
	sets, _, err := d.Rulesets(trace.IPv4)
	if err != nil {
		return nil, err
	}
	h := &Host{Files: map[string]string{"iptables-save": rules}, picks: map[pick]netip.Addr{}}
	h.devices(sets)
	h.sets = namedSets(rules)
	for _, rs := range sets {
		for _, t := range rs.Tables {
			h.tests = append(h.tests, pathTests(t)...)
		}
	}
	h.addresses()
	h.routes()
	h.write()
	return h, nil
}

// declare adds the chains that rules append to and that are not declared: what is read
// is a part of rules whose other part enters them.
func declare(text string) string {
	var out strings.Builder
	var t fragment
	for line := range strings.Lines(text) {
		switch {
		case strings.HasPrefix(line, "*"), strings.HasPrefix(line, "COMMIT"):
			t.flush(&out)
			out.WriteString(line)
		case strings.HasPrefix(line, ":"):
			t.known = append(t.known, strings.Fields(line[1:])[0])
			out.WriteString(line)
		default:
			t.body = append(t.body, line)
		}
	}
	t.flush(&out)
	return out.String()
}

// fragment is a table that may be a part of one.
type fragment struct {
	known []string // chains that were declared
	body  []string
}

// flush writes the table's rules, with what they lack.
func (t *fragment) flush(out *strings.Builder) {
	for _, name := range t.missing() {
		fmt.Fprintf(out, ":%s - [0:0]\n", name)
	}
	for _, line := range t.body {
		out.WriteString(line)
	}
	for _, name := range t.orphans() {
		fmt.Fprintf(out, "-A %s -j %s\n", entryOf(name), name)
	}
	*t = fragment{}
}

// orphans are the user chains that nothing enters, in a table without rules of its own.
func (t *fragment) orphans() []string {
	entered := map[string]bool{}
	for _, line := range t.body {
		f := strings.Fields(line)
		for i, w := range f[:max(len(f)-1, 0)] {
			if (w == "-A" || w == "-I") && builtin(f[i+1]) {
				return nil
			}
			entered[f[i+1]] = entered[f[i+1]] || w == "-j" || w == "-g"
		}
	}
	return slices.DeleteFunc(slices.Clone(t.known), func(name string) bool {
		return builtin(name) || entered[name]
	})
}

// missing are the chains that rules append to or that ufw's rules jump to.
func (t *fragment) missing() []string {
	var out []string
	for _, line := range t.body {
		f := strings.Fields(line)
		for i, w := range f[:max(len(f)-1, 0)] {
			name := f[i+1]
			asked := w == "-A" || w == "-j" && strings.HasPrefix(name, "ufw-")
			if asked && !builtin(name) && !slices.Contains(t.known, name) {
				t.known = append(t.known, name)
				out = append(out, name)
			}
		}
	}
	return out
}

// entryOf is the built-in chain that a chain's name points to.
func entryOf(name string) string {
	switch {
	case strings.Contains(name, "input"):
		return "INPUT"
	case strings.Contains(name, "output"):
		return "OUTPUT"
	}
	return "FORWARD"
}

func builtin(chain string) bool {
	return slices.Contains([]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}, chain)
}

// devices takes the names of interfaces from the rules; for eth+ one that it matches.
func (h *Host) devices(sets []*xtables.Ruleset) {
	for _, rs := range sets {
		for _, t := range rs.Tables {
			for _, c := range t.Chains {
				for i := range c.Rules {
					h.device(c.Rules[i].IP.In)
					h.device(c.Rules[i].IP.Out)
				}
			}
		}
	}
	for _, name := range []string{"hp0", "hp1"} { // nobody's, for what others do not match
		h.device(name)
	}
}

// maxName is the longest name of an interface.
const maxName = 15

func (h *Host) device(name string) {
	if base, ok := strings.CutSuffix(name, "+"); ok {
		if slices.ContainsFunc(h.devs, func(d string) bool { return strings.HasPrefix(d, base) }) {
			return
		}
		name = base
		if len(base) < maxName {
			name = base + "7"
		}
	}
	if name != "" && name != "lo" && !slices.Contains(h.devs, name) {
		h.devs = append(h.devs, name)
	}
}

// net is a device's own network: 100.64.N.0/24 and so on, of the shared space that
// rules seldom name. host is an address in it.
func devAddr(n int, host byte) netip.Addr {
	return netip.AddrFrom4([4]byte{100, byte(64 + n/250), byte(n % 250), host})
}

// Hosts of a device's network.
const (
	ourHost     = 1
	gatewayHost = 2
)

func (h *Host) index(dev string) int { return slices.Index(h.devs, dev) }

// addresses makes those single destinations the host's own that rules of INPUT ask
// for, and no rule as a source.
func (h *Host) addresses() {
	sources := map[netip.Addr]bool{}
	for i := range h.tests {
		t := &h.tests[i]
		if t.hook != trace.Output && t.src.IsValid() && t.src.IsSingleIP() {
			sources[t.src.Addr()] = true
		}
	}
	for i := range h.tests {
		t := &h.tests[i]
		a := t.dst
		if t.hook == trace.Output {
			a = t.src
		}
		if t.hook != trace.Input && t.hook != trace.Output || !a.IsValid() || !a.IsSingleIP() {
			continue
		}
		if plain(a.Addr()) && !sources[a.Addr()] && len(h.own) < maxOwn &&
			!slices.Contains(h.own, a.Addr()) {
			h.own = append(h.own, a.Addr())
		}
	}
}

// plain tells addresses that a host can have from those with a meaning.
func plain(a netip.Addr) bool {
	b := a.As4()
	return b[0] != 0 && b[0] != 127 && b[0] < 224 && b[0] != 100 && b[3] != 255
}

// routes finds, for each device and destination that one way through the rules asks
// for, a destination that is routed there.
func (h *Host) routes() {
	for i := range h.tests {
		t := &h.tests[i]
		if t.out == "" || !t.dst.IsValid() || len(h.picks) >= maxPicks {
			continue
		}
		key := pick{t.out, t.dst}
		if _, ok := h.picks[key]; ok || h.index(t.out) < 0 {
			continue
		}
		for n := range 8 {
			a := nth(t.dst, n+len(h.picks))
			if plain(a) && !h.taken(a) {
				h.picks[key] = a
				break
			}
		}
	}
}

// taken tells whether an address is the host's own or has a route already.
func (h *Host) taken(a netip.Addr) bool {
	if slices.Contains(h.own, a) {
		return true
	}
	for _, p := range h.picks {
		if p == a {
			return true
		}
	}
	return false
}

// nth is one of the addresses of a prefix.
func nth(p netip.Prefix, n int) netip.Addr {
	b := p.Masked().Addr().As4()
	size := 32 - p.Bits()
	for i := range min(size, 16) {
		if n>>i&1 == 1 {
			b[3-i/8] |= 1 << (i % 8)
		}
	}
	if size >= 8 && b[3] == 0 {
		b[3] = 9
	}
	return netip.AddrFrom4(b)
}

func (h *Host) write() {
	links := []map[string]any{{"ifindex": 1, "ifname": "lo", "flags": []string{"LOOPBACK", "UP"},
		"mtu": 65536, "link_type": "loopback", "address": "00:00:00:00:00:00"}}
	addrs := []map[string]any{{"ifname": "lo", "addr_info": h.loopback()}}
	neighs := []map[string]any{}
	var routes strings.Builder
	for i, dev := range h.devs {
		links = append(links, map[string]any{"ifindex": i + 2, "ifname": dev, "mtu": 1500,
			"group": "default", "flags": []string{"BROADCAST", "MULTICAST", "UP"},
			"link_type": "ether", "address": devMAC(i).String()})
		addrs = append(addrs, map[string]any{"ifname": dev, "addr_info": []map[string]any{{
			"family": "inet", "local": devAddr(i, ourHost), "prefixlen": 24,
			"broadcast": devAddr(i, 255), "scope": "global", "label": dev}}})
		neighs = append(neighs, map[string]any{"dst": devAddr(i, gatewayHost), "dev": dev,
			"lladdr": gatewayMAC(i).String(), "state": []string{"PERMANENT"}})
	}
	fmt.Fprintf(&routes, "default via %s dev %s\n", devAddr(0, gatewayHost), h.devs[0])
	for key, a := range h.picks {
		fmt.Fprintf(&routes, "%s via %s dev %s\n", a, devAddr(h.index(key.dev), gatewayHost), key.dev)
	}
	h.Files["ip-link.json"], h.Files["ip-addr.json"] = jsonText(links), jsonText(addrs)
	h.Files["ip-neigh.json"], h.Files["ip-route"] = jsonText(neighs), routes.String()
	if text := h.setsText(); text != "" {
		h.Files["ipset-save"] = text
	}
}

// loopback are the addresses that the host has besides those of its networks.
func (h *Host) loopback() []map[string]any {
	out := []map[string]any{}
	for _, a := range h.own {
		out = append(out, map[string]any{"family": "inet", "local": a, "prefixlen": 32,
			"scope": "global", "label": "lo"})
	}
	return out
}

func devMAC(i int) packet.MAC     { return packet.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)} }
func gatewayMAC(i int) packet.MAC { return packet.MAC{2, 2, 0, 0, byte(i >> 8), byte(i)} }

func jsonText(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only literals of ours
	}
	return string(b)
}
