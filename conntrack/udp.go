package conntrack

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// udp follows UDP: answered traffic that is still alive after two seconds is a
// stream, and assured.
//
// Kernel: net/netfilter/nf_conntrack_proto_udp.c, nf_conntrack_udp_packet.
func (v *visit) udp() action {
	if v.udpError() {
		return invalid
	}
	f := v.f
	if !f.Is(Confirmed) {
		f.Stream = v.w.Now + 2*world.Second
	}
	if !f.Is(SeenReply) || v.w.Now <= f.Stream {
		v.refresh(v.t.udp)
		return accept
	}
	v.refresh(v.t.udpStream)
	if !f.Is(NATClash) {
		f.Status |= Assured
	}
	return accept
}

// Kernel: net/netfilter/nf_conntrack_proto_udp.c, udp_error.
func (v *visit) udpError() bool {
	if len(v.l4) < 8 {
		return true
	}
	n := int(binary.BigEndian.Uint16(v.l4[4:]))
	if n > len(v.l4) || n < 8 {
		return true
	}
	return binary.BigEndian.Uint16(v.l4[6:]) != 0 && v.badChecksum(packet.UDP)
}

// udplite follows UDP-Lite.
//
// Kernel: net/netfilter/nf_conntrack_proto_udp.c, nf_conntrack_udplite_packet.
func (v *visit) udplite() action {
	if v.udpliteError() {
		return invalid
	}
	if !v.f.Is(SeenReply) {
		v.refresh(v.t.udp)
		return accept
	}
	v.refresh(v.t.udpStream)
	if !v.f.Is(NATClash) {
		v.f.Status |= Assured
	}
	return accept
}

// Kernel: net/netfilter/nf_conntrack_proto_udp.c, udplite_error.
func (v *visit) udpliteError() bool {
	if len(v.l4) < 8 {
		return true
	}
	cover := int(binary.BigEndian.Uint16(v.l4[4:]))
	if cover == 0 {
		cover = len(v.l4)
	}
	if cover < 8 || cover > len(v.l4) || binary.BigEndian.Uint16(v.l4[6:]) == 0 {
		return true
	}
	return v.badPartial(packet.UDP, cover)
}

// badPartial is badChecksum for checksums over the first bytes alone.
//
// Kernel: net/netfilter/utils.c, nf_ip_checksum_partial.
func (v *visit) badPartial(proto uint8, cover int) bool {
	if !v.t.checksum || v.hook != trace.Prerouting {
		return false
	}
	sum := packet.PseudoSum(v.p.Src(), v.p.Dst(), proto, len(v.l4))
	return packet.Fold(packet.Sum16(v.l4[:cover], sum)) != 0
}
