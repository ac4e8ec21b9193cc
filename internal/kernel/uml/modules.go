package uml

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/hookpath/hookpath/internal/kernel"
)

// moduleFolders are those whose modules every machine loads, all of them: a module
// that is missing shows only as a match that iptables does not know.
func moduleFolders() []string {
	return []string{"kernel/net/netfilter/", "kernel/net/ipv4/netfilter/",
		"kernel/net/ipv6/netfilter/", "kernel/net/bridge/"}
}

// moduleNames are further ones that every machine loads: text searches, which a helper
// and -m string ask for, devices, and what ss asks: /proc lacks a socket's device and mark.
func moduleNames() []string {
	return []string{"ts_kmp", "ts_bm", "ts_fsm", "tun", "veth", "dummy", "8021q", "macvlan", "vrf",
		"udp_diag", "raw_diag"}
}

// leftOut are of no use: nf_tables has no family for IP in this kernel, and what the
// trackers of H.323 need is not built for it.
func leftOut(name string) bool {
	return slices.ContainsFunc([]string{"nft_", "nf_tables", "nf_flow_table", "nf_conntrack_bridge",
		"nf_conntrack_h323", "nf_nat_h323"},
		func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// modules is a kernel's modules.dep: what each needs, by path, nearest first.
type modules struct {
	dir   string
	order []string
	needs map[string][]string
}

func readModules() (*modules, error) {
	release, err := kernel.Release()
	if err != nil {
		return nil, err
	}
	m := &modules{dir: filepath.Join(moduleDir, release), needs: map[string][]string{}}
	text, err := os.ReadFile(filepath.Join(m.dir, "modules.dep"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		path, needs, ok := strings.Cut(line, ":")
		if ok {
			m.order = append(m.order, path)
			m.needs[path] = strings.Fields(needs)
		}
	}
	return m, nil
}

func moduleName(path string) string {
	return strings.TrimSuffix(filepath.Base(path), ".ko")
}

// wanted tells whether every machine loads a module for its folder.
func wanted(path string) bool {
	return !leftOut(moduleName(path)) && slices.ContainsFunc(moduleFolders(),
		func(f string) bool { return strings.HasPrefix(path, f) })
}

// load loads what every machine has, and some more modules by name.
func (g *guest) load(more []string) error {
	m, err := readModules()
	if err != nil {
		return err
	}
	for _, name := range append(moduleNames(), more...) {
		i := slices.IndexFunc(m.order, func(path string) bool { return moduleName(path) == name })
		if i < 0 {
			return fmt.Errorf("%s has no module %s", m.dir, name)
		}
		if err := g.insert(m, m.order[i]); err != nil {
			return err
		}
	}
	for _, path := range m.order {
		if !wanted(path) {
			continue
		}
		if err := g.insert(m, path); err != nil {
			return err
		}
	}
	return nil
}

// insert loads a module behind those that it needs.
func (g *guest) insert(m *modules, path string) error {
	needs := m.needs[path]
	for i := len(needs) - 1; i >= 0; i-- {
		if err := g.insertOne(m, needs[i]); err != nil {
			return err
		}
	}
	return g.insertOne(m, path)
}

func (g *guest) insertOne(m *modules, path string) error {
	if g.loaded[path] {
		return nil
	}
	g.loaded[path] = true
	f, err := os.Open(filepath.Join(m.dir, path))
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", moduleName(path), err)
	}
	return nil
}
