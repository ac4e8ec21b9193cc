package ipvs

import (
	"math/bits"
	"sync"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// maglev takes the server that the client's address hashes to in a table that changes
// little when servers come and go. It is filled when it is first asked for.
//
// Kernel: net/netfilter/ipvs/ip_vs_mh.c; the keys of its hashes are fixed.
type maglev struct{ table func() []int32 }

// mhSize is the size of the table, a prime, and mhBits as much of a weight as counts.
// Kernel: CONFIG_IP_VS_MH_TAB_INDEX, 12 in the kernels of distributions.
const (
	mhSize = 4093
	mhBits = 6
)

// mhPlace and mhSkip are the keys that a server's first place and its steps come from.
//
// Kernel: net/netfilter/ipvs/ip_vs_mh.c, generate_hash_secret.
func mhPlace() sipKey { return sipKey{2654435761, 2654435761} }
func mhSkip() sipKey  { return sipKey{2654446892, 2654446892} }

func newMaglev(_ *world.Schema, svc *service) scheduler {
	return &maglev{sync.OnceValue(func() []int32 { return maglevTable(svc.Family, svc.Dests) })}
}

func (m *maglev) schedule(c call) int {
	table, key := m.table(), c.clientKey()
	if table == nil {
		return -1
	}
	place := hsiphash(key, mhPlace()) % mhSize
	if i := int(table[place]); c.open(i) {
		return i
	}
	if c.svc.Flags&fallback == 0 {
		return -1
	}
	for k := range uint32(mhSize) {
		at := hsiphash(key+(place+k)%mhSize, mhPlace()) % mhSize
		if i := int(table[at]); c.open(i) {
			return i
		}
	}
	return -1
}

// maglevServer is a server that takes its places in the table.
//
// Kernel: net/netfilter/ipvs/ip_vs_mh.c, struct ip_vs_mh_dest_setup.
type maglevServer struct {
	next, skip uint32
	turns      int // places it takes when its turn comes
}

// maglevTable lets the servers take places by turns, each the first free one on its own
// way through the table; nil where none has a weight. When more servers are added than
// there are places, the kernel refuses to count the last ones in.
//
// Kernel: net/netfilter/ipvs/ip_vs_mh.c, ip_vs_mh_reassign and ip_vs_mh_populate.
func maglevTable(f trace.Family, dests []Dest) []int32 {
	first := max(0, len(dests)-mhSize)
	servers := maglevServers(f, dests[first:])
	if servers == nil {
		return nil
	}
	table := make([]int32, mhSize)
	for i := range table {
		table[i] = -1
	}
	for n := 0; ; {
		for i := range servers {
			s := &servers[i]
			for range s.turns {
				table[s.take(table)] = int32(first + i)
				if n++; n == mhSize {
					return table
				}
			}
		}
	}
}

// take finds the next free place.
func (s *maglevServer) take(table []int32) uint32 {
	for table[s.next] >= 0 {
		s.next = (s.next + s.skip) % mhSize
	}
	return s.next
}

// maglevServers prepares the servers; nil where none has a weight.
//
// Kernel: net/netfilter/ipvs/ip_vs_mh.c, ip_vs_mh_permutate.
func maglevServers(f trace.Family, dests []Dest) []maglevServer {
	common, shift := maglevScale(dests)
	if common == 0 {
		return nil
	}
	all := make([]maglevServer, len(dests))
	for i := range dests {
		d := &dests[i]
		key := destKey(f, d) + uint32(d.Port)
		turns := d.Weight / common >> shift
		if turns == 0 && d.Weight != 0 {
			turns = 1
		}
		all[i] = maglevServer{next: hsiphash(key, mhPlace()) % mhSize,
			skip: hsiphash(key, mhSkip())%(mhSize-1) + 1, turns: turns}
	}
	return all
}

// maglevScale is what weights are divided and shifted by, so that none takes the table in
// one turn; zero where none has a weight.
//
// Kernel: net/netfilter/ipvs/ip_vs_mh.c, ip_vs_mh_gcd_weight and ip_vs_mh_shift_weight.
func maglevScale(dests []Dest) (common, shift int) {
	most := 0
	for i := range dests {
		common = gcd(common, dests[i].Weight)
		most = max(most, dests[i].Weight)
	}
	if common == 0 {
		return 0, 0
	}
	return common, max(0, bits.Len(uint(most/common))-mhBits)
}

// destKey is what is hashed of a server's address: it is taken for one of the service's
// family. An IPv6 server of an IPv4 service gives its first word, an IPv4 server of an IPv6
// service the only one that it has.
func destKey(f trace.Family, d *Dest) uint32 {
	switch {
	case d.Addr.Is4():
		return d.Addr.Uint32()
	case f == trace.IPv4:
		return word(d.Addr, 0)
	}
	return fold(f, d.Addr)
}
