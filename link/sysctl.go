package link

import (
	"strconv"
	"strings"
)

// Sysctl holds settings by the names that `sysctl -a` prints. In interface names
// a dot is written as a slash: net.ipv4.conf.eth0/1.rp_filter. A nil Sysctl is a
// layer that is missing as a whole.
type Sysctl map[string]string

// Int returns a setting as a number, def when it is missing or is none.
func (s Sysctl) Int(name string, def int) int {
	v, ok := s[name]
	if !ok {
		return def
	}
	n, err := strconv.ParseInt(strings.TrimSpace(v), 0, 64)
	if err != nil {
		return def
	}
	return int(n)
}

// Conf are the settings of an interface that count in the end: its own and those
// of "all" taken together by the rule that the kernel has for each.
//
// Kernel: include/linux/inetdevice.h, IN_DEV_*.
type Conf struct {
	RPFilter                                                   int
	ARPIgnore                                                  int
	ARPAnnounce                                                int
	ARPAccept                                                  int
	MediumID                                                   int
	AcceptLocal, AcceptRedirects, AcceptSourceRoute, ARPFilter bool
	BCForwarding, DisablePolicy, DisableXFRM                   bool
	DropGratuitousARP, DropUnicastInL2Multicast, Forwarding    bool
	IgnoreLinkdown, LogMartians, MCForwarding                  bool
	PromoteSecondaries, ProxyARP, ProxyARPPVLAN, RouteLocalnet bool
	SecureRedirects, SendRedirects, SharedMedia, SrcValidMark  bool
}

// confDefault are the defaults that differ from zero, for "all" and for an
// interface.
//
// Kernel: net/ipv4/devinet.c, ipv4_devconf, ipv4_devconf_dflt.
var confDefault = map[string][2]int{
	"accept_redirects":    {1, 1},
	"accept_source_route": {0, 1},
	"secure_redirects":    {1, 1},
	"send_redirects":      {1, 1},
	"shared_media":        {1, 1},
}

// conf reads the settings of one interface.
type conf struct {
	s    Sysctl
	name string // as sysctl writes it
	lo   bool
}

// all is the setting of every interface.
func (c conf) all(key string) int {
	return c.s.Int("net.ipv4.conf.all."+key, confDefault[key][0])
}

// own is the interface's setting. One that is missing was inherited from
// "default" when the interface was made.
func (c conf) own(key string) int {
	def := confDefault[key][1]
	if c.lo && (key == "disable_policy" || key == "disable_xfrm") {
		def = 1
	} else {
		def = c.s.Int("net.ipv4.conf.default."+key, def)
	}
	return c.s.Int("net.ipv4.conf."+c.name+"."+key, def)
}

func (c conf) or(key string) bool  { return c.all(key) != 0 || c.own(key) != 0 }
func (c conf) and(key string) bool { return c.all(key) != 0 && c.own(key) != 0 }
func (c conf) max(key string) int  { return max(c.all(key), c.own(key)) }

// forwarding is the one setting that counts for the interface alone. Writing
// ip_forward or conf.all.forwarding writes it in every interface.
func (c conf) forwarding() bool {
	if c.s == nil {
		return true // a missing layer is open
	}
	def := c.s.Int("net.ipv4.ip_forward", 0)
	def = c.s.Int("net.ipv4.conf.all.forwarding", def)
	return c.s.Int("net.ipv4.conf."+c.name+".forwarding", def) != 0
}

// redirects follows IN_DEV_RX_REDIRECTS: a router needs both switches.
func (c conf) redirects() bool {
	if c.forwarding() {
		return c.and("accept_redirects")
	}
	return c.or("accept_redirects")
}

// newConf computes the effective settings of an interface.
func newConf(s Sysctl, l *Link) Conf {
	c := conf{s, strings.ReplaceAll(l.Name, ".", "/"), l.Is(LoopbackFlag)}
	return Conf{
		RPFilter:    c.max("rp_filter"),
		ARPIgnore:   c.max("arp_ignore"),
		ARPAnnounce: c.max("arp_announce"),
		ARPAccept:   c.max("arp_accept"),
		MediumID:    c.own("medium_id"),

		AcceptLocal:        c.or("accept_local"),
		AcceptRedirects:    c.redirects(),
		AcceptSourceRoute:  c.and("accept_source_route"),
		ARPFilter:          c.or("arp_filter"),
		BCForwarding:       c.and("bc_forwarding"),
		DisablePolicy:      c.or("disable_policy"),
		DisableXFRM:        c.or("disable_xfrm"),
		DropGratuitousARP:  c.or("drop_gratuitous_arp"),
		Forwarding:         c.forwarding(),
		IgnoreLinkdown:     c.or("ignore_routes_with_linkdown"),
		LogMartians:        c.or("log_martians"),
		MCForwarding:       c.and("mc_forwarding"),
		PromoteSecondaries: c.or("promote_secondaries"),
		ProxyARP:           c.or("proxy_arp"),
		ProxyARPPVLAN:      c.or("proxy_arp_pvlan"),
		RouteLocalnet:      c.or("route_localnet"),
		SecureRedirects:    c.or("secure_redirects"),
		SendRedirects:      c.or("send_redirects"),
		SharedMedia:        c.or("shared_media"),
		SrcValidMark:       c.or("src_valid_mark"),

		DropUnicastInL2Multicast: c.or("drop_unicast_in_l2_multicast"),
	}
}
