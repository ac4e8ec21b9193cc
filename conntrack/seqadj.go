package conntrack

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
)

// ShiftSeq notes that a helper changed the length of a payload by off, behind the
// sequence number seq.
//
// Kernel: net/netfilter/nf_conntrack_seqadj.c, nf_ct_seqadj_set.
func (f *Flow) ShiftSeq(d Dir, seq uint32, off int32) {
	if off == 0 {
		return
	}
	f.Status |= SeqAdjust
	a := &f.SeqAdj[d]
	if a.Before == a.After || before(a.Pos, seq) {
		a.Pos, a.Before = seq, a.After
		a.After += off
	}
}

// seqAdjust shifts the sequence numbers of a packet, its selective ACKs too; false
// when the options are unsound.
//
// Kernel: net/netfilter/nf_conntrack_seqadj.c, nf_ct_seq_adjust.
func seqAdjust(p *packet.Packet, f *Flow) bool {
	h := p.L4()
	if len(h) < 20 {
		return false
	}
	d := DirOf(p.CT.Info)
	mine, other := &f.SeqAdj[d], &f.SeqAdj[d.Not()]
	seq := binary.BigEndian.Uint32(h[4:])
	setWord(h, 4, seq+uint32(mine.offset(seq)))
	if h[13]&ackFlag == 0 {
		return true
	}
	setWord(h, 8, other.back(binary.BigEndian.Uint32(h[8:])))
	return other.sacks(h)
}

// back undoes the shift for a number that the other side sent.
func (a *SeqAdj) back(n uint32) uint32 {
	if after(n-uint32(a.Before), a.Pos) {
		return n - uint32(a.After)
	}
	return n - uint32(a.Before)
}

// sacks shifts the edges of selective ACKs.
//
// Kernel: net/netfilter/nf_conntrack_seqadj.c, nf_ct_sack_adjust.
func (a *SeqAdj) sacks(h []byte) bool {
	const sackOption = 5
	end := int(h[12]>>4) * 4
	if end > len(h) {
		return false
	}
	for off := 20; off < end; {
		if h[off] == 0 {
			return true
		}
		if h[off] == 1 {
			off++
			continue
		}
		if off+1 == end || h[off+1] < 2 || off+int(h[off+1]) > end {
			return false
		}
		n := int(h[off+1])
		if h[off] == sackOption && n >= 10 && (n-2)%8 == 0 {
			for o := off + 2; o < off+n; o += 4 {
				setWord(h, o, a.back(binary.BigEndian.Uint32(h[o:])))
			}
		}
		off += n
	}
	return true
}

// setWord writes 32 bits of a TCP header and mends its checksum.
func setWord(h []byte, off int, v uint32) {
	var old [4]byte
	copy(old[:], h[off:])
	binary.BigEndian.PutUint32(h[off:], v)
	packet.Replace(h[16:18], old[:], h[off:off+4])
}
