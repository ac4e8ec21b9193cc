package ipvs

import "github.com/hookpath/hookpath/world"

// destinationHash takes the server that the packet's destination hashes to, or none. The
// kernel's table has the servers over and over in the order of the list, which is the
// remainder of a place by their number.
//
// Kernel: net/netfilter/ipvs/ip_vs_dh.c.
type destinationHash struct{}

// dhBits is the size of the table. Kernel: CONFIG_IP_VS_DH_TAB_BITS, which no
// configuration sets.
const dhBits = 8

func newDestinationHash(*world.Schema, *service) scheduler { return destinationHash{} }

func (destinationHash) schedule(c call) int {
	n := len(c.svc.Dests)
	if n == 0 {
		return -1
	}
	i := int(hash32(fold(c.svc.Family, c.dst), dhBits)) % n
	if !c.open(i) {
		return -1
	}
	return i
}
