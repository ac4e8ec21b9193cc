package ipvs

import "github.com/hookpath/hookpath/world"

// The flags of sh and mh: another server where the chosen one is not to be had, and the
// client's port hashed with its address (ipvsadm -b sh-fallback, sh-port, mh-fallback,
// mh-port).
const (
	fallback = Sched1
	withPort = Sched2
)

// sourceHash takes the server that the client's address hashes to.
//
// Kernel: net/netfilter/ipvs/ip_vs_sh.c.
type sourceHash struct{ table [shSize]int32 }

// shBits is the size of the table. Kernel: CONFIG_IP_VS_SH_TAB_BITS, 8 in the kernels of
// distributions.
const (
	shBits = 8
	shSize = 1 << shBits
)

// newSourceHash fills the table: each server has as many places as its weight, one if that
// is zero, over and over.
//
// Kernel: net/netfilter/ipvs/ip_vs_sh.c, ip_vs_sh_reassign.
func newSourceHash(_ *world.Schema, svc *service) scheduler {
	sh := &sourceHash{}
	server, places := 0, 0
	for i := range sh.table {
		if len(svc.Dests) == 0 {
			sh.table[i] = -1
			continue
		}
		sh.table[i] = int32(server)
		if places++; places >= svc.Dests[server].Weight {
			server, places = (server+1)%len(svc.Dests), 0
		}
	}
	return sh
}

func (sh *sourceHash) schedule(c call) int {
	place := hash32(c.clientKey(), shBits)
	i := int(sh.table[place])
	switch {
	case i < 0 || c.open(i):
		return i
	case c.svc.Flags&fallback == 0:
		return -1
	}
	// The kernel adds the first place twice: it looks on from there by as much again.
	for k := range uint32(shSize) {
		if i := int(sh.table[(2*place+k)%shSize]); c.open(i) {
			return i
		}
	}
	return -1
}

// clientKey is what sh and mh hash of a client.
//
// Kernel: net/netfilter/ipvs/ip_vs_sh.c, ip_vs_sh_get_port and ip_vs_sh_hashkey; the same
// in ip_vs_mh.c.
func (c *call) clientKey() uint32 {
	key := fold(c.svc.Family, c.src)
	if c.svc.Flags&withPort != 0 {
		key += uint32(c.sport)
	}
	return key
}
