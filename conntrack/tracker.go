// Package conntrack tracks connections: it gives a packet its connection and its
// relation to it, follows the protocols' states and windows, and keeps the table.
//
// On a packet's way it stands twice: behind raw in PREROUTING and OUTPUT (In), and
// last of all in INPUT and POSTROUTING (Confirm), where a new connection enters the
// table. In between a connection is known to its first packet alone, and vanishes
// with it when that is dropped.
//
// Kernel: net/netfilter/nf_conntrack_core.c and nf_conntrack_proto_*.c.
package conntrack

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Tracker tracks the connections of one host. It is immutable once the host is
// built; what changes lies in the world's memory.
type Tracker struct {
	cfg       Config
	flows     world.Slot[*world.Array[Flow]]
	tuples    world.Slot[*world.Table[key, ref]]
	sources   world.Slot[*world.Table[Source, packet.FlowID]]
	expects   world.Slot[*world.Array[Expect]]
	vars      world.Slot[*world.Var[vars]]
	lines     world.Slot[*world.Table[packet.FlowID, ftpLines]]
	templates []Template
	// NAT lets NAT follow a helper: it changes payloads and expectations of a
	// connection whose addresses are translated. Nil means no NAT.
	NAT HelperNAT

	dccp bool // DCCP has a tracker

	checksum, acct                      bool
	loose, liberal, ignoreRST, noWindow bool
	dccpLoose                           bool
	maxRetrans, max, expectMax          int
	tcp                                 [tcpTimeoutMax]world.Instant
	sctp                                [sctpMax]world.Instant
	dccpT                               [dccpMax]world.Instant
	udp, udpStream, gre, greStream      world.Instant
	icmp, generic                       world.Instant
}

// New makes a tracker and adds its memory to the schema.
func New(s *world.Schema, cfg Config) *Tracker {
	t := &Tracker{cfg: cfg, templates: make([]Template, 1)}
	t.flows = world.Add(s, func() *world.Array[Flow] { return world.NewArray[Flow](1) })
	t.tuples = world.Add(s, world.NewTable[key, ref])
	t.sources = world.Add(s, world.NewTable[Source, packet.FlowID])
	t.expects = world.Add(s, func() *world.Array[Expect] { return world.NewArray[Expect](0) })
	t.vars = world.Add(s, func() *world.Var[vars] { return &world.Var[vars]{} })
	t.lines = world.Add(s, world.NewTable[packet.FlowID, ftpLines])
	t.configure()
	return t
}

func (t *Tracker) configure() {
	c := &t.cfg
	t.dccp = !c.Since(kernel6_17)
	t.checksum, t.acct = c.bool("checksum", true), c.bool("acct", false)
	t.loose, t.liberal = c.bool("tcp_loose", true), c.bool("tcp_be_liberal", false)
	t.ignoreRST = c.bool("tcp_ignore_invalid_rst", false)
	t.noWindow = c.bool("tcp_no_window_check", false)
	t.dccpLoose = c.bool("dccp_loose", true)
	t.maxRetrans = c.int("tcp_max_retrans", 3)
	t.max, t.expectMax = c.int("max", 262144), c.int("expect_max", 4096)
	t.tcp, t.sctp, t.dccpT = c.tcpTimeouts(), c.sctpTimeouts(), c.dccpTimeouts()
	t.udp, t.udpStream = c.seconds("udp_timeout", 30), c.seconds("udp_timeout_stream", 120)
	t.gre, t.greStream = c.seconds("gre_timeout", 30), c.seconds("gre_timeout_stream", 180)
	t.icmp, t.generic = c.seconds("icmp_timeout", 30), c.seconds("generic_timeout", 600)
}

// Config returns what the tracker was built from.
func (t *Tracker) Config() *Config { return &t.cfg }

// visit is one packet's visit to the tracker.
type visit struct {
	t    *Tracker
	w    *world.World
	p    *packet.Packet
	hook trace.Hook

	l4    []byte
	proto uint8
	zone  Zone
	tmpl  *Template

	id   packet.FlowID
	f    *Flow
	dir  Dir
	info packet.CTInfo
}

// action is what a protocol's tracker says of a packet.
type action uint8

const (
	accept  action = iota
	invalid        // not part of the connection
	drop
	repeat // the connection was reopened: look again
)

// In gives a packet its connection, making one where it is the first. Packets that
// have one already (from their way over lo) and those that nobody shall track are
// left alone. A packet that is no valid part of any connection stays without.
//
// Kernel: net/netfilter/nf_conntrack_core.c, nf_conntrack_in; for fragments in
// OUTPUT nf_conntrack_proto.c, ipv4_conntrack_local.
func (t *Tracker) In(w *world.World, tr *trace.Trace, p *packet.Packet,
	hook trace.Hook) trace.Verdict {
	v := trace.Accept
	if p.CT.Flow == 0 && p.CT.Info != packet.Untracked {
		v = t.track(w, p, hook)
	}
	if tr.On() {
		t.note(w, tr, p, false)
	}
	return v
}

func (t *Tracker) track(w *world.World, p *packet.Packet, hook trace.Hook) trace.Verdict {
	v := visit{t: t, w: w, p: p, hook: hook}
	v.takeTemplate()
	if hook == trace.Output && p.IsFragment() || !p.Is4() {
		return trace.Accept
	}
	var ok bool
	if v.l4, v.proto, ok = l4proto(p.IP()); !ok {
		return trace.Accept
	}
	if v.proto == packet.ICMP {
		if done := v.icmpError(); done {
			return trace.Accept
		}
	}
	return v.normal()
}

// normal finds or makes the connection and asks the protocol's tracker.
func (v *visit) normal() trace.Verdict {
	for {
		if full := v.resolve(); full {
			return trace.DropIt
		}
		if v.id == 0 {
			return trace.Accept
		}
		switch v.handle() {
		case accept:
			if v.info == packet.EstablishedReply {
				v.f.Status |= SeenReply
			}
			return trace.Accept
		case invalid:
			v.detach()
			return trace.Accept
		case drop:
			v.detach()
			return trace.DropIt
		}
		v.detach() // and look again
	}
}

// detach takes the connection from the packet, and with it the last reference to
// one that is not in the table.
func (v *visit) detach() {
	v.t.Release(v.w, v.p)
	v.p.CT = packet.CT{}
	v.id, v.f = 0, nil
}

// resolve finds the connection of the packet's tuple or makes it, and attaches it.
//
// Kernel: net/netfilter/nf_conntrack_core.c, resolve_normal_ct.
func (v *visit) resolve() (full bool) {
	tuple, ok := v.t.tupleOf(v.p.IP(), v.l4, v.proto)
	if !ok {
		return false
	}
	v.id, v.dir = v.t.find(v.w, v.zone, tuple)
	if v.id == 0 {
		if full = v.create(tuple); full || v.id == 0 {
			return full
		}
	}
	v.f = v.t.Ref(v.w, v.id)
	v.info = v.f.relation(v.dir)
	v.p.CT = packet.CT{Flow: v.id, Info: v.info}
	return false
}

// relation is the relation of a packet in a direction.
func (f *Flow) relation(d Dir) packet.CTInfo {
	switch {
	case d == Reply:
		return packet.EstablishedReply
	case f.Is(SeenReply):
		return packet.Established
	case f.Is(Expected):
		return packet.Related
	}
	return packet.New
}

// create makes the connection of a packet that belongs to none.
//
// Kernel: net/netfilter/nf_conntrack_core.c, init_conntrack.
func (v *visit) create(tuple Tuple) (full bool) {
	reply, ok := tuple.Invert()
	if !ok {
		return false
	}
	if v.id, ok = v.t.alloc(v.w); !ok {
		return true
	}
	v.dir = Original
	f := v.t.Ref(v.w, v.id)
	f.Tuples, f.Zone, f.refs = [2]Tuple{tuple, reply}, v.zone, 1
	v.expected(f)
	if !f.Is(Expected) && v.tmpl != nil && v.tmpl.Helper != NoHelper {
		f.Helper = v.tmpl.Helper
		f.Status |= HelperBit
	}
	return false
}

// handle asks the protocol's tracker.
//
// Kernel: net/netfilter/nf_conntrack_core.c, nf_conntrack_handle_packet.
func (v *visit) handle() action {
	switch v.f.Proto() {
	case packet.TCP:
		return v.tcp()
	case packet.UDP:
		return v.udp()
	case packet.UDPLite:
		return v.udplite()
	case packet.ICMP:
		return v.icmp()
	case packet.SCTP:
		return v.sctp()
	case packet.GRE:
		return v.gre()
	case packet.DCCP:
		if v.t.dccp {
			return v.dccp()
		}
	}
	v.refresh(v.t.generic)
	return accept
}

// refresh moves a connection's timeout and counts the packet.
//
// Kernel: net/netfilter/nf_conntrack_core.c, __nf_ct_refresh_acct.
func (v *visit) refresh(d world.Instant) {
	if !v.f.Is(FixedTimeout) {
		if v.f.Is(Confirmed) {
			d += v.w.Now
		}
		v.f.Timeout = d
	}
	v.account()
}

// account counts the packet, where accounting is on.
func (v *visit) account() {
	if v.t.acct {
		v.f.Packets[v.dir]++
		v.f.Bytes[v.dir] += uint64(v.p.Len())
	}
}

// badChecksum tells whether the transport checksum is to be looked at here and is
// wrong. On the way out it is taken to be right.
//
// Kernel: net/netfilter/utils.c, nf_ip_checksum.
func (v *visit) badChecksum(proto uint8) bool {
	if !v.t.checksum || v.hook != trace.Prerouting {
		return false
	}
	var sum uint32
	if proto != packet.ICMP {
		sum = packet.PseudoSum(v.p.Src(), v.p.Dst(), proto, len(v.l4))
	}
	v.p.SumValid = packet.Fold(packet.Sum16(v.l4, sum)) == 0
	return !v.p.SumValid
}

// NoteEnds notes what a connection was found by: its five-tuple, or what an error quotes.
// A nil d notes nothing.
func NoteEnds(d *field.Deps, p *packet.Packet) {
	ids := []field.ID{field.Src, field.Dst, field.Proto, field.SrcPort, field.DstPort}
	switch {
	case p.Protocol() == packet.ICMP && (p.CT.Info == packet.Related || p.CT.Info == packet.RelatedReply):
		ids = append(ids[:3], field.ICMPType, field.Bytes)
	case p.Protocol() == packet.ICMP:
		ids = append(ids[:3], field.ICMPType, field.ICMPCode, field.ICMPID)
	}
	for _, id := range ids {
		d.Note(id, field.Ones(id.Bits()))
	}
}

// note records what was found.
func (t *Tracker) note(w *world.World, tr *trace.Trace, p *packet.Packet, confirmed bool) {
	e := &trace.Conntrack{State: t.State(w, p), Confirmed: confirmed, Flow: p.CT.Flow}
	if f := t.Get(w, p.CT.Flow); f != nil {
		if f.Is(Confirmed) && !confirmed {
			NoteEnds(tr.Notes(), p)
		}
		e.Orig, e.Reply = f.Trace(Original), f.Trace(Reply)
		e.SNAT, e.DNAT = f.Is(SrcNAT), f.Is(DstNAT)
	}
	tr.Add(p, e)
}
