package conntrack

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// expectSeconds is how long FTP and TFTP expect a connection.
const expectSeconds = 5 * 60

// tftp foresees the answer to a read or write request, which comes from another
// port.
//
// Kernel: net/netfilter/nf_conntrack_tftp.c, tftp_help; nf_nat_tftp.c, help.
func (t *Tracker) tftp(w *world.World, p *packet.Packet, f *Flow) trace.Verdict {
	const read, write = 1, 2
	l4 := p.L4()
	if f.Proto() != packet.UDP || len(l4) < 10 {
		return trace.Accept
	}
	if op := binary.BigEndian.Uint16(l4[8:]); op != read && op != write {
		return trace.Accept
	}
	r := &f.Tuples[Reply]
	e := Expect{
		Tuple:   Tuple{Src: r.Src, Dst: r.Dst, DPort: r.DPort, Proto: packet.UDP},
		SrcMask: fullMask(), Master: p.CT.Flow,
		Timeout: w.Now + expectSeconds*world.Second,
	}
	if f.Any(NATMask) && t.NAT != nil {
		e.FollowNAT, e.Dir, e.SavedPort = true, Reply, f.Tuples[Original].SPort
	}
	if !t.AddExpect(w, e) {
		return trace.DropIt
	}
	return trace.Accept
}

// fullMask is the mask under which a source address must agree.
func fullMask() packet.Addr {
	var m packet.Addr
	for i := range m {
		m[i] = 0xff
	}
	return m
}
