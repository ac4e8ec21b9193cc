package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/lab"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// hosts are those that a question can be put to.
type hosts struct {
	nodes []*node
	now   world.Instant
	// infer lets hosts be joined by cables that no meta.json names.
	infer bool
}

// node is a host with the snapshot that it was built from.
type node struct {
	*walk.Host
	dir     *snapshot.Dir
	assumed []string
	devs    []string // interfaces that questions named
	changes []string // commands that change the host
	now     world.Instant
}

// loadHosts reads snapshots; without any, the live machine.
func loadHosts(e *Env, paths []string) (*hosts, error) {
	l := &hosts{now: e.instant()}
	if len(paths) == 0 {
		dir, err := snapshot.Live()
		if err != nil {
			return nil, err
		}
		return l, l.add(dir)
	}
	for _, p := range paths {
		dirs, err := readSnapshot(p)
		if err != nil {
			return nil, err
		}
		if err := l.add(dirs...); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// readSnapshot reads a path, or a demo by its name ("demo:docker-host").
func readSnapshot(p string) ([]*snapshot.Dir, error) {
	if name, ok := strings.CutPrefix(p, demoPrefix); ok {
		fsys, err := demoFS(name)
		if err != nil {
			return nil, err
		}
		return snapshot.ReadFS(fsys, name)
	}
	return snapshot.Read(p)
}

func (l *hosts) add(dirs ...*snapshot.Dir) error {
	for _, d := range dirs {
		n := &node{dir: d, now: l.now}
		if err := n.build(); err != nil {
			return err
		}
		if l.find(n.Name) != nil {
			return fmt.Errorf("two snapshots are of a host named %q: meta.json can name it", n.Name)
		}
		l.nodes = append(l.nodes, n)
	}
	return nil
}

// build makes the host, anew when a question named another interface.
func (n *node) build() error {
	cfg, err := n.dir.Config(snapshot.Options{Devs: n.devs, Now: n.now, Changes: n.changes})
	if err != nil {
		return err
	}
	h, assumed, err := walk.Build(cfg)
	if err != nil {
		return err
	}
	n.Host, n.assumed = h, nil
	for _, a := range assumed {
		n.assumed = append(n.assumed, string(a))
	}
	n.assumed = append(n.assumed, h.Routes.Assumed()...)
	return nil
}

// device finds an interface by its name. Where the snapshot lists none, a name that
// is new makes one: memory of questions before stays good, as indexes are stable.
func (n *node) device(name string) (packet.Dev, error) {
	if l := n.Links.ByName(name); l != nil {
		return l.Index, nil
	}
	if !n.Config().OpenLinks || name == "" {
		return 0, fmt.Errorf("host %s has no interface %q: it has %s", n.Name, name, n.linkNames())
	}
	n.devs = append(n.devs, name)
	if err := n.build(); err != nil {
		return 0, err
	}
	if l := n.Links.ByName(name); l != nil {
		return l.Index, nil
	}
	return 0, fmt.Errorf("%q can't be the name of an interface", name)
}

func (n *node) linkNames() string {
	var names []string
	for i := range n.Links.All() {
		names = append(names, n.Links.All()[i].Name)
	}
	const most = 20
	if len(names) > most {
		names = append(names[:most], "...")
	}
	return strings.Join(names, ", ")
}

func (l *hosts) find(name string) *node {
	i := slices.IndexFunc(l.nodes, func(n *node) bool { return n.Name == name })
	if i < 0 {
		return nil
	}
	return l.nodes[i]
}

// owner is the one host that has an address; nil for none or several.
func (l *hosts) owner(a packet.Addr) *node {
	var out *node
	for _, n := range l.nodes {
		if _, own := n.Links.Owner(a); !own || a.IsZero() {
			continue
		}
		if out != nil {
			return nil
		}
		out = n
	}
	return out
}

// host finds the host of a question; the name may be left out when there is one.
func (l *hosts) host(name string) (*node, error) {
	if name == "" && len(l.nodes) == 1 {
		return l.nodes[0], nil
	}
	if n := l.find(name); n != nil {
		return n, nil
	}
	var names []string
	for _, n := range l.nodes {
		names = append(names, n.Name)
	}
	if name == "" {
		return nil, fmt.Errorf("the question has to name a host: %s", strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("no host %q: there is %s", name, strings.Join(names, ", "))
}

// joined is the hosts as they are joined by cables.
func (l *hosts) joined() *lab.Lab {
	out := &lab.Lab{Infer: l.infer}
	for _, n := range l.nodes {
		out.Hosts = append(out.Hosts, n.Host)
	}
	return out
}
