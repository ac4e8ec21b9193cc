package compare

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
)

// Layout is a snapshot made ready for both worlds. Both get the same of it.
type Layout struct {
	// Engine is the snapshot that the engine reads: of this kernel, and of now.
	Engine *snapshot.Dir
	// Kernel is what is laid out in this kernel.
	Kernel kernel.Host
	// Notes tell what the snapshot lacks or this kernel cannot hold, and what both do
	// instead.
	Notes []string
	// Cards are the interfaces that a plain network card stands in for, with the kind
	// that they have in the snapshot.
	Cards map[string]string
}

// layout is a Layout in the making.
type layout struct {
	Layout
	cfg   walk.Config
	links []map[string]any // of ip-link.json
}

// NewLayout makes a snapshot ready. The error says what cannot be laid out.
func NewLayout(d *snapshot.Dir) (*Layout, error) {
	l := &layout{Layout: Layout{Cards: map[string]string{}}}
	release, err := kernel.Release()
	if err != nil {
		return nil, err
	}
	if err := l.present(d, release); err != nil {
		return nil, err
	}
	if l.cfg, err = l.Engine.Config(snapshot.Options{}); err != nil {
		return nil, err
	}
	l.Kernel = kernel.Host{Name: l.cfg.Name, Files: map[string]string{}}
	for _, step := range []func() error{l.devices, l.tables, l.sysctl, l.rules} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	l.state()
	return &l.Layout, nil
}

func (l *layout) note(format string, v ...any) {
	l.Notes = append(l.Notes, fmt.Sprintf(format, v...))
}

// present copies the snapshot as one of this kernel, taken now: what it remembers
// grows old from now on, in both worlds.
func (l *layout) present(d *snapshot.Dir, release string) error {
	l.Engine = &snapshot.Dir{Name: d.Name, Files: maps.Clone(d.Files), Single: d.Single}
	var m snapshot.Meta
	if text := d.Files["meta.json"]; len(text) > 0 {
		if err := json.Unmarshal(text, &m); err != nil {
			return fmt.Errorf("%s/meta.json: %w", d.Name, err)
		}
	}
	if m.Kernel != "" && !sameKernel(m.Kernel, release) {
		l.note("the snapshot is of Linux %s; both are asked as Linux %s", m.Kernel, release)
	}
	m.Kernel, m.HZ, m.Links = release, 0, nil
	m.Time = time.Now().UTC().Format(time.RFC3339Nano)
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	l.Engine.Files["meta.json"] = text
	for name, missing := range map[string]string{"ip-neigh.json": "nobody is resolved yet",
		"conntrack": "", "sockets": "nobody listens"} {
		if _, ok := l.Engine.Files[name]; ok {
			continue
		}
		l.Engine.Files[name] = map[string][]byte{"ip-neigh.json": []byte("[]")}[name]
		if missing != "" {
			l.note("no %s: %s", name, missing)
		}
	}
	return nil
}

// sameKernel compares major and minor number.
func sameKernel(a, b string) bool {
	short := func(s string) string { return strings.Join(append(strings.Split(s, "."), "")[:2], ".") }
	return short(a) == short(b)
}

// need is what a network cannot be laid out without.
func (l *layout) need() error {
	var missing []string
	for _, name := range []string{"ip-addr.json", "ip-route"} {
		if _, ok := l.Engine.Files[name]; !ok {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("%s has no %s: there is no network to lay out (hookpath snapshot takes a "+
		"whole one)", l.Engine.Name, strings.Join(missing, " and no "))
}

// devices makes every link one that this kernel can have: cards and tunnels whose
// wire we hold. Their names, numbers, addresses and flags stay.
func (l *layout) devices() error {
	if err := l.need(); err != nil {
		return err
	}
	source := "ip-link.json"
	if _, ok := l.Engine.Files[source]; !ok {
		source = "ip-addr.json" // tells of the links too
	}
	if err := json.Unmarshal(l.Engine.Files[source], &l.links); err != nil {
		return fmt.Errorf("%s/%s: %w (JSON is needed here: ip -d -j)", l.Engine.Name, source, err)
	}
	for _, dev := range l.links {
		l.card(dev)
	}
	text, err := json.Marshal(l.links)
	if err != nil {
		return err
	}
	l.Kernel.Files["ip-link.json"] = string(text)
	for _, name := range []string{"ip-addr.json", "ip-neigh.json", "ip-neigh-proxy.json",
		"ip-nexthop.json", "sockets", "ipset-save"} {
		if text, ok := l.Engine.Files[name]; ok {
			l.Kernel.Files[name] = string(text)
		}
	}
	return nil
}

// plainKinds are the kinds that do to a packet no more than a network card does.
var plainKinds = []string{"", "veth", "dummy", "tun"}

// card makes a link a card, or a tunnel device where it has no Ethernet.
func (l *layout) card(dev map[string]any) {
	name, _ := dev["ifname"].(string)
	info, _ := dev["linkinfo"].(map[string]any)
	kind, _ := info["info_kind"].(string)
	master, _ := dev["master"].(string)
	delete(dev, "linkinfo")
	delete(dev, "master")
	if !slices.Contains(plainKinds, kind) {
		l.Cards[name] = kind
	}
	if master != "" {
		l.Cards[name] = "port of " + master
	}
	if t := dev["link_type"]; t != "ether" && t != "loopback" {
		dev["link_type"] = "none"
		dev["linkinfo"] = map[string]any{"info_kind": "tun"}
	}
}

// tables writes routes and rules with the numbers of tables: names are a matter of
// the machine that printed them.
func (l *layout) tables() error {
	names := map[string]string{}
	if n := l.cfg.Routes.Names; n != nil {
		for id, name := range n.Tables {
			if id != 253 && id != 254 && id != 255 {
				names[name] = strconv.FormatUint(uint64(id), 10)
			}
		}
	}
	if isArray(l.Engine.Files["ip-route"]) {
		return fmt.Errorf("%s/ip-route: the text of ip -d -o route show table all is needed here, "+
			"not its JSON", l.Engine.Name)
	}
	l.Kernel.Files["ip-route"] = tablePattern.ReplaceAllStringFunc(
		string(l.Engine.Files["ip-route"]), func(s string) string {
			if id, ok := names[s[len(" table "):]]; ok {
				return " table " + id
			}
			return s
		})
	return l.ruleTables(names)
}

var tablePattern = regexp.MustCompile(` table [^\s]+`)

func isArray(text []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(text), []byte{'['}) }

func (l *layout) ruleTables(names map[string]string) error {
	text, ok := l.Engine.Files["ip-rule.json"]
	if !ok {
		return nil
	}
	var rules []map[string]any
	if err := json.Unmarshal(text, &rules); err != nil {
		return fmt.Errorf("%s/ip-rule.json: %w (JSON is needed here: ip -d -j rule)",
			l.Engine.Name, err)
	}
	for _, r := range rules {
		if name, ok := r["table"].(string); ok && names[name] != "" {
			r["table"] = names[name]
		}
	}
	out, err := json.Marshal(rules)
	l.Kernel.Files["ip-rule.json"] = string(out)
	return err
}

// sysctl leaves out settings that this kernel does not have, and those of interfaces
// that are gone.
func (l *layout) sysctl() error {
	var kept []string
	for line := range strings.Lines(string(l.Engine.Files["sysctl"])) {
		key, _, _ := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		if !strings.HasPrefix(key, "net.ipv4.") && !strings.HasPrefix(key, "net.netfilter.") {
			continue
		}
		if dev, rest, ok := deviceKey(key); ok {
			if !l.has(dev) {
				continue
			}
			key = rest
		}
		if !kernel.HasSetting(key) {
			l.note("this kernel has no setting %s", key)
			continue
		}
		kept = append(kept, line)
	}
	if _, ok := l.Engine.Files["sysctl"]; ok {
		kept = append(kept, "# of the snapshot\n") // never empty: that would mean no file
		l.Kernel.Files["sysctl"] = strings.Join(kept, "")
	}
	return nil
}

// deviceKey takes the interface out of a setting of one interface, and returns the
// same setting of "all" besides.
func deviceKey(key string) (dev, all string, ok bool) {
	for _, kind := range []string{"conf", "neigh"} {
		prefix := "net.ipv4." + kind + "."
		rest, found := strings.CutPrefix(key, prefix)
		if !found {
			continue
		}
		at := strings.LastIndexByte(rest, '.')
		if at < 0 {
			return "", "", false
		}
		// A dot in an interface's name is printed as a slash.
		return strings.ReplaceAll(rest[:at], "/", "."), prefix + "default" + rest[at:], true
	}
	return "", "", false
}

// has tells whether the snapshot has an interface; all and default count as some.
func (l *layout) has(dev string) bool {
	return dev == "all" || dev == "default" ||
		slices.ContainsFunc(l.links, func(m map[string]any) bool { return m["ifname"] == dev })
}

// rules passes the rules on. Of nf_tables only those base chains are declared that
// nft lists.
func (l *layout) rules() error {
	for _, name := range []string{"iptables-save", "iptables-legacy-save", "iptables-nft-save"} {
		text := string(l.Engine.Files[name])
		if !strings.Contains(text, "*") {
			continue // tools print their heading even for nothing
		}
		nft := name == "iptables-nft-save" || name == "iptables-save" &&
			strings.Contains(text, "(nf_tables)")
		if nft && l.cfg.Hooked != nil {
			text = hookedOnly(text, l.cfg.Hooked)
		}
		l.Kernel.Files[name] = text
	}
	if l.Kernel.Files["iptables-legacy-save"] != "" && l.Kernel.Files["iptables-nft-save"] != "" {
		return fmt.Errorf("%s has both legacy and nf_tables rules: only one of them can be laid out "+
			"and watched", l.Engine.Name)
	}
	return nil
}

// hookedOnly takes out the declarations of built-in chains that are not in the list of
// "table/CHAIN".
func hookedOnly(text string, hooked map[string]bool) string {
	var b strings.Builder
	table := ""
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(line, "*"); ok {
			table = strings.TrimSpace(name)
		}
		chain, _, _ := strings.Cut(strings.TrimPrefix(line, ":"), " ")
		if strings.HasPrefix(line, ":") && slices.Contains(baseChains, chain) &&
			!hooked[table+"/"+chain] {
			continue
		}
		b.WriteString(line)
	}
	return b.String()
}

// baseChains are the built-in chains of all tables.
var baseChains = []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// state passes connections on, in the extended form, and tells what memory counts as
// empty in both worlds.
func (l *layout) state() {
	var b strings.Builder
	for line := range strings.Lines(string(l.Engine.Files["conntrack"])) {
		switch {
		case strings.TrimSpace(line) == "", strings.HasPrefix(line, "ipv6"):
			continue
		case !strings.HasPrefix(line, "ipv4"):
			b.WriteString("ipv4 2 ")
		}
		b.WriteString(line)
	}
	l.Kernel.Files["conntrack"] = b.String()
	for _, name := range slices.Sorted(maps.Keys(l.Engine.Files)) {
		if strings.HasPrefix(name, "xt/") && len(l.Engine.Files[name]) > 0 {
			l.note("%s counts as empty: a kernel's list can't be filled with the past", name)
		}
	}
}

// Connect adds a connection, as conntrack -L prints it, to both worlds.
func (l *Layout) Connect(line string) {
	l.Engine.Files["conntrack"] = append(slices.Clone(l.Engine.Files["conntrack"]), line+"\n"...)
	l.Kernel.Files["conntrack"] += "ipv4 2 " + line + "\n"
}

// StandIns are the interfaces by which a walk's packets left and that a card stands in
// for.
func (l *Layout) StandIns(k *walk.Walk) []string {
	var out []string
	for i := range k.Trace.Outcomes {
		o := &k.Trace.Outcomes[i]
		dev := k.Links.Name(o.Dev)
		if o.Result == trace.Transmitted && l.Cards[dev] != "" && !slices.Contains(out, dev) {
			out = append(out, dev)
		}
	}
	return out
}
