package conntrack

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
)

// DCCPState is the state of a DCCP connection.
//
// Kernel (6.1): include/linux/netfilter/nf_conntrack_dccp.h, ct_dccp_states.
type DCCPState = TCPState

// The states, with the kernel's numbers.
const (
	DCCPNone DCCPState = iota
	DCCPRequest
	DCCPRespond
	DCCPPartOpen
	DCCPOpen
	DCCPCloseReq
	DCCPClosing
	DCCPTimeWait
	dccpIgnore
	dccpInvalid
	dccpMax
)

var dccpNames = [...]string{"NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ",
	"CLOSING", "TIMEWAIT"}

// DCCP is the private part of a DCCP connection; the state is in TCP.State.
//
// Kernel (6.1): include/linux/netfilter/nf_conntrack_dccp.h, nf_ct_dccp.
type DCCP struct {
	Handshake uint64
	Role      [2]uint8 // 0 client, 1 server
	LastType  uint8
	LastDir   Dir
}

// The DCCP packet types that tracking treats by name.
const (
	dccpTypeRequest  = 0
	dccpTypeResponse = 1
	dccpTypeAck      = 3
	dccpTypeReset    = 7
	dccpTypeInvalid  = 10
)

// The table below uses the kernel's short names.
const (
	dNO = DCCPNone
	dRQ = DCCPRequest
	dRS = DCCPRespond
	dPO = DCCPPartOpen
	dOP = DCCPOpen
	dCR = DCCPCloseReq
	dCG = DCCPClosing
	dTW = DCCPTimeWait
	dIG = dccpIgnore
	dIV = dccpInvalid
)

// dccpStates says which state follows, by role, type of packet and present state.
//
// Kernel (6.1): net/netfilter/nf_conntrack_proto_dccp.c, dccp_state_table.
var dccpStates = [2][10][8]DCCPState{
	{ // NO   RQ   RS   PO   OP   CR   CG   TW; the client sends
		{dRQ, dRQ, dRS, dIG, dIG, dIG, dIG, dRQ}, // request
		{dIV, dIG, dIG, dIG, dIG, dIG, dIG, dIV}, // response
		{dIV, dIV, dIV, dIV, dOP, dCR, dCG, dIV}, // data
		{dIV, dIV, dPO, dPO, dOP, dCR, dCG, dIV}, // ack
		{dIV, dIV, dPO, dPO, dOP, dCR, dCG, dIV}, // dataack
		{dIV, dIV, dIV, dIV, dIV, dIV, dIV, dIV}, // closereq
		{dIV, dIV, dIV, dCG, dCG, dCG, dIV, dIV}, // close
		{dIV, dTW, dTW, dTW, dTW, dTW, dTW, dIG}, // reset
		{dIV, dIG, dIG, dIG, dIG, dIG, dIG, dIG}, // sync
		{dIV, dIG, dIG, dIG, dIG, dIG, dIG, dIG}, // syncack
	},
	{ // NO   RQ   RS   PO   OP   CR   CG   TW; the server sends
		{dIV, dIG, dIG, dIG, dIG, dIG, dIG, dRQ}, // request
		{dIV, dRS, dRS, dIG, dIG, dIG, dIG, dIV}, // response
		{dIV, dIV, dIV, dOP, dOP, dIV, dCG, dIV}, // data
		{dIV, dIV, dIV, dOP, dOP, dIV, dCG, dIV}, // ack
		{dIV, dIV, dIV, dOP, dOP, dIV, dCG, dIV}, // dataack
		{dIV, dIV, dIV, dCR, dCR, dCR, dCR, dIV}, // closereq
		{dIV, dIV, dIV, dCG, dCG, dIV, dCG, dIV}, // close
		{dIV, dTW, dTW, dTW, dTW, dTW, dTW, dTW}, // reset
		{dIV, dIG, dIG, dIG, dIG, dIG, dIG, dIG}, // sync
		{dIV, dIG, dIG, dIG, dIG, dIG, dIG, dIG}, // syncack
	},
}

// dccp follows DCCP, in kernels that had it.
//
// Kernel (6.1): net/netfilter/nf_conntrack_proto_dccp.c, nf_conntrack_dccp_packet.
func (v *visit) dccp() action {
	if len(v.l4) < 12 {
		return drop
	}
	if v.dccpError() {
		return invalid
	}
	typ := v.l4[8] >> 1 & 0xf
	if len(v.l4) < dccpHeader(v.l4, typ) {
		return drop
	}
	if !v.f.Is(Confirmed) && !v.dccpNew(typ) {
		return invalid
	}
	if typ == dccpTypeReset && !v.f.Is(SeenReply) {
		v.account()
		v.t.Kill(v.w, v.id)
		return accept
	}
	return v.dccpMove(typ)
}

// dccpHeader is the length of a header with what belongs to its type.
//
// Kernel (6.1): include/linux/dccp.h, __dccp_hdr_len.
func dccpHeader(l4 []byte, typ uint8) int {
	n := 12
	if l4[8]&1 != 0 {
		n = 16
	}
	extra := [...]int{4, 12, 0, 8, 8, 8, 8, 12, 8, 8}
	return n + extra[typ]
}

// Kernel (6.1): net/netfilter/nf_conntrack_proto_dccp.c, dccp_error.
func (v *visit) dccpError() bool {
	h := v.l4
	if off := int(h[4]) * 4; off < 12 || off > len(h) {
		return true
	}
	cover := len(h)
	if c := int(h[5] & 0xf); c != 0 {
		if cover = (c - 1) * 4; cover > len(h) {
			return true
		}
	}
	if v.badPartial(packet.DCCP, cover) {
		return true
	}
	const wantLong = 1<<0 | 1<<1 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<9
	typ := h[8] >> 1 & 0xf
	return typ >= dccpTypeInvalid || wantLong>>typ&1 != 0 && h[8]&1 == 0
}

// Kernel (6.1): net/netfilter/nf_conntrack_proto_dccp.c, dccp_new.
func (v *visit) dccpNew(typ uint8) bool {
	switch dccpStates[0][typ][DCCPNone] {
	case DCCPRequest:
	case dccpInvalid:
		return false
	default:
		if !v.t.dccpLoose {
			return false
		}
	}
	v.f.TCP.State = DCCPNone
	v.f.DCCP = DCCP{Role: [2]uint8{0, 1}}
	return true
}

func (v *visit) dccpMove(typ uint8) action {
	d, f := &v.f.DCCP, v.f
	role, old := d.Role[v.dir], f.TCP.State
	next := dccpStates[role][typ][old]
	switch {
	case next == DCCPRequest && old == DCCPTimeWait && role == 1:
		d.Role[v.dir], d.Role[v.dir.Not()] = 0, 1
	case next == DCCPRespond && old == DCCPRequest:
		d.Handshake = dccpSeq(v.l4)
	case next == DCCPPartOpen && old == DCCPRespond && typ == dccpTypeAck &&
		dccpAck(v.l4) == d.Handshake:
		f.Status |= Assured
	case next == dccpInvalid:
		return invalid
	case next == dccpIgnore:
		if d.LastDir == v.dir || d.LastType != dccpTypeRequest || typ != dccpTypeResponse {
			d.LastDir, d.LastType = v.dir, typ
			return accept
		}
		d.Role[v.dir.Not()], d.Role[v.dir] = 0, 1
		d.Handshake, next = dccpSeq(v.l4), DCCPRespond
	}
	d.LastDir, d.LastType = v.dir, typ
	f.TCP.State = next
	v.refresh(v.t.dccpT[next])
	return accept
}

// dccpSeq is the sequence number of a header.
//
// Kernel (6.1): include/linux/dccp.h, dccp_hdr_seq.
func dccpSeq(l4 []byte) uint64 {
	if l4[8]&1 == 0 {
		return uint64(binary.BigEndian.Uint32(l4[8:]) & 0xffffff)
	}
	return uint64(binary.BigEndian.Uint16(l4[10:]))<<32 | uint64(binary.BigEndian.Uint32(l4[12:]))
}

// dccpAck is the acknowledgement number behind the sequence number.
func dccpAck(l4 []byte) uint64 {
	h := l4[12:]
	if l4[8]&1 != 0 {
		h = l4[16:]
	}
	return uint64(binary.BigEndian.Uint16(h[2:]))<<32 | uint64(binary.BigEndian.Uint32(h[4:]))
}
