package ipvs

import (
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// settings are the sysctls of net.ipv4.vs. Those that defend a host whose memory is low
// (modes 1 and 2) are off: a snapshot does not say, and hosts rarely are.
//
// Kernel: net/netfilter/ipvs/ip_vs_ctl.c, vs_vars and update_defense_level.
type settings struct {
	backupOnly, cacheBypass, conntrack           bool
	expireNodest, expireQuiescent, ignoreTunnels bool
	natICMPSend, pmtuDisc, scheduleICMP          bool
	sloppyTCP, sloppySCTP, snatReroute           bool
	secureTCP                                    bool
	reuseMode                                    int
	// unprivileged is the first port that everybody may bind.
	unprivileged uint16
	// dropRate drops one of so many new connections, zero none.
	dropRate int
	// lblcTime and lblcrTime are how long these schedulers remember where the packets of a
	// destination went.
	lblcTime, lblcrTime world.Instant
}

func readSettings(s link.Sysctl) settings {
	is := func(name string, def int) bool { return s.Int("net.ipv4.vs."+name, def) != 0 }
	seconds := func(name string, def int) world.Instant {
		return world.Instant(s.Int("net.ipv4.vs."+name, def)) * world.Second
	}
	const always, day = 3, 24 * 60 * 60
	out := settings{
		backupOnly: is("backup_only", 0), cacheBypass: is("cache_bypass", 0),
		conntrack: is("conntrack", 0), expireNodest: is("expire_nodest_conn", 0),
		expireQuiescent: is("expire_quiescent_template", 0),
		ignoreTunnels:   is("ignore_tunneled", 0), natICMPSend: is("nat_icmp_send", 0),
		pmtuDisc: is("pmtu_disc", 1), scheduleICMP: is("schedule_icmp", 0),
		sloppyTCP: is("sloppy_tcp", 0), sloppySCTP: is("sloppy_sctp", 0),
		snatReroute: is("snat_reroute", 1), reuseMode: s.Int("net.ipv4.vs.conn_reuse_mode", 1),
		unprivileged: uint16(s.Int("net.ipv4.ip_unprivileged_port_start", 1024)),
		secureTCP:    s.Int("net.ipv4.vs.secure_tcp", 0) == always,
		lblcTime:     seconds("lblc_expiration", day),
		lblcrTime:    seconds("lblcr_expiration", day),
	}
	if s.Int("net.ipv4.vs.drop_packet", 0) == always {
		out.dropRate = s.Int("net.ipv4.vs.am_droprate", 10)
	}
	return out
}

// times are how long connections stay, by protocol and state.
type times struct {
	tcp  [tcpStates]world.Instant
	udp  world.Instant
	sctp [sctpStates]world.Instant
}

// newTimes are the kernel's own times but for those that ipvsadm set.
//
// Kernel: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_set_timeout.
func newTimes(set Timeouts) times {
	t := times{tcp: tcpTimes(), udp: 5 * 60 * world.Second, sctp: sctpTimes()}
	change := func(to *world.Instant, seconds uint32) {
		if seconds != 0 {
			*to = world.Instant(seconds) * world.Second
		}
	}
	change(&t.tcp[tcpEstablished], set.TCP)
	change(&t.tcp[tcpFinWait], set.TCPFin)
	change(&t.udp, set.UDP)
	return t
}

// speaks tells whether connections of a protocol can be balanced.
//
// Kernel: net/netfilter/ipvs/ip_vs_proto.c. AH and ESP of IPsec have no ports: they only
// ride on connections of IKE.
func speaks(proto uint8) bool {
	return proto == packet.TCP || proto == packet.UDP || proto == packet.SCTP
}
