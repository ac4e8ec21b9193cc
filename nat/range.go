// Package nat chooses how a connection is translated and rewrites its packets.
//
// On a packet's way it stands behind mangle in PREROUTING and OUTPUT (destinations)
// and behind filter in INPUT and POSTROUTING (sources). Only a connection's first
// packet is asked about; later ones are rewritten as their connection says.
//
// Kernel: net/netfilter/nf_nat_core.c, nf_nat_proto.c and nf_nat_masquerade.c.
package nat

import (
	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// Flags say what of a Range counts.
//
// Kernel: include/uapi/linux/netfilter/nf_nat.h, NF_NAT_RANGE_*.
type Flags uint8

// The flags, with the kernel's numbers.
const (
	MapIPs Flags = 1 << iota
	ProtoSpecified
	ProtoRandom
	Persistent
	ProtoRandomFully
	ProtoOffset
	Netmap

	protoRandomAll = ProtoRandom | ProtoRandomFully
)

// Range is what a rule allows a connection to be mapped to. The zero Range allows
// everything, and maps to what the packet has.
//
// Kernel: include/uapi/linux/netfilter/nf_nat.h, nf_nat_range2.
type Range struct {
	Flags                      Flags
	MinAddr, MaxAddr           packet.Addr
	MinPort, MaxPort, BasePort uint16
}

func (r *Range) has(f Flags) bool { return r.Flags&f != 0 }

// At returns r with its address replaced by a single one.
func (r Range) At(a packet.Addr) Range {
	r.Flags |= MapIPs
	r.MinAddr, r.MaxAddr = a, a
	return r
}

// Manip is what is translated.
type Manip uint8

// The manipulations, with the kernel's numbers.
const (
	Src Manip = iota
	Dst
)

// Not returns the other manipulation.
func (m Manip) Not() Manip { return m ^ 1 }

// ManipOf is what a hook translates.
//
// Kernel: include/net/netfilter/nf_nat.h, HOOK2MANIP.
func ManipOf(h trace.Hook) Manip {
	if h == trace.Postrouting || h == trace.Input {
		return Src
	}
	return Dst
}

// bit is the status of a connection that is translated so.
func (m Manip) bit() conntrack.Status { return conntrack.SrcNAT << m }

// done is the status of a connection for which it was decided.
func (m Manip) done() conntrack.Status { return conntrack.SrcNATDone << m }

// inAddrs tells whether the source address lies in the range.
//
// Kernel: net/netfilter/nf_nat_core.c, nf_nat_inet_in_range.
func (r *Range) inAddrs(a packet.Addr) bool {
	return !less(a, r.MinAddr) && !less(r.MaxAddr, a)
}

func less(a, b packet.Addr) bool {
	for i := range a {
		if a[i] != b[i] {
			return a[i] < b[i]
		}
	}
	return false
}
