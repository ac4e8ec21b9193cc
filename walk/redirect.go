package walk

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// redirects are those that a sender got lately.
//
// Kernel: include/net/inetpeer.h, struct inet_peer: n_redirects, rate_last.
type redirects struct {
	n    int
	last world.Instant
}

// redirectPeer is a sender as one VRF sees it.
type redirectPeer struct {
	addr packet.Addr
	vrf  packet.Dev
}

// The sysctls of net.ipv4.route that rule redirects, at their defaults.
const (
	redirectLoad    = world.Second / 50
	redirectNumber  = 9
	redirectSilence = redirectLoad << (redirectNumber + 1)
)

// sendRedirect tells the sender of a better way, unless it ignored that before.
//
// Kernel: net/ipv4/route.c, ip_rt_send_redirect.
func (k *Walk) sendRedirect() {
	out := k.Links.ByIndex(k.dst.Out)
	if out == nil || !out.HasIP() || !out.Conf.SendRedirects {
		return
	}
	if !k.mayRedirect(redirectPeer{k.p.Src(), k.Links.L3Master(out.Index)}) {
		return
	}
	const toHost = 1
	k.sendICMP(5, toHost, k.dst.Nexthop(k.p.Dst()).Uint32())
}

// mayRedirect counts a redirect to a sender and says whether it is sent.
func (k *Walk) mayRedirect(peer redirectPeer) bool {
	t := k.redirects.In(k.World.State)
	r, known := t.Get(peer)
	now := k.World.Now
	if !known || now > r.last+redirectSilence {
		r.n = 0
	}
	switch {
	case r.n >= redirectNumber:
		r.last = now
		t.Put(peer, r)
		return false
	case r.n > 0 && now <= r.last+redirectLoad<<r.n:
		return false
	}
	t.Put(peer, redirects{r.n + 1, now})
	return true
}
