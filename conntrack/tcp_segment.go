package conntrack

import "encoding/binary"

// segment is a TCP header with what the tracker reads from it.
type segment struct {
	hdr      []byte // the header, options included
	seq, ack uint32
	end      uint32 // sequence number behind the segment
	win      uint32
	flags    uint8
}

// readSegment reads a header of which at least 20 bytes are there. Where the header
// says more than there is, options are cut.
func readSegment(l4 []byte) segment {
	s := segment{
		seq:   binary.BigEndian.Uint32(l4[4:]),
		ack:   binary.BigEndian.Uint32(l4[8:]),
		win:   uint32(binary.BigEndian.Uint16(l4[14:])),
		flags: l4[13],
	}
	n := int(l4[12]>>4) * 4
	s.hdr = l4[:min(max(n, 20), len(l4))]
	s.end = s.seq + uint32(len(l4)-n)
	if s.has(synFlag) {
		s.end++
	}
	if s.has(finFlag) {
		s.end++
	}
	return s
}

func (s *segment) has(flag uint8) bool { return s.flags&flag != 0 }

// index is what kind of segment it is.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, get_conntrack_index.
func (s *segment) index() tcpIndex {
	switch {
	case s.has(rstFlag):
		return segRst
	case s.has(synFlag) && s.has(ackFlag):
		return segSynAck
	case s.has(synFlag):
		return segSyn
	case s.has(finFlag):
		return segFin
	case s.has(ackFlag):
		return segAck
	}
	return segNone
}

// options calls f for each whole option until it returns false.
func (s *segment) options(f func(kind uint8, body []byte) bool) {
	for o := s.hdr[20:]; len(o) > 0; {
		switch o[0] {
		case 0:
			return
		case 1:
			o = o[1:]
			continue
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return
		}
		if !f(o[0], o[2:o[1]]) {
			return
		}
		o = o[o[1]:]
	}
}

// readOptions takes window scale and SACK from a SYN. Without any options all
// stays as it is.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, tcp_options.
func (s *segment) readOptions(to *TCPSeen) {
	const sackPermitted, windowScale, maxScale = 4, 3, 14
	if len(s.hdr) == 20 {
		return
	}
	to.Scale = 0
	to.Flags &= TCPBeLiberal
	s.options(func(kind uint8, body []byte) bool {
		switch {
		case kind == sackPermitted && len(body) == 0:
			to.Flags |= TCPSackPerm
		case kind == windowScale && len(body) == 1:
			to.Scale = min(body[0], maxScale)
			to.Flags |= TCPWindowScale
		}
		return true
	})
}

// sack is the highest edge that the segment acknowledges selectively, ack where
// that is higher.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, tcp_sack.
func (s *segment) sack(ack uint32) uint32 {
	const sackOption, timestampOnly = 5, 0x0101080a
	if len(s.hdr) == 32 && binary.BigEndian.Uint32(s.hdr[20:]) == timestampOnly {
		return ack
	}
	s.options(func(kind uint8, body []byte) bool {
		if kind != sackOption || len(body) < 8 || len(body)%8 != 0 {
			return true
		}
		for ; len(body) > 0; body = body[8:] {
			if e := binary.BigEndian.Uint32(body[4:]); after(e, ack) {
				ack = e
			}
		}
		return false
	})
	return ack
}

// before and after compare sequence numbers.
func before(a, b uint32) bool { return int32(a-b) < 0 }
func after(a, b uint32) bool  { return before(b, a) }
