package packet

// Pull makes the first n bytes from the network header on writable in one stretch,
// as whoever rewrites a transport header does first. Where the first fragment that
// the packet was put together from is shorter, bytes of the next ones move to it, so
// that the packet can't leave in the pieces that it came in.
//
// Kernel: net/core/skbuff.c, skb_ensure_writable and __pskb_pull_tail.
func (p *Packet) Pull(n int) {
	if len(p.Pieces) == 0 || !p.Is4() {
		return
	}
	need := min(n, p.Len()) - (p.trans - p.net) - int(p.Pieces[0])
	if need <= 0 {
		return
	}
	pieces := append([]uint16{p.Pieces[0] + uint16(need)}, p.Pieces[1:]...)
	for len(pieces) > 1 && need >= int(pieces[1]) {
		need -= int(pieces[1])
		pieces = append(pieces[:1], pieces[2:]...)
	}
	if len(pieces) > 1 {
		pieces[1] -= uint16(need)
	}
	p.Pieces = pieces
}
