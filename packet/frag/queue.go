package frag

import "github.com/hookpath/hookpath/packet"

// Key names the fragments of one packet.
//
// Kernel: include/net/inet_frag.h, frag_v4_compare_key.
type Key struct {
	Src, Dst packet.Addr
	User     User
	VRF      packet.Dev // the VRF that the device belongs to, zero for none
	ID       uint16
	Proto    uint8
}

// User is who collects: fragments that the tracker keeps are not seen by local
// delivery.
//
// Kernel: include/net/ip.h, ip_defrag_users.
type User uint32

// LocalDeliver is the user of ip_local_deliver.
const LocalDeliver User = 0

const (
	conntrackIn  = 2
	conntrackOut = conntrackIn + 65536
	bridgeIn     = conntrackOut + 65536
)

// VSIn, VSOut and VSForward are the users of the load balancer in INPUT, OUTPUT and FORWARD.
const (
	VSIn User = bridgeIn + 65536 + iota
	VSOut
	VSForward
)

// ConntrackIn is the user of defragmentation in PREROUTING, ConntrackOut that in
// OUTPUT, and BridgeIn that of bridged packets, in a zone.
func ConntrackIn(zone uint16) User { return conntrackIn + User(zone) }

// ConntrackOut is the user of defragmentation in OUTPUT.
func ConntrackOut(zone uint16) User { return conntrackOut + User(zone) }

// BridgeIn is the user of defragmentation of bridged packets.
func BridgeIn(zone uint16) User { return bridgeIn + User(zone) }

// Queue holds the fragments of one packet as long as some are missing. A Queue is a
// value: what Add returns shares nothing that is written later, so that it can be
// kept in memory that is forked. The zero Queue is empty.
//
// Kernel: net/ipv4/ip_fragment.c, struct ipq.
type Queue struct {
	runs    []run
	len     int // where the packet ends, as far as is known
	meat    int // bytes that are there
	max     int // the largest fragment, header included
	maxDF   int // the largest with DF
	first   bool
	last    bool
	ecn     uint8
	rid     uint32 // the sender's count when the last fragment came
	Expires int64  // nanoseconds since the epoch
}

// run is a row of fragments that came in order, each where the one before ended.
//
// Kernel: net/ipv4/inet_fragment.c, fragrun_create.
type run struct {
	off, end int
	parts    []part
}

type part struct {
	off, end int
	p        *packet.Packet // never written
}

// Result says what became of a fragment.
type Result uint8

// The results.
const (
	Waiting   Result = iota // kept until the rest comes
	Complete                // the packet is whole
	Duplicate               // dropped: it was there already
	Discarded               // dropped, and all the others of its packet with it
)

// add puts a fragment in its place.
//
// Kernel: net/ipv4/ip_fragment.c, ip_frag_queue.
func (q *Queue) add(p *packet.Packet) Result {
	ip := p.IP()
	hlen := int(ip[0]&0xf) * 4
	flags := word(ip, 6)
	off := int(flags&offsetMask) * 8
	end := off + len(ip) - hlen
	if !q.ends(&end, flags&moreFragments != 0) || end == off {
		return Discarded
	}
	if r := q.insert(part{off, end, p}); r != Waiting {
		return r
	}
	size := end - off + hlen
	q.meat += end - off
	q.ecn |= 1 << (ip[1] & 3)
	q.first = q.first || off == 0
	q.max = max(q.max, size)
	if flags&dontFragment != 0 {
		q.maxDF = max(q.maxDF, size)
	}
	if q.first && q.last && q.meat == q.len {
		return Complete
	}
	return Waiting
}

// ends notes where the packet ends; false where that contradicts what is known. A
// fragment before the last is cut to a multiple of eight bytes.
func (q *Queue) ends(end *int, more bool) bool {
	if !more {
		if *end < q.len || q.last && *end != q.len {
			return false
		}
		q.last, q.len = true, *end
		return true
	}
	*end &^= 7
	if *end > q.len {
		if q.last {
			return false
		}
		q.len = *end
	}
	return true
}

// insert finds the place among the runs. Only a fragment that goes on where the last
// run ends becomes part of it.
//
// Kernel: net/ipv4/inet_fragment.c, inet_frag_queue_insert.
func (q *Queue) insert(x part) Result {
	n := len(q.runs)
	if n == 0 {
		q.runs = []run{{x.off, x.end, []part{x}}}
		return Waiting
	}
	tail := q.runs[n-1].end
	if tail < x.end {
		switch {
		case x.off < tail:
			return Discarded
		case x.off == tail:
			q.extend(x)
		default:
			q.place(n, x)
		}
		return Waiting
	}
	at := 0
	for i := range q.runs {
		r := &q.runs[i]
		switch {
		case x.end <= r.off:
			q.place(at, x)
			return Waiting
		case x.off >= r.end:
			at = i + 1
		case x.off >= r.off && x.end <= r.end:
			return Duplicate
		default:
			return Discarded
		}
	}
	q.place(at, x)
	return Waiting
}

// extend adds to the last run, without writing what an older Queue sees.
func (q *Queue) extend(x part) {
	runs := append([]run(nil), q.runs...)
	r := &runs[len(runs)-1]
	r.end = x.end
	r.parts = append(r.parts[:len(r.parts):len(r.parts)], x)
	q.runs = runs
}

// place makes a run of its own, the one of number at.
func (q *Queue) place(at int, x part) {
	runs := make([]run, 0, len(q.runs)+1)
	runs = append(runs, q.runs[:at]...)
	runs = append(runs, run{x.off, x.end, []part{x}})
	q.runs = append(runs, q.runs[at:]...)
}

// join makes the packet of its fragments: it has what the first one has beside the
// bytes. It is nil where the kernel throws the packet away.
//
// Kernel: net/ipv4/ip_fragment.c, ip_frag_reasm.
func (q *Queue) join(in packet.Dev) *packet.Packet {
	ecn, ok := joinECN(q.ecn)
	head := q.runs[0].parts[0].p
	hlen := int(head.IP()[0]&0xf) * 4
	if !ok || hlen+q.len > maxLen {
		return nil
	}
	b := make([]byte, hlen, hlen+q.len)
	copy(b, head.IP())
	var pieces []uint16
	for _, r := range q.runs {
		for _, x := range r.parts {
			from := int(x.p.IP()[0]&0xf) * 4
			b = append(b, x.p.IP()[from:from+x.end-x.off]...)
			pieces = append(pieces, uint16(x.end-x.off))
		}
	}
	b[1] |= ecn
	b[2], b[3] = byte(len(b)>>8), byte(len(b))
	b[6], b[7] = 0, 0
	p := head.Clone()
	p.In, p.FragMax, p.Pieces = in, uint16(max(q.max, q.maxDF)), pieces
	if q.maxDF == q.max {
		b[6] = dontFragment >> 8
		p.Flags |= packet.FragPMTU
	}
	packet.FixIP4(b)
	p.SetIP(b)
	return p
}

// joinECN tells what the ECN bits of the fragments make together; false for those
// that can't belong together. Bit n stands for the codepoint n.
//
// Kernel: net/ipv4/inet_fragment.c, ip_frag_ecn_table.
func joinECN(seen uint8) (uint8, bool) {
	const notECT, ect1, ect0, ce = 1, 2, 4, 8
	switch {
	case seen&notECT != 0:
		return 0, seen == notECT
	case seen&ce != 0 && seen&(ect0|ect1) != 0:
		return 3, true
	}
	return 0, true
}

// Fragments is how many fragments the queue holds.
func (q *Queue) Fragments() int {
	n := 0
	for i := range q.runs {
		n += len(q.runs[i].parts)
	}
	return n
}

// First is the first fragment, which the error about a packet that was never whole
// quotes; nil when it has not come.
//
// Kernel: net/ipv4/ip_fragment.c, ip_expire.
func (q *Queue) First() *packet.Packet {
	if !q.first {
		return nil
	}
	return q.runs[0].parts[0].p
}
