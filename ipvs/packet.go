package ipvs

import (
	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// View is what the walk needs to know of a connection to move its packets.
type View struct {
	Proto                 uint8
	Client, Virtual, Real packet.Addr
	CPort, VPort, RPort   uint16
	Method                Method
	Tracked, OnePacket    bool
	Service, Index        int // numbers of the service and of its server, -1 for none
	Encap                 Encap
	EncapPort             uint16
	EncapFlags            EncapFlags
	State                 string
	// Controlled tells that it hangs on a template, whose virtual port ControlPort is.
	Controlled  bool
	ControlPort uint16
}

// View returns a connection.
func (t *Table) View(w *world.World, id ConnID) View {
	c := t.conn(w, id)
	v := View{Proto: c.proto, Client: c.client, Virtual: c.virtual, Real: c.real,
		CPort: c.cport, VPort: c.vport, RPort: c.rport, Method: c.method,
		Tracked: c.is(tracked), OnePacket: c.is(onePacket), Service: -1, Index: -1,
		State: t.stateName(c)}
	if c.control != 0 {
		v.Controlled, v.ControlPort = true, t.conn(w, c.control).vport
	}
	if c.server >= 0 {
		s := &t.servers[c.server]
		v.Service, v.Index = s.svc.number, s.index
		v.Encap, v.EncapPort, v.EncapFlags = s.Encap, s.EncapPort, s.EncapFlags
	}
	return v
}

// stateName is a connection's state as ipvsadm names it.
func (t *Table) stateName(c *conn) string {
	switch {
	case c.is(template) && c.state&assuredTemplate != 0:
		return "ASSURED"
	case c.is(template):
		return "NONE"
	case c.proto == packet.TCP:
		return t.tcp.names[c.state]
	case c.proto == packet.SCTP:
		return t.sctp.names[c.state]
	}
	return "UDP"
}

// Services returns how many services there are.
func (t *Table) Services() int { return len(t.services) }

// Service returns a service's configuration.
func (t *Table) Service(n int) *Service { return &t.services[n].Service }

// Enter notes a client's packet on its way to the real server, before it is sent.
func (t *Table) Enter(w *world.World, id ConnID, l4 []byte) {
	t.pass(w, t.conn(w, id), FromClient, l4)
}

// Leave lets a connection live on behind a packet that was sent. One of a single packet
// ends.
func (t *Table) Leave(w *world.World, id ConnID) {
	t.conn(w, id).packets++
	t.restart(w, id)
}

// Out returns the connection of a real server's answer, zero for none.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_out_hook.
func (t *Table) Out(w *world.World, h *Header) ConnID {
	t.expire(w)
	k, ok := h.out()
	if !ok {
		return 0
	}
	return t.findOut(w, k)
}

// Answered notes an answer that passes: a quoted one leaves the connection as it is.
func (t *Table) Answered(w *world.World, id ConnID, l4 []byte) {
	t.pass(w, t.conn(w, id), FromServer, l4)
	t.restart(w, id)
}

// HasServer tells whether somebody is a real server of some service reached by NAT.
//
// Kernel: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_has_real_service.
func (t *Table) HasServer(proto uint8, addr packet.Addr, port uint16) bool {
	for i := range t.servers {
		s := &t.servers[i]
		if s.Method == Masq && s.Addr == addr && s.Port == port &&
			(s.svc.Proto == proto || s.svc.Mark != 0) {
			return true
		}
	}
	return false
}

// FindTunnel returns a server that is reached through a tunnel to an address and, for GUE, a
// port; nil for none.
//
// Kernel: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_find_tunnel.
func (t *Table) FindTunnel(addr packet.Addr, port uint16) *Dest {
	for i := range t.servers {
		if d := t.servers[i].Dest; d.Method == Tunnel && d.Addr == addr && d.EncapPort == port {
			return d
		}
	}
	return nil
}

// tuple is the connection's first packet as conntrack saw it.
func (c *conn) tuple() conntrack.Tuple {
	return conntrack.Tuple{Proto: c.proto, Src: c.client, Dst: c.virtual, SPort: c.cport,
		DPort: c.vport}
}

// forget drops conntrack's entry of a connection that ended.
//
// Kernel: net/netfilter/ipvs/ip_vs_nfct.c, ip_vs_conn_drop_conntrack.
func (t *Table) forget(w *world.World, c *conn) {
	if c.cport == 0 || t.tracker == nil {
		return
	}
	if id, _ := t.tracker.Find(w, conntrack.Zone{}, c.tuple()); id != 0 {
		t.tracker.Kill(w, id)
	}
}

// BackupOnly tells that this host only keeps connections for another one.
func (t *Table) BackupOnly() bool { return t.settings.backupOnly }

// IgnoresTunnels tells that what arrives in a tunnel is not looked at again.
func (t *Table) IgnoresTunnels() bool { return t.settings.ignoreTunnels }

// DiscoversPMTU tells that senders into tunnels learn what fits.
func (t *Table) DiscoversPMTU() bool { return t.settings.pmtuDisc }

// Reroutes tells that answers get a route of their own (snat_reroute).
func (t *Table) Reroutes() bool { return t.settings.snatReroute }

// TellsServers tells that real servers learn when nobody knows their connection
// (nat_icmp_send).
func (t *Table) TellsServers() bool { return t.settings.natICMPSend }

// SchedulesICMP tells that an ICMP error may begin a connection (schedule_icmp).
func (t *Table) SchedulesICMP() bool { return t.settings.scheduleICMP }

// Closes tells whether a packet is the end of a connection that nobody answers.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, is_tcp_reset and is_sctp_abort.
func (h *Header) Closes() bool {
	switch {
	case h.Proto == packet.TCP && len(h.L4) >= 20:
		return h.L4[13]&tcpRST != 0
	case h.Proto == packet.SCTP && len(h.L4) >= sctpHeader+4:
		return h.L4[sctpHeader] == chunkAbort
	}
	return false
}

// Known finds the connection of a quoted packet of a client, zero for none.
func (t *Table) Known(w *world.World, h *Header) ConnID {
	t.expire(w)
	k, ok := h.in()
	if !ok {
		return 0
	}
	return t.find(w, k)
}

// Schedule makes a connection for a packet that is known to have none.
func (t *Table) Schedule(w *world.World, h *Header) Decision { return t.trySchedule(w, h) }

// Count counts a packet of a connection that changes nothing else.
func (t *Table) Count(w *world.World, id ConnID) { t.conn(w, id).packets++ }

// Tracks tells whether a service makes the host track connections: one that the FTP helper
// serves by NAT.
//
// Kernel: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_register_conntrack; with vs.conntrack nothing
// of IPVS does.
func (t *Table) Tracks() bool {
	for i := range t.servers {
		if t.servers[i].Method == Masq && t.servers[i].svc.Port == ftpPort {
			return true
		}
	}
	return false
}
