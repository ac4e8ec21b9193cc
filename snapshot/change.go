package snapshot

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// change walks the commands of the lab and of Options.Changes: the host is then as if
// somebody had typed them. A command may be several, with ";" between.
func (r *reader) change() error {
	if err := r.typed(r.d.Setup); err != nil {
		return fmt.Errorf("%s: %w", r.d.at, err)
	}
	return r.typed(r.o.Changes)
}

func (r *reader) typed(commands []string) error {
	for _, text := range commands {
		for _, cmd := range splitCommands(text) {
			if err := r.command(cmd); err != nil {
				return fmt.Errorf("%q: %w", cmd, err)
			}
		}
	}
	return nil
}

// splitCommands cuts at semicolons outside of double quotes.
func splitCommands(text string) []string {
	var out []string
	quoted := false
	last := 0
	for i := range len(text) {
		switch text[i] {
		case '"':
			quoted = !quoted
		case ';':
			if !quoted {
				out, last = append(out, text[last:i]), i+1
			}
		}
	}
	out = append(out, text[last:])
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == "" })
}

// understood is what command takes, for its errors.
const understood = "ip rule, ip route, ip addr, sysctl -w, iptables, conntrack -D"

func (r *reader) command(cmd string) error {
	w := &wordList{place{"command", 1}, strings.Fields(cmd)}
	switch name := w.next(); name {
	case "ip":
		return r.changeIP(w)
	case "sysctl":
		return r.changeSysctl(w)
	case "conntrack":
		return r.changeFlows(w)
	case "iptables", "iptables-legacy", "iptables-nft":
		return r.changeRules(name, strings.TrimSpace(strings.TrimPrefix(cmd, name)))
	default:
		return fmt.Errorf("%q is not understood here: %s are", name, understood)
	}
}

// changeRules takes an iptables command to the rules of its back end.
func (r *reader) changeRules(name, cmd string) error {
	rs, err := r.ruleset(name)
	if err != nil {
		return err
	}
	table, chain, err := rs.Edit(cmd, Catalog(trace.IPv4))
	if err == nil && r.c.Hooked != nil && rs.Backend == xtables.NFT {
		r.c.Hooked[table+"/"+chain] = true // iptables-nft makes a base chain when it needs one
	}
	return err
}

// ruleset finds the rules that a command changes: there may be those of both back ends,
// or none yet.
func (r *reader) ruleset(name string) (*xtables.Ruleset, error) {
	var found []*xtables.Ruleset
	for _, rs := range r.c.Rules {
		if name == "iptables" || name == "iptables-"+rs.Backend.String() {
			found = append(found, rs)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return nil, fmt.Errorf("legacy and nft rules are loaded: say iptables-legacy or iptables-nft")
	}
	backend := xtables.Legacy
	if name == "iptables-nft" {
		backend = xtables.NFT
	}
	rs := xtables.NewRuleset(trace.IPv4, backend)
	r.c.Rules = append(r.c.Rules, rs)
	return rs, nil
}

// changeSysctl is sysctl -w NAME=VALUE.
func (r *reader) changeSysctl(w *wordList) error {
	w.accept("-w")
	name, val, ok := strings.Cut(strings.Join(w.words, ""), "=")
	if !ok {
		return fmt.Errorf("expected sysctl -w NAME=VALUE")
	}
	if i := strings.IndexAny(name, "./"); i >= 0 && name[i] == '/' { // net/ipv4/conf/eth0.1/...
		name = strings.Map(swapSeparators, name)
	}
	if !strings.HasPrefix(name, "net.") {
		return fmt.Errorf("%s has no part in a packet's way", name)
	}
	s := maps.Clone(r.c.Sysctl)
	if s == nil {
		s = link.Sysctl{}
	}
	if err := r.setSysctl(s, name, val); err != nil {
		return err
	}
	r.c.Sysctl, r.c.Links.Sysctl, r.c.Routes.Sysctl = s, s, s
	return nil
}

func swapSeparators(c rune) rune {
	switch c {
	case '/':
		return '.'
	case '.':
		return '/'
	}
	return c
}

// setSysctl sets one value, and what the kernel sets along with it.
//
// Kernel: net/ipv4/devinet.c, inet_forward_change and devinet_conf_proc.
func (r *reader) setSysctl(s link.Sysctl, name, val string) error {
	const conf = "net.ipv4.conf."
	dev, key, perDev := strings.Cut(strings.TrimPrefix(name, conf), ".")
	perDev = perDev && strings.HasPrefix(name, conf)
	switch {
	case name == "net.ipv4.ip_forward", perDev && dev == "all" && key == "forwarding":
		n, err := strconv.Atoi(val)
		if err != nil {
			return fmt.Errorf("%s: %q is not a number", name, val)
		}
		s["net.ipv4.ip_forward"] = val
		for _, d := range append([]string{"all", "default"}, r.sysctlDevs()...) {
			s[conf+d+".forwarding"] = val
		}
		s[conf+"all.accept_redirects"] = strconv.Itoa(1 - min(n, 1))
	case perDev && dev == "default":
		return fmt.Errorf("%s: which interfaces take it over is not known: name an interface", name)
	case perDev && dev != "all" && !slices.Contains(r.sysctlDevs(), dev):
		return fmt.Errorf("%s: there is no interface %q", name, strings.Map(swapSeparators, dev))
	default:
		s[name] = val
	}
	return nil
}

// sysctlDevs are the interfaces as sysctl writes them.
func (r *reader) sysctlDevs() []string {
	var out []string
	for i := range r.c.Links.Links {
		out = append(out, strings.ReplaceAll(r.c.Links.Links[i].Name, ".", "/"))
	}
	return out
}

// changeFlows is conntrack -D with what the connections have in common, or -F.
func (r *reader) changeFlows(w *wordList) error {
	switch verb := w.next(); verb {
	case "-F", "--flush":
		r.c.Flows = nil
		return nil
	case "-D", "--delete":
	default:
		return fmt.Errorf("%q is neither -D nor -F", verb)
	}
	var tests []func(*conntrack.Flow) bool
	for !w.empty() {
		t, err := flowTest(w)
		if err != nil {
			return err
		}
		tests = append(tests, t)
	}
	n := len(r.c.Flows)
	r.c.Flows = slices.DeleteFunc(slices.Clone(r.c.Flows), func(f conntrack.Flow) bool {
		return !slices.ContainsFunc(tests, func(t func(*conntrack.Flow) bool) bool { return !t(&f) })
	})
	if len(r.c.Flows) == n {
		return fmt.Errorf("the table has no such connection")
	}
	return nil
}

// flowOptions name the directions and ends of a connection that conntrack -D asks for.
var flowOptions = map[string]struct {
	dir       conntrack.Dir
	dst, port bool
}{
	"-s": {0, false, false}, "--src": {0, false, false}, "--orig-src": {0, false, false},
	"-d": {0, true, false}, "--dst": {0, true, false}, "--orig-dst": {0, true, false},
	"-r": {1, false, false}, "--reply-src": {1, false, false},
	"-q": {1, true, false}, "--reply-dst": {1, true, false},
	"--sport": {0, false, true}, "--orig-port-src": {0, false, true},
	"--dport": {0, true, true}, "--orig-port-dst": {0, true, true},
	"--reply-port-src": {1, false, true}, "--reply-port-dst": {1, true, true},
}

// flowTest reads one option of conntrack -D.
func flowTest(w *wordList) (func(*conntrack.Flow) bool, error) {
	opt := w.next()
	o, ok := flowOptions[opt]
	switch {
	case opt == "-p" || opt == "--proto" || opt == "--protonum":
		s, err := w.value(opt)
		if err != nil {
			return nil, err
		}
		n, err := xtables.ParseProto(s)
		return func(f *conntrack.Flow) bool { return f.Proto() == n }, err
	case !ok:
		return nil, fmt.Errorf("conntrack -D: option %q is not understood here", opt)
	case o.port:
		n, err := w.number(opt, 16)
		return func(f *conntrack.Flow) bool {
			t := f.Tuples[o.dir]
			return o.dst && t.DPort == uint16(n) || !o.dst && t.SPort == uint16(n)
		}, err
	}
	a, err := w.addr(opt)
	return func(f *conntrack.Flow) bool {
		t := f.Tuples[o.dir]
		return o.dst && t.Dst == a || !o.dst && t.Src == a
	}, err
}

// dev finds an interface by its name.
func (r *reader) dev(name string) (packet.Dev, error) {
	if d := r.find(name); d != 0 {
		return d, nil
	}
	return 0, fmt.Errorf("there is no interface %q", name)
}
