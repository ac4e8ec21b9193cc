package conntrack

import "github.com/hookpath/hookpath/packet"

// icmp follows questions and their answers.
//
// Kernel: net/netfilter/nf_conntrack_proto_icmp.c, nf_conntrack_icmp_packet.
func (v *visit) icmp() action {
	switch v.f.Tuples[Original].DPort >> 8 {
	case icmpEcho, icmpTimestamp, icmpInfo, icmpAddress:
		v.refresh(v.t.icmp)
		return accept
	}
	return invalid
}

// icmpError attaches an ICMP error to the connection that it quotes. It is done
// where the message is unsound, or an error, be it related to anything or not.
//
// Kernel: net/netfilter/nf_conntrack_proto_icmp.c, nf_conntrack_icmpv4_error.
func (v *visit) icmpError() (done bool) {
	const lastKnownType = 18
	if len(v.l4) < 8 || v.badChecksum(packet.ICMP) || v.l4[0] > lastKnownType {
		return true
	}
	if !isICMPError(v.l4[0]) {
		return false
	}
	v.related(v.l4[8:])
	return true
}

// isICMPError tells whether messages of a type quote a packet.
//
// Kernel: include/linux/icmp.h, icmp_is_err.
func isICMPError(typ uint8) bool {
	switch typ {
	case icmpUnreach, icmpSourceQuench, icmpRedirect, icmpTimeExceeded, icmpParameterProb:
		return true
	}
	return false
}

// related looks for the connection of a quoted packet. The error must be sent to
// where the quoted packet came from, as the connection knows it.
//
// Kernel: net/netfilter/nf_conntrack_proto_icmp.c, nf_conntrack_inet_error.
func (v *visit) related(quoted []byte) {
	l4, proto, ok := l4proto(quoted)
	if !ok {
		return
	}
	tuple, ok := v.t.tupleOf(quoted, l4, proto)
	if !ok {
		return
	}
	if tuple, ok = tuple.Invert(); !ok {
		return
	}
	id, dir := v.t.find(v.w, v.zone, tuple)
	if id == 0 || v.t.Ref(v.w, id).Tuples[dir].Dst != v.p.Dst() {
		return
	}
	v.p.CT = packet.CT{Flow: id, Info: packet.Related}
	if dir == Reply {
		v.p.CT.Info = packet.RelatedReply
	}
}
