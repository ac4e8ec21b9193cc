package nat

import (
	"encoding/binary"
	"fmt"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// Mangle puts the address that the other side sees into an FTP command, shifts sequence
// numbers by the change of length, and adds the expectation.
//
// Kernel: net/netfilter/nf_nat_ftp.c, nf_nat_ftp.
func (n *NAT) Mangle(w *world.World, p *packet.Packet, at conntrack.Match,
	e conntrack.Expect) bool {
	if !n.expectPort(w, &e) {
		return false
	}
	f := n.t.Ref(w, p.CT.Flow)
	d := conntrack.DirOf(p.CT.Info)
	text := ftpText(at.Kind, f.Tuples[d.Not()].Dst, e.Tuple.DPort)
	seq := binary.BigEndian.Uint32(p.L4()[4:])
	replaceTCP(p, at, text)
	f.ShiftSeq(d, seq, int32(len(text)-at.Len))
	return true
}

// expectPort adds the expectation, with another port where the first is expected by
// somebody else.
//
// Kernel: net/netfilter/nf_nat_helper.c, nf_nat_exp_find_port.
func (n *NAT) expectPort(w *world.World, e *conntrack.Expect) bool {
	first := e.Tuple.DPort
	left := min(65535-int(first), maxAttempts)
	for {
		if n.t.AddExpect(w, *e) {
			return true
		}
		if left--; left < 0 {
			return false
		}
		off := uint16(maxAttempts - left)
		if w.Dice != nil && w.Dice.Rand != nil {
			off = uint16(w.Dice.Rand.IntN(65535 - int(first)))
		}
		e.Tuple.DPort = first + off
	}
}

// ftpText writes an address in one of FTP's forms.
//
// Kernel: net/netfilter/nf_nat_ftp.c, nf_nat_ftp_fmt_cmd.
func ftpText(kind conntrack.FTPKind, a packet.Addr, port uint16) []byte {
	b := a.Bytes()
	switch kind {
	case conntrack.FTPEprt:
		return fmt.Appendf(nil, "|1|%s|%d|", a, port)
	case conntrack.FTPEpsv:
		return fmt.Appendf(nil, "|||%d|", port)
	}
	return fmt.Appendf(nil, "%d,%d,%d,%d,%d,%d", b[0], b[1], b[2], b[3], port>>8, port&0xff)
}

// replaceTCP replaces a part of a TCP payload, with lengths and checksums.
//
// Kernel: net/netfilter/nf_nat_helper.c, __nf_nat_mangle_tcp_packet.
func replaceTCP(p *packet.Packet, at conntrack.Match, text []byte) {
	ip := p.IP()
	header := len(ip) - len(p.L4())
	start := header + int(ip[header+12]>>4)*4 + at.Off
	out := make([]byte, 0, len(ip)+len(text)-at.Len)
	out = append(append(append(out, ip[:start]...), text...), ip[start+at.Len:]...)
	binary.BigEndian.PutUint16(out[2:], uint16(len(out)))
	packet.FixIP4(out)
	l4 := out[header:]
	l4[16], l4[17] = 0, 0
	sum := packet.PseudoSum(p.Src(), p.Dst(), packet.TCP, len(l4))
	binary.BigEndian.PutUint16(l4[16:], packet.Fold(packet.Sum16(l4, sum)))
	p.SetIP(out)
}
