package link

import (
	"fmt"
	"slices"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// Config is what a Table is made of. Open layers are those that the snapshot
// lacks as a whole.
type Config struct {
	Links       []Link
	Addrs       []Addr // of one interface, in the kernel's order
	Neighs      []Neigh
	Proxies     []Proxy
	Memberships []Membership
	Sysctl      Sysctl

	OpenLinks  bool // the devices were invented, see Invent
	OpenAddrs  bool
	OpenNeighs bool // next hops resolve to 00:00:00:00:00:00
	// OpenGroups: no list of joined groups, so the kernel's own are assumed.
	OpenGroups bool

	// Schema gets the memory of learnt neighbours; nil learns nothing.
	Schema *world.Schema
}

// Table is what a host owns on the wire. It does not change once it is made and
// may be shared.
type Table struct {
	cfg    Config
	links  []Link // by index
	byName map[string]packet.Dev
	byDev  []int32 // place in links, -1 for none; by index where that is small
	far    map[packet.Dev]int32
	addrs  [][]Addr // by place in links
	owners map[packet.Addr]packet.Dev
	neighs map[neighKey]Neigh
	groups map[Membership]bool
	proxy  map[Proxy]bool
	learnt world.Slot[*world.Table[neighKey, learnt]]
}

// maxNear is the largest index that is looked up in a flat list.
const maxNear = 1 << 16

// New makes a Table. It fails where two links share an index or a name, or where
// an address or neighbour names a link that is not there.
func New(c Config) (*Table, error) {
	t := &Table{cfg: c, byName: map[string]packet.Dev{}, far: map[packet.Dev]int32{},
		owners: map[packet.Addr]packet.Dev{}, neighs: map[neighKey]Neigh{},
		groups: map[Membership]bool{}, proxy: map[Proxy]bool{}}
	t.links = slices.Clone(c.Links)
	slices.SortStableFunc(t.links, func(a, b Link) int { return int(a.Index) - int(b.Index) })
	if err := t.indexLinks(); err != nil {
		return nil, err
	}
	if err := t.addAddrs(); err != nil {
		return nil, err
	}
	t.addNeighs()
	if c.Schema != nil {
		t.learnt = world.Add(c.Schema, world.NewTable[neighKey, learnt])
	}
	return t, nil
}

func (t *Table) indexLinks() error {
	for i := range t.links {
		l := &t.links[i]
		if l.Index == 0 {
			return fmt.Errorf("link %q: index 0", l.Name)
		}
		if _, ok := t.place(l.Index); ok {
			return fmt.Errorf("link %q: index %d is taken", l.Name, l.Index)
		}
		t.setPlace(l.Index, i)
		for _, name := range append([]string{l.Name}, l.AltNames...) {
			if _, ok := t.byName[name]; ok {
				return fmt.Errorf("link %q: the name %q is taken", l.Name, name)
			}
			t.byName[name] = l.Index
		}
		l.Conf = newConf(t.cfg.Sysctl, l)
	}
	t.addrs = make([][]Addr, len(t.links))
	return nil
}

func (t *Table) setPlace(dev packet.Dev, i int) {
	if dev >= maxNear {
		t.far[dev] = int32(i)
		return
	}
	for int(dev) >= len(t.byDev) {
		t.byDev = append(t.byDev, -1)
	}
	t.byDev[dev] = int32(i)
}

// place finds a link by its index.
func (t *Table) place(dev packet.Dev) (int, bool) {
	if int(dev) < len(t.byDev) {
		i := t.byDev[dev]
		return int(i), i >= 0
	}
	if dev < maxNear {
		return 0, false
	}
	i, ok := t.far[dev]
	return int(i), ok
}

func (t *Table) addAddrs() error {
	for _, a := range t.cfg.Addrs {
		i, ok := t.place(a.Dev)
		if !ok {
			return fmt.Errorf("address %s: no link has index %d", a.Local, a.Dev)
		}
		if a.PrefixLen < 0 || a.PrefixLen > width(a.Local) {
			return fmt.Errorf("address %s: prefix length %d", a.Local, a.PrefixLen)
		}
		t.addrs[i] = append(t.addrs[i], a)
		t.owners[a.Local] = a.Dev
	}
	return nil
}

func width(a packet.Addr) int {
	if a.Is4() {
		return 32
	}
	return 128
}

func (t *Table) addNeighs() {
	for _, n := range t.cfg.Neighs {
		t.neighs[neighKey{n.Dev, n.Addr}] = n
	}
	for _, p := range t.cfg.Proxies {
		t.proxy[p] = true
	}
	for _, m := range t.cfg.Memberships {
		t.groups[m] = true
	}
}

// Invent makes links for a host of which only names are known, with stable
// indexes: lo is 1, then the names in the given order.
func Invent(names []string) []Link {
	lo := Link{Index: Loopback, Name: "lo", MTU: 65536, Flags: Up | LowerUp | LoopbackFlag}
	out := []Link{lo}
	for _, name := range names {
		if slices.ContainsFunc(out, func(l Link) bool { return l.Name == name }) {
			continue
		}
		out = append(out, Link{Index: packet.Dev(len(out) + 1), Name: name, MTU: 1500,
			Bcast: packet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
			Flags: Up | LowerUp | Broadcast | Multicast})
	}
	return out
}

// Open tells which layers the snapshot lacks as a whole.
func (t *Table) Open() (links, addrs, neighs bool) {
	return t.cfg.OpenLinks, t.cfg.OpenAddrs, t.cfg.OpenNeighs
}

// Sysctl returns the settings that the table was made with.
func (t *Table) Sysctl() Sysctl { return t.cfg.Sysctl }

// ByIndex returns a link, nil when there is none with this index.
func (t *Table) ByIndex(dev packet.Dev) *Link {
	if i, ok := t.place(dev); ok {
		return &t.links[i]
	}
	return nil
}

// ByName returns a link by its name or another name of it, nil for none.
func (t *Table) ByName(name string) *Link {
	if dev, ok := t.byName[name]; ok {
		return t.ByIndex(dev)
	}
	return nil
}

// Name is a link's name; for an index that is not there it is "ifN", as
// iproute2 prints it, and for zero it is empty.
func (t *Table) Name(dev packet.Dev) string {
	if l := t.ByIndex(dev); l != nil {
		return l.Name
	}
	if dev == 0 {
		return ""
	}
	return fmt.Sprintf("if%d", dev)
}

// All returns the links in the order of their indexes, which is the order in
// which the kernel walks them. It must not be changed.
func (t *Table) All() []Link { return t.links }

// Addrs returns the addresses of a link in the kernel's order. It must not be
// changed.
func (t *Table) Addrs(dev packet.Dev) []Addr {
	if i, ok := t.place(dev); ok {
		return t.addrs[i]
	}
	return nil
}

// Owner returns the link that has an address. Where several have it, the kernel
// finds the one that got it last; here it is the last in the list.
//
// Kernel: net/ipv4/devinet.c, inet_lookup_ifaddr_rcu.
func (t *Table) Owner(a packet.Addr) (packet.Dev, bool) {
	dev, ok := t.owners[a]
	return dev, ok
}

// L3Master is the VRF that a link is or is enslaved to, zero for none.
//
// Kernel: net/l3mdev/l3mdev.c, l3mdev_master_ifindex_rcu.
func (t *Table) L3Master(dev packet.Dev) packet.Dev {
	l := t.ByIndex(dev)
	if l == nil {
		return 0
	}
	if l.IsVRF() {
		return dev
	}
	if m := t.ByIndex(l.Master); m != nil && m.IsVRF() {
		return m.Index
	}
	return 0
}

// VRFTable is the routing table of a link's VRF, zero for none.
//
// Kernel: net/l3mdev/l3mdev.c, l3mdev_fib_table_rcu.
func (t *Table) VRFTable(dev packet.Dev) uint32 {
	if m := t.ByIndex(t.L3Master(dev)); m != nil {
		return m.Table
	}
	return 0
}

// Joined tells whether a link has joined a multicast group. Without a list of
// groups every link that is up has joined 224.0.0.1.
//
// Kernel: net/ipv4/igmp.c, ip_check_mc_rcu (groups without source lists).
func (t *Table) Joined(dev packet.Dev, group packet.Addr) bool {
	if !t.cfg.OpenGroups {
		return t.groups[Membership{dev, group}]
	}
	l := t.ByIndex(dev)
	return l != nil && l.Is(Up) && group == packet.V4(0xe0000001)
}
