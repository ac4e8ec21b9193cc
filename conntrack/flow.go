package conntrack

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Status is the set of a connection's status bits.
//
// Kernel: include/uapi/linux/netfilter/nf_conntrack_common.h, ip_conntrack_status.
type Status uint32

// The bits, with the kernel's numbers.
const (
	Expected Status = 1 << iota
	SeenReply
	Assured
	Confirmed
	SrcNAT
	DstNAT
	SeqAdjust
	SrcNATDone
	DstNATDone
	Dying
	FixedTimeout
	TemplateBit
	NATClash
	HelperBit
	Offload
	HWOffload

	NATMask     = SrcNAT | DstNAT
	NATDoneMask = SrcNATDone | DstNATDone
)

// Zone separates connections with equal tuples. Dir says in which directions the
// number counts. The zero Zone is the default zone.
//
// Kernel: include/net/netfilter/nf_conntrack_zones.h.
type Zone struct {
	ID  uint16
	Dir ZoneDir
}

// ZoneDir is the direction that a zone is for.
type ZoneDir uint8

// The directions; the zero one is both.
const (
	ZoneBoth ZoneDir = iota
	ZoneOrig
	ZoneReply
)

// In returns the zone's number in a direction.
//
// Kernel: nf_ct_zone_id.
func (z Zone) In(d Dir) uint16 {
	if z.Dir == ZoneBoth || z.Dir == ZoneOrig && d == Original || z.Dir == ZoneReply && d == Reply {
		return z.ID
	}
	return 0
}

// SeqAdj is the shift of TCP sequence numbers in one direction, where a helper
// changed the length of a payload.
//
// Kernel: include/net/netfilter/nf_conntrack_seqadj.h, nf_ct_seqadj.
type SeqAdj struct {
	Pos           uint32
	Before, After int32
}

// Flow is one connection. It holds no pointers. A Flow that is not Confirmed is
// in no table yet, and its Timeout is still relative.
//
// Kernel: include/net/netfilter/nf_conntrack.h, struct nf_conn.
type Flow struct {
	Tuples  [2]Tuple
	Timeout world.Instant
	Status  Status
	Mark    uint32
	Labels  [16]byte
	Zone    Zone
	Helper  Helper
	Master  packet.FlowID

	Packets, Bytes [2]uint64

	TCP    TCP           // also the state numbers of SCTP and DCCP
	Stream world.Instant // of UDP: from then on it is a stream
	SCTP   SCTP
	DCCP   DCCP

	SeqAdj [2]SeqAdj
	Masq   packet.Dev // the device that MASQUERADE chose an address of

	// Free says which ports NAT drew at random without anybody knowing which;
	// FreeSrc and FreeDst are what they can be. The tuples then hold the port
	// from before the mapping.
	Free             packet.Free
	FreeSrc, FreeDst Ports

	// ID is the number that `conntrack -o id` prints of a flow that was read
	// from a dump; zero is none.
	ID uint32

	refs             uint16        // packets that hold an unconfirmed flow
	next             packet.FlowID // in the list of free places
	nextSrc, prevSrc packet.FlowID // flows with the same source, for NAT
	bySource         bool
}

// Ports is a closed range of ports.
type Ports struct{ Min, Max uint16 }

// Is tells whether all of the bits are set.
func (f *Flow) Is(s Status) bool { return f.Status&s == s }

// Any tells whether some of the bits are set.
func (f *Flow) Any(s Status) bool { return f.Status&s != 0 }

// Proto is the transport protocol.
func (f *Flow) Proto() uint8 { return f.Tuples[Original].Proto }

// Trace returns what a trace event says of a direction.
func (f *Flow) Trace(d Dir) trace.Tuple {
	t := f.Tuples[d].Trace()
	if d == Reply {
		// The reply's destination is where the source was mapped to.
		t.Free = swapFree(f.Free)
	}
	return t
}

func swapFree(f packet.Free) packet.Free {
	var out packet.Free
	if f&packet.FreeSrcPort != 0 {
		out |= packet.FreeDstPort
	}
	if f&packet.FreeDstPort != 0 {
		out |= packet.FreeSrcPort
	}
	return out
}
