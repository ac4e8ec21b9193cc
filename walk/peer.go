package walk

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
)

// peer is what the host remembers of an address that it sends ICMP messages to. Times
// are jiffies.
//
// Kernel: include/net/inetpeer.h, struct inet_peer.
type peer struct {
	tokens, last int64
	redirects    int
}

// peerKey is an address as one VRF sees it.
type peerKey struct {
	addr packet.Addr
	vrf  packet.Dev
}

// The sysctls of net.ipv4.route at their defaults; they are of the whole machine. Shares
// of a second.
const (
	redirectLoad    = 50 // HZ/50
	redirectNumber  = 9
	redirectSilence = redirectNumber + 1 // bits that the load is shifted by
	errorBurst      = 5                  // seconds: each error costs one
	limitBurst      = 6                  // XRLIM_BURST_FACTOR
	freshSeconds    = 60                 // since when a new peer has been silent
)

// withPeer changes what is remembered of a peer and returns what f tells.
//
// Kernel: net/ipv4/inetpeer.c, inet_getpeer.
func (k *Walk) withPeer(key peerKey, f func(p *peer, now, hz int64) bool) bool {
	k.needs(field.Src)
	t, hz := k.peers.In(k.World.State), int64(k.World.HZ)
	now := k.World.Now.Jiffies(k.World.HZ)
	p, known := t.Get(key)
	if !known {
		p.last = now - freshSeconds*hz
	}
	ok := f(&p, now, hz)
	t.Put(key, p)
	return ok
}

// mayError counts an error about a packet without a route.
//
// Kernel: net/ipv4/route.c, ip_error.
func (k *Walk) mayError(key peerKey) bool {
	return k.withPeer(key, func(p *peer, now, hz int64) bool {
		return p.spend(now, hz, errorBurst*hz)
	})
}

// spend takes a token of the given cost, if there is one.
//
// Kernel: net/ipv4/inetpeer.c, inet_peer_xrlim_allow.
func (p *peer) spend(now, cost, most int64) bool {
	p.tokens = min(p.tokens+now-p.last, most)
	p.last = now
	if p.tokens < cost {
		return false
	}
	p.tokens -= cost
	return true
}

// mayLimited counts an ICMP error that net.ipv4.icmp_ratelimit is about. A snapshot
// that does not name the setting limits nothing.
//
// Kernel: net/ipv4/icmp.c, icmpv4_xrlim_allow.
func (k *Walk) mayLimited(typ, code uint8, in, out packet.Dev, to packet.Addr) bool {
	const usual, fragNeeded = 0x1818, 4
	ms := int64(k.Sysctl.Int("net.ipv4.icmp_ratelimit", 0))
	mask := k.Sysctl.Int("net.ipv4.icmp_ratemask", usual)
	if ms <= 0 || typ == 3 && code == fragNeeded || mask>>typ&1 == 0 || in == loopback ||
		out == loopback {
		return true
	}
	return k.withPeer(peerKey{to, k.Links.L3Master(out)}, func(p *peer, now, hz int64) bool {
		cost := ms * hz / 1000
		return p.spend(now, cost, limitBurst*cost)
	})
}

// sendRedirect tells the sender of a better way, unless it ignored that before.
//
// Kernel: net/ipv4/route.c, ip_rt_send_redirect.
func (k *Walk) sendRedirect() {
	out := k.Links.ByIndex(k.dst.Out)
	if out == nil || !out.HasIP() || !out.Conf.SendRedirects {
		return
	}
	if !k.withPeer(peerKey{k.p.Src(), k.Links.L3Master(out.Index)}, (*peer).mayRedirect) {
		return
	}
	const redirect, toHost = 5, 1
	k.sendICMP(redirect, toHost, k.dst.Nexthop(k.p.Dst()).Uint32())
}

// mayRedirect counts a redirect to a sender and says whether it is sent.
func (p *peer) mayRedirect(now, hz int64) bool {
	load := hz / redirectLoad
	if now > p.last+load<<redirectSilence {
		p.tokens, p.redirects = 0, 0
	}
	switch {
	case p.redirects >= redirectNumber:
		p.last = now
		return false
	case p.redirects > 0 && now <= p.last+load<<p.redirects:
		return false
	}
	p.last = now
	p.redirects++
	return true
}
