// Package frag cuts IPv4 packets that are too large for their way out, and puts
// fragments together again. Cutting stands behind POSTROUTING; putting together
// stands before raw in PREROUTING and OUTPUT where connections are tracked, and
// before INPUT everywhere.
//
// Kernel: net/ipv4/ip_output.c, ip_fragment; net/ipv4/ip_fragment.c, ip_defrag.
package frag

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
)

// The bits of the word with the fragment offset.
const (
	dontFragment  = 0x4000
	moreFragments = 0x2000
	offsetMask    = 0x1fff
)

// maxLen is the greatest length of an IPv4 packet.
const maxLen = 65535

// Outcome says what became of a packet that had to be cut.
type Outcome uint8

// The outcomes.
const (
	Cut    Outcome = iota
	TooBig         // DF is set: the sender gets "fragmentation needed" with the MTU
	NoRoom         // the MTU holds no more than a header: the packet is dropped
)

// Exceeds tells whether a packet that is forwarded is too big for an MTU and must
// not be cut.
//
// Kernel: net/ipv4/ip_forward.c, ip_exceeds_mtu.
func Exceeds(p *packet.Packet, mtu int) bool {
	if p.Len() <= mtu || word(p.IP(), 6)&dontFragment == 0 {
		return false
	}
	return int(p.FragMax) > mtu || p.FragMax == 0
}

// Needed tells whether a packet goes through Fragment on its way out. One that was
// put together always does, so that it leaves as it came.
//
// Kernel: net/ipv4/ip_output.c, __ip_finish_output.
func Needed(p *packet.Packet, mtu int) bool { return p.Len() > mtu || p.FragMax != 0 }

// Fragment cuts a packet for an MTU. ignoreDF says that DF does not count
// (skb->ignore_df): for what was put together, and for local packets of sockets that
// leave DF to the kernel. The pieces come in order; the packet is used up.
//
// Kernel: net/ipv4/ip_output.c, ip_fragment and ip_do_fragment.
func Fragment(p *packet.Packet, mtu int, ignoreDF bool) ([]*packet.Packet, Outcome) {
	ip := p.IP()
	largest := int(p.FragMax)
	if word(ip, 6)&dontFragment != 0 && (!ignoreDF || largest > mtu) {
		return nil, TooBig
	}
	if largest != 0 {
		mtu = min(mtu, largest)
	}
	hlen := int(ip[0]&0xf) * 4
	if mtu < hlen+8 {
		return nil, NoRoom
	}
	sizes := p.Pieces
	if !keeps(p, hlen, mtu-hlen) {
		sizes = nil
	}
	return cut(p, hlen, mtu-hlen, sizes), Cut
}

// keeps tells whether a packet that was put together can leave in the pieces that it
// came in.
//
// Kernel: ip_do_fragment, the checks before its fast path.
func keeps(p *packet.Packet, hlen, room int) bool {
	n := len(p.Pieces)
	if n < 2 || p.IsFragment() {
		return false
	}
	sum := 0
	for i, size := range p.Pieces {
		sum += int(size)
		if int(size) > room || size&7 != 0 && i < n-1 {
			return false
		}
	}
	return sum == p.Len()-hlen
}

// cut makes the pieces: of the given sizes, or each as large as room allows.
//
// Kernel: ip_frag_next; ip_fraglist_prepare.
func cut(p *packet.Packet, hlen, room int, sizes []uint16) []*packet.Packet {
	ip := p.IP()
	h := append([]byte(nil), ip[:hlen]...)
	data := ip[hlen:]
	flags := word(h, 6)
	off := int(flags&offsetMask) * 8
	keep := flags & moreFragments
	if p.Flags&packet.FragPMTU != 0 && sizes == nil {
		keep |= dontFragment
	}
	var out []*packet.Packet
	for len(data) > 0 {
		n := nextSize(len(data), room, sizes, len(out))
		f := keep | uint16(off/8)
		if len(data) > n {
			f |= moreFragments
		}
		out = append(out, piece(p, h, data[:n], f))
		if off == 0 {
			neutralize(h[20:])
		}
		off, data = off+n, data[n:]
	}
	return out
}

func nextSize(left, room int, sizes []uint16, i int) int {
	switch {
	case sizes != nil:
		return int(sizes[i])
	case left <= room:
		return left
	}
	return room &^ 7
}

// piece is one fragment, with what the kernel copies beside the bytes.
//
// Kernel: ip_copy_metadata.
func piece(p *packet.Packet, h, data []byte, flags uint16) *packet.Packet {
	b := make([]byte, len(h)+len(data))
	copy(b[copy(b, h):], data)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], flags)
	packet.FixIP4(b)
	q := p.Clone()
	q.SetIP(b)
	q.Flags |= packet.FragComplete
	q.FragMax, q.Pieces = 0, nil
	return q
}

// neutralize puts no-operations in place of the options that only the first
// fragment carries.
//
// Kernel: net/ipv4/ip_options.c, ip_options_fragment.
func neutralize(opts []byte) {
	const end, noop, copied = 0, 1, 0x80
	for len(opts) > 0 && opts[0] != end {
		if opts[0] == noop {
			opts = opts[1:]
			continue
		}
		if len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts) {
			return
		}
		n := int(opts[1])
		if opts[0]&copied == 0 {
			for i := range n {
				opts[i] = noop
			}
		}
		opts = opts[n:]
	}
}

func word(b []byte, at int) uint16 { return binary.BigEndian.Uint16(b[at:]) }
