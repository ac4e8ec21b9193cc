package match

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"

	ct "github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// flowOf returns the packet's connection, nil for none.
func flowOf(e *xtables.Env) *ct.Flow { return e.Conntrack.Get(e.World, e.Packet.CT.Flow) }

// helper matches connections that a helper of another connection foresaw, by the
// helper's name. A name that is longer than the helper's matches too (ftp-2121).
//
// Kernel: net/netfilter/xt_helper.c, helper_mt.
type helper struct {
	Name xtables.Text
	Not  bool
}

func newHelper() xtables.Match { return &helper{Name: xtables.Text{Max: 29}} }

// Options implements xtables.Match.
func (m *helper) Options(s *xtables.Spec) { s.Var("helper", &m.Name).Not(&m.Not).Required() }

// Pred implements xtables.Match.
func (m *helper) Pred(*xtables.Build) field.Pred {
	return xtables.Derived(func(e *xtables.Env) bool {
		f := flowOf(e)
		if f == nil || f.Master == 0 {
			return m.Not
		}
		master := e.Conntrack.Get(e.World, f.Master)
		if master == nil || master.Helper == ct.NoHelper {
			return m.Not
		}
		return (m.Name.S == "" || strings.HasPrefix(m.Name.S, master.Helper.String())) != m.Not
	}, field.CtState, field.CtHelper)
}

// connbytes matches how many packets or bytes a connection has had, or how long its
// packets were on average. Without accounting it matches nothing.
//
// Kernel: net/netfilter/xt_connbytes.c, connbytes_mt.
type connbytes struct {
	Range     countRange
	Mode, Dir xtables.Enum
	Not       bool
}

var (
	connbytesModes = []string{"packets", "bytes", "avgpkt"}
	connbytesDirs  = []string{"original", "reply", "both"}
)

func newConnbytes() xtables.Match {
	return &connbytes{Mode: xtables.Enum{Words: connbytesModes},
		Dir: xtables.Enum{Words: connbytesDirs}}
}

// Options implements xtables.Match.
func (m *connbytes) Options(s *xtables.Spec) {
	s.Var("connbytes", &m.Range).Not(&m.Not).Required()
	s.Var("connbytes-mode", &m.Mode).Required()
	s.Var("connbytes-dir", &m.Dir).Required()
	s.Check(func(*xtables.Context) error {
		// The kernel knows a negated range by its swapped ends.
		m.Not = m.Not && m.Range.lo != m.Range.hi
		return nil
	})
}

// Pred implements xtables.Match.
func (m *connbytes) Pred(b *xtables.Build) field.Pred {
	b.Conntrack.Account()
	return xtables.Derived(func(e *xtables.Env) bool {
		f := flowOf(e)
		if f == nil {
			return false
		}
		n := m.count(f)
		return (n >= m.Range.lo && n <= m.Range.hi) != m.Not
	}, m.reads()...)
}

// reads: the present packet counts too, but a segment that tracking passes over by its
// numbers does not.
func (m *connbytes) reads() []field.ID {
	const packets = 0
	if m.Mode.N == packets {
		return []field.ID{field.CtState, field.TCPFlags, field.Bytes}
	}
	return []field.ID{field.CtState, field.TCPFlags, field.Bytes, field.Len}
}

func (m *connbytes) count(f *ct.Flow) uint64 {
	var packets, size uint64
	for d := range uint32(2) {
		if m.Dir.N == d || m.Dir.N == 2 {
			packets += f.Packets[d]
			size += f.Bytes[d]
		}
	}
	switch {
	case m.Mode.N == 0:
		return packets
	case m.Mode.N == 1:
		return size
	case packets == 0:
		return 0
	}
	return size / packets
}

// countRange is from[:to] in 64 bits; without an end there is none.
type countRange struct{ lo, hi uint64 }

// Parse implements xtables.Value.
func (v *countRange) Parse(a *xtables.Args) (err error) {
	lo, hi, _ := strings.Cut(a.Word, ":")
	*v = countRange{0, ^uint64(0)}
	if lo != "" {
		if v.lo, err = xtables.ParseUint(lo, ^uint64(0)); err != nil {
			return err
		}
	}
	if hi != "" {
		if v.hi, err = xtables.ParseUint(hi, ^uint64(0)); err != nil {
			return err
		}
	}
	if v.lo > v.hi {
		return fmt.Errorf("%q: the first number is greater than the last", a.Word)
	}
	return nil
}

// Append implements xtables.Value.
func (v *countRange) Append(b []byte, _ trace.Family) []byte {
	b = strconv.AppendUint(b, v.lo, 10)
	if v.hi == ^uint64(0) {
		return b
	}
	return strconv.AppendUint(append(b, ':'), v.hi, 10)
}

// Unset implements xtables.Value.
func (v *countRange) Unset() bool { return false }

// connlabel matches a label of the connection, and with --set gives it one that it
// lacks. Without a connection only the negation matches.
//
// Kernel: net/netfilter/xt_connlabel.c, connlabel_mt.
type connlabel struct {
	Label label
	Set   bool
	Not   bool
}

func newConnlabel() xtables.Match { return &connlabel{} }

// Options implements xtables.Match.
func (m *connlabel) Options(s *xtables.Spec) {
	s.Var("label", &m.Label).Not(&m.Not).Required()
	s.Flag("set", &m.Set)
}

// Pred implements xtables.Match.
func (m *connlabel) Pred(*xtables.Build) field.Pred {
	n := uint(m.Label)
	if !m.Set {
		bit := field.Value{Lo: 1 << n}
		if n >= 64 {
			bit = field.Value{Hi: 1 << (n - 64)}
		}
		has := field.NotIf(m.Not, field.Is(field.CtLabel, field.Masked(bit, bit)))
		return field.Or(field.And(noConn(), always(m.Not)), field.And(field.Not(noConn()), has))
	}
	return xtables.Call(func(e *xtables.Env) bool {
		f := flowOf(e)
		if f == nil {
			return m.Not
		}
		f.Labels[n/8] |= 1 << (n % 8)
		return !m.Not
	}, field.CtState)
}

// label is the number of a label; names are in a file that is not in a snapshot.
type label uint8

// Parse implements xtables.Value.
func (v *label) Parse(a *xtables.Args) error {
	n, err := xtables.ParseUint(a.Word, 127)
	if err != nil {
		return fmt.Errorf("%q is not the number of a label, 0-127 (names can't be looked up)",
			a.Word)
	}
	*v = label(n)
	return nil
}

// Append implements xtables.Value.
func (v label) Append(b []byte, _ trace.Family) []byte {
	return append(strconv.AppendUint(append(b, '"'), uint64(v), 10), '"')
}

// Unset implements xtables.Value.
func (v label) Unset() bool { return false }

// cluster matches the connections that this node of a cluster is to handle, by a
// hash of who began them.
//
// Kernel: net/netfilter/xt_cluster.c, xt_cluster_mt.
type cluster struct {
	Nodes, Seed number
	Mask, Node  number
	Not         bool
}

const clusterMost = 32 // XT_CLUSTER_NODES_MAX

func newCluster() xtables.Match {
	return &cluster{Nodes: number{Min: 1, Max: clusterMost}, Seed: number{hex: 8},
		Mask: number{hex: 8}, Node: number{Min: 1, Max: clusterMost}}
}

// Options implements xtables.Match.
func (m *cluster) Options(s *xtables.Spec) {
	s.Var("cluster-local-nodemask", &m.Mask).Not(&m.Not)
	s.Var("cluster-local-node", &m.Node).Not(&m.Not).Hidden()
	s.Var("cluster-total-nodes", &m.Nodes).Required()
	s.Var("cluster-hash-seed", &m.Seed).Required()
	s.ExactlyOne("cluster-local-nodemask", "cluster-local-node")
	s.Check(func(*xtables.Context) error {
		if m.Node.given {
			m.Mask.n, m.Mask.given = 1<<(m.Node.n-1), true
		}
		if m.Mask.n >= 1<<m.Nodes.n {
			return fmt.Errorf("the local node is not one of %d", m.Nodes.n)
		}
		return nil
	})
}

// Pred implements xtables.Match. It may change for whom the packet is taken to be.
func (m *cluster) Pred(*xtables.Build) field.Pred {
	return xtables.Call(func(e *xtables.Env) bool {
		p := e.Packet
		if p.Type == packet.Multicast && !isMulticast(p.Dst()) {
			p.Type = packet.Host
		}
		f := flowOf(e)
		if f == nil {
			return false
		}
		if master := e.Conntrack.Get(e.World, f.Master); master != nil {
			f = master
		}
		return (m.Mask.n>>m.node(f.Tuples[ct.Original].Src)&1 != 0) != m.Not
	}, field.CtOrigSrc, field.Dst, field.PktType)
}

func isMulticast(a packet.Addr) bool {
	if a.Is4() {
		return a.Uint32()>>28 == 0xe
	}
	return a[0] == 0xff
}

// node is the number of the node that a source falls to, on a machine that stores
// numbers with the low octet first.
func (m *cluster) node(src packet.Addr) uint64 {
	words := make([]uint32, 0, 4)
	for b := src.Bytes(); len(b) >= 4; b = b[4:] {
		words = append(words, uint32(b[0])|uint32(b[1])<<8|uint32(b[2])<<16|uint32(b[3])<<24)
	}
	return uint64(jhash(words, uint32(m.Seed.n))) * m.Nodes.n >> 32
}

// jhash mirrors jhash2, and for one word jhash_1word, which agrees with it.
//
// Kernel: include/linux/jhash.h.
func jhash(k []uint32, seed uint32) uint32 {
	const initial = 0xdeadbeef
	a := initial + uint32(len(k))<<2 + seed
	b, c := a, a
	for ; len(k) > 3; k = k[3:] {
		a, b, c = a+k[0], b+k[1], c+k[2]
		a -= c
		a ^= bits.RotateLeft32(c, 4)
		c += b
		b -= a
		b ^= bits.RotateLeft32(a, 6)
		a += c
		c -= b
		c ^= bits.RotateLeft32(b, 8)
		b += a
		a -= c
		a ^= bits.RotateLeft32(c, 16)
		c += b
		b -= a
		b ^= bits.RotateLeft32(a, 19)
		a += c
		c -= b
		c ^= bits.RotateLeft32(b, 4)
		b += a
	}
	switch len(k) {
	case 3:
		c += k[2]
		fallthrough
	case 2:
		b += k[1]
		fallthrough
	case 1:
		a += k[0]
	case 0:
		return c
	}
	return jhashFinal(a, b, c)
}

func jhashFinal(a, b, c uint32) uint32 {
	c = (c ^ b) - bits.RotateLeft32(b, 14)
	a = (a ^ c) - bits.RotateLeft32(c, 11)
	b = (b ^ a) - bits.RotateLeft32(a, 25)
	c = (c ^ b) - bits.RotateLeft32(b, 16)
	a = (a ^ c) - bits.RotateLeft32(c, 4)
	b = (b ^ a) - bits.RotateLeft32(a, 14)
	return (c ^ b) - bits.RotateLeft32(b, 24)
}
