package conntrack

// gre follows GRE. The timeouts are the connection's own in the kernel, but only a
// PPTP helper ever changes them.
//
// Kernel: net/netfilter/nf_conntrack_proto_gre.c, nf_conntrack_gre_packet.
func (v *visit) gre() action {
	if !v.f.Is(SeenReply) {
		v.refresh(v.t.gre)
		return accept
	}
	v.refresh(v.t.greStream)
	v.f.Status |= Assured
	return accept
}
