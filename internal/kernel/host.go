package kernel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// host is a snapshot laid out in a namespace. Its methods run on the run's
// thread, in that namespace.
type host struct {
	*Host
	ns      int
	events  *conn // trace, logs
	ctl     *conn // connection table
	table   table
	taps    []*tap
	links   map[int]string
	book    rulebook
	backend Backend
	sockets []int              // of the snapshot
	kept    map[socketSpec]int // that questions left behind
	dirty   bool               // a question may have changed more than conntrack
	plain   bool               // no nf_tables for IP here: see plain.go
	inputs  *inputs            // nil unless plain
	tables  map[string]bool    // of the snapshot's rules, if plain
	polled  []unix.PollFd
}

// meta is what we read of meta.json.
type meta struct {
	Host  string `json:"host"`
	Links map[string]struct {
		PeerHost string `json:"peer_host"`
		Peer     string `json:"peer"`
	} `json:"links"`
}

func (h *Host) meta() (meta, error) {
	var m meta
	text := h.Files["meta.json"]
	if text == "" {
		return m, nil
	}
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		return m, fmt.Errorf("%s/meta.json: %w", h.Name, err)
	}
	return m, nil
}

// cables are the far ends of the host's devices.
func (h *host) cables() (map[string][]Port, error) {
	m, err := h.meta()
	if err != nil {
		return nil, err
	}
	all := maps.Clone(h.Cables)
	if all == nil {
		all = map[string][]Port{}
	}
	for dev, l := range m.Links {
		all[dev] = append(all[dev], Port{l.PeerHost, l.Peer})
	}
	return all, nil
}

// newHost lays a snapshot out. The thread is left in the new namespace.
func newHost(ctx context.Context, files *Host, backend Backend) (*host, error) {
	h := &host{Host: files, ns: -1, links: map[int]string{},
		kept: map[socketSpec]int{}, backend: backend}
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	h.ns = ns
	for _, stage := range []func(context.Context) error{
		h.watch, h.devices, h.configure, h.load, h.setup, h.number, h.open,
	} {
		if err := stage(ctx); err != nil {
			h.close()
			return nil, err
		}
	}
	return h, nil
}

// watch opens the sockets of this namespace and sets our probes up, first of
// all (see probes).
func (h *host) watch(context.Context) error {
	var err error
	if h.events, err = dial(); err != nil {
		return err
	}
	if h.ctl, err = dial(); err != nil {
		return err
	}
	err = h.ctl.install()
	if h.plain = errors.Is(err, unix.EOPNOTSUPP); h.plain {
		err = nil
	}
	if err != nil {
		return err
	}
	forwarding := h.Files["sysctl"] == ""
	if err := writeSysctls(baseline(forwarding)); err != nil {
		return err
	}
	for _, file := range []string{"2", "10"} {
		s := setting{"net/netfilter/nf_log/" + file, "nfnetlink_log"}
		if err := writeSysctl(s); err != nil {
			return fmt.Errorf("%s: %w", s.path, err)
		}
	}
	return errors.Join(
		h.events.listen(groupTrace, nfulnlCopyNone),
		h.events.listen(groupLoopin, nfulnlCopyNone),
		h.events.listen(groupSent, nfulnlCopyAll),
		h.events.listen(groupInput, nfulnlCopyAll))
}

// devices makes the links and gives them addresses, routes, rules, neighbours.
func (h *host) devices(ctx context.Context) error {
	links, err := decode[ipLink](h.Host, "ip-link.json")
	if err != nil {
		return err
	}
	slices.SortFunc(links, func(a, b ipLink) int { return a.Index - b.Index })
	var b batch
	for i := range links {
		if err := h.device(&b, &links[i]); err != nil {
			return err
		}
	}
	for _, l := range links {
		if l.Master != "" {
			b.line("link set dev", l.Name, "master", l.Master)
		}
	}
	if err := h.network(&b, links); err != nil {
		return err
	}
	if _, err := tool(ctx, b.String(), "ip", "-batch", "-"); err != nil {
		return fmt.Errorf("%s: %w", h.Name, explainBatch(err, b.String()))
	}
	return nil
}

// explainBatch puts the failed line of an ip -batch behind its number.
func explainBatch(err error, text string) error {
	if err == nil {
		return nil
	}
	var n int
	at := strings.LastIndex(err.Error(), "Command failed -:")
	if at < 0 {
		return err
	}
	if _, scan := fmt.Sscanf(err.Error()[at:], "Command failed -:%d", &n); scan != nil {
		return err
	}
	if lines := strings.Split(text, "\n"); n >= 1 && n <= len(lines) {
		return fmt.Errorf("%w: %q", err, lines[n-1])
	}
	return err
}

func (h *host) device(b *batch, l *ipLink) error {
	kind, err := l.build(h.Host)
	if err != nil {
		return err
	}
	h.links[l.Index] = l.Name
	if kind == "tap" || kind == "tun" {
		t, err := openTap(l.Name, l.Index, kind == "tun")
		if err != nil {
			return fmt.Errorf("%s/ip-link.json: %w", h.Name, err)
		}
		h.taps = append(h.taps, t)
		if l.has("NO-CARRIER") {
			if err := t.carrier(false); err != nil {
				return err
			}
		}
	}
	b.device(l, kind)
	return nil
}

// network appends what stands on the links.
func (h *host) network(b *batch, links []ipLink) error {
	addrs, err := decode[ipAddr](h.Host, "ip-addr.json")
	if err != nil {
		return err
	}
	neighs, err := decode[ipNeigh](h.Host, "ip-neigh.json")
	if err != nil {
		return err
	}
	proxies, err := decode[ipNeigh](h.Host, "ip-neigh-proxy.json")
	if err != nil {
		return err
	}
	nexthops, err := decode[ipNexthop](h.Host, "ip-nexthop.json")
	if err != nil {
		return err
	}
	up := slices.ContainsFunc(links, func(l ipLink) bool { return l.Name == "lo" })
	if !up {
		b.line("link set dev lo up")
	}
	for _, l := range links {
		if l.has("UP") {
			b.line("link set dev", l.Name, "up")
		}
	}
	b.addresses(withoutLoopback(addrs), false)
	if err := b.routes(h.Files["ip-route"], nexthops); err != nil {
		return err
	}
	if err := b.rules(h.Host, "ip-rule.json"); err != nil {
		return err
	}
	b.neighbours(neighs, proxies, false)
	return nil
}

// withoutLoopback leaves out 127.0.0.1/8 of lo, which the kernel adds itself
// when lo goes up.
func withoutLoopback(addrs []ipAddr) []ipAddr {
	for i := range addrs {
		if addrs[i].Name != "lo" {
			continue
		}
		infos := addrs[i].Infos[:0:0]
		for _, a := range addrs[i].Infos {
			if a.Local != "127.0.0.1" || a.Len != 8 {
				infos = append(infos, a)
			}
		}
		addrs[i].Infos = infos
	}
	return addrs
}

// configure writes the sysctl file. Then an address comes and goes: routes keep the source
// that was chosen when they were made until then (nhc_saddr_genid), and it hangs on
// route_localnet.
func (h *host) configure(ctx context.Context) error {
	all, err := parseSysctl(h.Files["sysctl"])
	if err != nil {
		return fmt.Errorf("%s/%w", h.Name, err)
	}
	all = slices.DeleteFunc(all, func(s setting) bool { return ours(s.path) })
	for _, dev := range h.links {
		all = append(all, quietNeighbours(dev)...)
	}
	if err := writeSysctls(all); err != nil {
		return fmt.Errorf("%s/%w", h.Name, err)
	}
	if len(h.Setup) > 0 { // whose addresses are yet to come
		return nil
	}
	const passing = "addr add 127.77.77.77/32 dev lo\naddr del 127.77.77.77/32 dev lo\n"
	_, err = tool(ctx, passing, "ip", "-batch", "-")
	return err
}

// rulesFile is the iptables-save text, with the back end that loads it.
func (h *host) rulesFile() (string, Backend) {
	for _, f := range []struct {
		name    string
		backend Backend
	}{{"iptables-save", Auto}, {"iptables-legacy-save", Legacy}, {"iptables-nft-save", NFT}} {
		text, ok := h.Files[f.name]
		switch {
		case !ok:
		case h.backend != Auto:
			return text, h.backend
		case f.backend != Auto:
			return text, f.backend
		case strings.Contains(text, "(nf_tables)"):
			return text, NFT
		default:
			return text, Legacy
		}
	}
	return "", max(h.backend, Legacy)
}

// load restores sets and rules.
func (h *host) load(ctx context.Context) error {
	if h.Files["iptables-legacy-save"] != "" && h.Files["iptables-nft-save"] != "" {
		return &UnsupportedError{h.Name, "iptables-nft-save", "two sets of rules",
			"a run loads either legacy or nf_tables rules"}
	}
	for _, file := range []string{"ebtables-save", "arptables-save"} {
		if strings.TrimSpace(h.Files[file]) != "" {
			return &UnsupportedError{h.Name, file, "the file", "not laid out on this kernel"}
		}
	}
	if err := h.loadServices(ctx); err != nil {
		return err
	}
	if text := h.Files["ipset-save"]; strings.TrimSpace(text) != "" {
		if _, err := tool(ctx, text, "ipset", "restore"); err != nil {
			return fmt.Errorf("%s/ipset-save: %w", h.Name, err)
		}
	}
	text, backend := h.rulesFile()
	h.backend = backend
	if h.plain {
		return h.loadPlain(ctx, text)
	}
	if strings.TrimSpace(text) == "" {
		return nil
	}
	program := "iptables-legacy-restore"
	if backend == NFT {
		program = "iptables-nft-restore"
	}
	return h.restore(ctx, text, program)
}

// restore runs iptables-restore.
func (h *host) restore(ctx context.Context, text string, args ...string) error {
	if countsPolicies(text) {
		args = append(args, "--counters")
	}
	if _, err := tool(ctx, text, args...); err != nil {
		return fmt.Errorf("%s/iptables-save: %w", h.Name, err)
	}
	return nil
}

// countsPolicies tells whether every chain of a save file has counters. Restoring them
// is refused otherwise; those of rules alone decide nothing.
func countsPolicies(text string) bool {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, ":") && !strings.Contains(line, "[") {
			return false
		}
	}
	return true
}

// printed tells text that iptables-save printed, where the n-th line that appends to a
// declared chain is its n-th rule, from what people wrote for iptables-restore.
func printed(text string) bool {
	declared := map[string]bool{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) > 0 && strings.HasPrefix(f[0], "[") {
			f = f[1:]
		}
		switch {
		case len(f) == 0, f[0][0] == '#', f[0] == "COMMIT":
		case f[0][0] == '*':
			clear(declared)
		case f[0][0] == ':':
			declared[f[0][1:]] = true
		case len(f) < 2, f[0] != "-A", !declared[f[1]]:
			return false
		}
	}
	return true
}

// number learns the numbers of the rules.
func (h *host) number(ctx context.Context) error {
	h.book = rulebook{chains: map[chainKey]*chain{}}
	text, backend := h.rulesFile()
	if !printed(text) || len(h.Setup) > 0 {
		save := map[Backend]string{Legacy: "iptables-legacy-save", NFT: "iptables-nft-save"}
		var err error
		if text, err = tool(ctx, "", save[backend]); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	if h.plain && len(h.Setup) > 0 {
		h.tables = h.tablesMade(text)
	}
	if h.plain {
		text = withoutPlainProbes(text, h.hasTable)
		h.book.ours = plainCounts()
	}
	h.book.read("ip", text)
	if backend != NFT {
		return nil
	}
	if err := h.book.readHandles(h.ctl, unix.NFPROTO_IPV4); err != nil {
		return fmt.Errorf("%s: list of nf_tables rules: %w", h.Name, err)
	}
	return h.events.join(unix.NFNLGRP_NFTRACE)
}

// open makes the sockets and connections of the snapshot.
func (h *host) open(context.Context) error {
	all, err := parseSockets(h.Name, h.Files["sockets"])
	if err != nil {
		return err
	}
	for _, l := range all {
		fd, err := l.open()
		if err != nil {
			return fmt.Errorf("%s/sockets: %s %s %s: %w", h.Name, l.proto, l.state, l.local, err)
		}
		h.sockets = append(h.sockets, fd)
	}
	if err := h.ctl.preload(h.Name, h.Files["conntrack"]); err != nil {
		return err
	}
	text, _ := h.rulesFile()
	h.table.whole = strings.Contains(text, "--ctevents")
	if err := h.events.join(unix.NFNLGRP_CONNTRACK_NEW); err != nil {
		return err
	}
	if h.plain {
		if h.inputs, err = openInputs(); err != nil {
			return err
		}
	}
	return h.table.start(h.ctl)
}

// enter puts the thread into the host's namespace.
func (h *host) enter() error {
	return unix.Setns(h.ns, unix.CLONE_NEWNET)
}

func (h *host) tap(dev string) *tap {
	for _, t := range h.taps {
		if t.name == dev {
			return t
		}
	}
	return nil
}

func (h *host) dropKept() {
	for _, fd := range h.kept {
		unix.Close(fd)
	}
	clear(h.kept)
}

func (h *host) close() {
	h.dropKept()
	for _, fd := range h.sockets {
		unix.Close(fd)
	}
	var closing sync.WaitGroup
	for _, t := range h.taps { // each waits for RCU; together they wait once
		closing.Go(t.close)
	}
	closing.Wait()
	if h.inputs != nil {
		h.inputs.close()
	}
	for _, c := range []*conn{h.events, h.ctl} {
		if c != nil {
			c.close()
		}
	}
	if h.ns >= 0 {
		unix.Close(h.ns)
	}
}
