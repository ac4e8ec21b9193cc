package link

import "github.com/hookpath/hookpath/packet"

// Tunnel finds the ipip device that takes what src sends to dst: the one that names both
// ends, the far one, the near one, or tunl0, which takes everything; nil for none.
//
// Kernel: net/ipv4/ip_tunnel.c, ip_tunnel_lookup.
func (t *Table) Tunnel(src, dst packet.Addr) *Link {
	var best *Link
	rank := 0
	for i := range t.links {
		l := &t.links[i]
		if l.Kind != "ipip" || !l.Is(Up) {
			continue
		}
		if r := l.takes(src, dst); r > rank {
			best, rank = l, r
		}
	}
	return best
}

// takes ranks a tunnel for a packet, zero for one that does not take it.
func (l *Link) takes(src, dst packet.Addr) int {
	const fallback = "tunl0"
	far, near := l.TunnelRemote == src, l.TunnelLocal == dst
	switch {
	case !l.TunnelRemote.IsZero() && !far, !l.TunnelLocal.IsZero() && !near:
		return 0
	case far && near:
		return 4
	case far:
		return 3
	case near:
		return 2
	case l.Name == fallback:
		return 1
	}
	return 0
}
