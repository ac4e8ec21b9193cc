package conntrack

import "github.com/hookpath/hookpath/world"

// Sysctl answers what a setting is, def when it is not known. link.Sysctl is one.
type Sysctl interface {
	Int(name string, def int) int
}

// Config is what a Tracker is built from.
type Config struct {
	// Sysctl has the settings by full name; nil means the kernel's defaults.
	Sysctl Sysctl
	// Kernel is major<<16 | minor<<8 | patch, as the kernel's KERNEL_VERSION counts; zero
	// means the newest that is known.
	Kernel int
}

// The versions in which tracking changed.
const (
	kernel6_12 = 6<<16 | 12<<8
	kernel6_17 = 6<<16 | 17<<8
)

// Since tells whether the kernel is at least of a version (major<<16 | minor<<8).
func (c *Config) Since(version int) bool { return c.Kernel == 0 || c.Kernel >= version }

// int reads a setting of net.netfilter.nf_conntrack_*.
func (c *Config) int(name string, def int) int {
	if c.Sysctl == nil {
		return def
	}
	return c.Sysctl.Int("net.netfilter.nf_conntrack_"+name, def)
}

func (c *Config) bool(name string, def bool) bool {
	n := 0
	if def {
		n = 1
	}
	return c.int(name, n) != 0
}

// seconds reads a timeout.
func (c *Config) seconds(name string, def int) world.Instant {
	return world.Instant(c.int(name, def)) * world.Second
}

// tcpTimeouts are the timeouts of TCP's states, with the two that do not belong to
// a state behind them.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, tcp_timeouts.
func (c *Config) tcpTimeouts() [tcpTimeoutMax]world.Instant {
	return [tcpTimeoutMax]world.Instant{
		TCPSynSent:     c.seconds("tcp_timeout_syn_sent", 120),
		TCPSynRecv:     c.seconds("tcp_timeout_syn_recv", 60),
		TCPEstablished: c.seconds("tcp_timeout_established", 432000),
		TCPFinWait:     c.seconds("tcp_timeout_fin_wait", 120),
		TCPCloseWait:   c.seconds("tcp_timeout_close_wait", 60),
		TCPLastAck:     c.seconds("tcp_timeout_last_ack", 30),
		TCPTimeWait:    c.seconds("tcp_timeout_time_wait", 120),
		TCPClose:       c.seconds("tcp_timeout_close", 10),
		TCPSynSent2:    c.seconds("tcp_timeout_syn_sent", 120),
		tcpRetrans:     c.seconds("tcp_timeout_max_retrans", 300),
		tcpUnack:       c.seconds("tcp_timeout_unacknowledged", 300),
	}
}

// sctpTimeouts are the timeouts of SCTP's states.
//
// Kernel: net/netfilter/nf_conntrack_proto_sctp.c, sctp_timeouts.
func (c *Config) sctpTimeouts() [sctpMax]world.Instant {
	return [sctpMax]world.Instant{
		SCTPClosed:          c.seconds("sctp_timeout_closed", 10),
		SCTPCookieWait:      c.seconds("sctp_timeout_cookie_wait", 3),
		SCTPCookieEchoed:    c.seconds("sctp_timeout_cookie_echoed", 3),
		SCTPEstablished:     c.seconds("sctp_timeout_established", 210),
		SCTPShutdownSent:    c.seconds("sctp_timeout_shutdown_sent", 3),
		SCTPShutdownRecd:    c.seconds("sctp_timeout_shutdown_recd", 3),
		SCTPShutdownAckSent: c.seconds("sctp_timeout_shutdown_ack_sent", 3),
		SCTPHeartbeatSent:   c.seconds("sctp_timeout_heartbeat_sent", 30),
	}
}

// dccpTimeouts are the timeouts of DCCP's states.
//
// Kernel: net/netfilter/nf_conntrack_proto_dccp.c, nf_conntrack_dccp_init_net.
func (c *Config) dccpTimeouts() [dccpMax]world.Instant {
	return [dccpMax]world.Instant{
		DCCPRequest:  c.seconds("dccp_timeout_request", 240),
		DCCPRespond:  c.seconds("dccp_timeout_respond", 480),
		DCCPPartOpen: c.seconds("dccp_timeout_partopen", 480),
		DCCPOpen:     c.seconds("dccp_timeout_open", 12*3600),
		DCCPCloseReq: c.seconds("dccp_timeout_closereq", 64),
		DCCPClosing:  c.seconds("dccp_timeout_closing", 64),
		DCCPTimeWait: c.seconds("dccp_timeout_timewait", 240),
	}
}
