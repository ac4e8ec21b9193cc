package conntrack

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/hookpath/hookpath/trace"
)

// SCTPState is the state of an SCTP association.
//
// Kernel: include/uapi/linux/netfilter/nf_conntrack_sctp.h, sctp_conntrack.
type SCTPState = TCPState

// The states, with the kernel's numbers.
const (
	SCTPNone SCTPState = iota
	SCTPClosed
	SCTPCookieWait
	SCTPCookieEchoed
	SCTPEstablished
	SCTPShutdownSent
	SCTPShutdownRecd
	SCTPShutdownAckSent
	SCTPHeartbeatSent
	sctpUnused
	sctpMax
)

var sctpNames = [...]string{"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED",
	"SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT"}

// SCTP is the private part of an SCTP association; the state is in TCP.State.
//
// Kernel: include/linux/netfilter/nf_conntrack_sctp.h, ip_ct_sctp.
type SCTP struct {
	VTag    [2]uint32
	Init    [2]bool
	LastDir Dir
	Failed  bool // a heartbeat had the wrong tag
}

// The chunks that tracking knows.
const (
	chunkData        = 0
	chunkInit        = 1
	chunkInitAck     = 2
	chunkHeartbeat   = 4
	chunkHeartbeatOK = 5
	chunkAbort       = 6
	chunkShutdown    = 7
	chunkShutdownAck = 8
	chunkError       = 9
	chunkCookieEcho  = 10
	chunkCookieAck   = 11
	chunkShutdownEnd = 14
)

// The table below uses the kernel's short names.
const (
	cNO = SCTPNone
	cCL = SCTPClosed
	cCW = SCTPCookieWait
	cCE = SCTPCookieEchoed
	cES = SCTPEstablished
	cSS = SCTPShutdownSent
	cSR = SCTPShutdownRecd
	cSA = SCTPShutdownAckSent
	cHS = SCTPHeartbeatSent
	cIV = sctpMax
)

// sctpStates says which state follows, by direction, kind of chunk and present
// state.
//
// Kernel: net/netfilter/nf_conntrack_proto_sctp.c, sctp_conntracks.
var sctpStates = [2][11][9]SCTPState{
	{ // NO   CL   CW   CE   ES   SS   SR   SA   HS
		{cCL, cCL, cCW, cCE, cES, cCL, cCL, cSA, cCW},
		{cCL, cCL, cCW, cCE, cES, cSS, cSR, cSA, cCL},
		{cCL, cCL, cCL, cCL, cCL, cCL, cCL, cCL, cCL},
		{cCL, cCL, cCW, cCE, cSS, cSS, cSR, cSA, cCL},
		{cSA, cCL, cCW, cCE, cES, cSA, cSA, cSA, cSA},
		{cCL, cCL, cCW, cCE, cES, cSS, cSR, cSA, cCL},
		{cCL, cCL, cCE, cCE, cES, cSS, cSR, cSA, cCL},
		{cCL, cCL, cCW, cES, cES, cSS, cSR, cSA, cCL},
		{cCL, cCL, cCW, cCE, cES, cSS, cSR, cCL, cCL},
		{cHS, cCL, cCW, cCE, cES, cSS, cSR, cSA, cHS},
		{cCL, cCL, cCW, cCE, cES, cSS, cSR, cSA, cHS},
	},
	{ // NO   CL   CW   CE   ES   SS   SR   SA   HS
		{cIV, cCL, cCW, cCE, cES, cSS, cSR, cSA, cIV},
		{cIV, cCW, cCW, cCE, cES, cSS, cSR, cSA, cIV},
		{cIV, cCL, cCL, cCL, cCL, cCL, cCL, cCL, cIV},
		{cIV, cCL, cCW, cCE, cSR, cSS, cSR, cSA, cIV},
		{cIV, cCL, cCW, cCE, cES, cSA, cSA, cSA, cIV},
		{cIV, cCL, cCW, cCL, cES, cSS, cSR, cSA, cIV},
		{cIV, cCL, cCE, cCE, cES, cSS, cSR, cSA, cIV},
		{cIV, cCL, cCW, cES, cES, cSS, cSR, cSA, cIV},
		{cIV, cCL, cCW, cCE, cES, cSS, cSR, cCL, cIV},
		{cIV, cCL, cCW, cCE, cES, cSS, cSR, cSA, cHS},
		{cIV, cCL, cCW, cCE, cES, cSS, cSR, cSA, cES},
	},
}

// sctpNext is the state after a chunk; data and the like change none.
//
// Kernel: net/netfilter/nf_conntrack_proto_sctp.c, sctp_new_state.
func sctpNext(d Dir, cur SCTPState, typ uint8) SCTPState {
	rows := [...]int8{chunkInit: 0, chunkInitAck: 1, chunkHeartbeat: 9, chunkHeartbeatOK: 10,
		chunkAbort: 2, chunkShutdown: 3, chunkShutdownAck: 4, chunkError: 5, chunkCookieEcho: 6,
		chunkCookieAck: 7, 12: -1, 13: -1, chunkShutdownEnd: 8, chunkData: -1, 3: -1}
	if int(typ) >= len(rows) || rows[typ] < 0 {
		return cur
	}
	return sctpStates[d][rows[typ]][cur]
}

// chunk is one chunk of an SCTP packet.
type chunk struct {
	typ, flags uint8
	body       []byte // from behind the chunk's header to the packet's end
}

// initTag is the tag of an INIT or INIT ACK; false when the header is cut.
func (c *chunk) initTag() (uint32, bool) {
	if len(c.body) < 16 {
		return 0, false
	}
	return binary.BigEndian.Uint32(c.body), true
}

// chunks calls f for each chunk until it returns false.
//
// Kernel: net/netfilter/nf_conntrack_proto_sctp.c, for_each_sctp_chunk.
func chunks(l4 []byte, f func(c chunk) bool) {
	for off := 12; off+4 <= len(l4); {
		h := l4[off:]
		n := int(binary.BigEndian.Uint16(h[2:]))
		if !f(chunk{h[0], h[1], h[4:]}) || n == 0 {
			return
		}
		off += (n + 3) &^ 3
	}
}

// chunkMap is the set of chunk types of a packet.
type chunkMap [4]uint64

func (m *chunkMap) set(t uint8)      { m[t>>6] |= 1 << (t & 63) }
func (m *chunkMap) has(t uint8) bool { return m[t>>6]&(1<<(t&63)) != 0 }

// basicChecks looks whether chunks stand together that may; it fails for packets
// without any.
//
// Kernel: net/netfilter/nf_conntrack_proto_sctp.c, do_basic_checks.
func basicChecks(l4 []byte) (m chunkMap, ok bool) {
	count, alone := 0, false
	ok = true
	chunks(l4, func(c chunk) bool {
		switch c.typ {
		case chunkInit, chunkInitAck, chunkShutdownEnd:
			alone = true
		}
		first := alone || c.typ == chunkCookieAck || c.typ == chunkCookieEcho
		if first && count != 0 || chunkLen(l4, c) == 0 {
			ok = false
			return false
		}
		m.set(c.typ)
		count++
		return true
	})
	return m, ok && count > 0
}

// chunkLen is the length field of a chunk.
func chunkLen(l4 []byte, c chunk) uint16 {
	off := len(l4) - len(c.body) - 2
	return binary.BigEndian.Uint16(l4[off:])
}

// sctp follows an SCTP association.
//
// Kernel: net/netfilter/nf_conntrack_proto_sctp.c, nf_conntrack_sctp_packet.
func (v *visit) sctp() action {
	if v.sctpError() {
		return invalid
	}
	a := assoc{v: v, s: &v.f.SCTP, vtag: binary.BigEndian.Uint32(v.l4[4:])}
	var ok bool
	if a.types, ok = basicChecks(v.l4); !ok {
		return invalid
	}
	if !v.f.Is(Confirmed) && !a.begin() {
		return invalid
	}
	if a.wrongTag() {
		return invalid
	}
	chunks(v.l4, a.chunk)
	switch {
	case a.bad:
		return invalid
	case a.quiet:
		return accept
	}
	v.refresh(v.t.sctp[a.next])
	return accept
}

// Kernel: net/netfilter/nf_conntrack_proto_sctp.c, sctp_error.
func (v *visit) sctpError() bool {
	if len(v.l4) < 12 {
		return true
	}
	if v.hook != trace.Prerouting || !v.t.checksum {
		return false
	}
	return binary.LittleEndian.Uint32(v.l4[8:]) != SCTPChecksum(v.l4)
}

// SCTPChecksum is the CRC32c of an SCTP packet, its field taken as zero; the field
// holds it in little-endian order.
func SCTPChecksum(l4 []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Update(0, table, l4[:8])
	sum = crc32.Update(sum, table, []byte{0, 0, 0, 0})
	return crc32.Update(sum, table, l4[12:])
}

// assoc is a packet's step through an association.
type assoc struct {
	v     *visit
	s     *SCTP
	vtag  uint32
	types chunkMap
	next  SCTPState
	bad   bool
	quiet bool // passes, but must not keep the entry alive
}

// begin makes an association from its first packet.
//
// Kernel: net/netfilter/nf_conntrack_proto_sctp.c, sctp_new.
func (a *assoc) begin() bool {
	if a.types.has(chunkAbort) || a.types.has(chunkShutdownEnd) || a.types.has(chunkCookieAck) {
		return false
	}
	*a.s = SCTP{}
	a.v.f.TCP.State = SCTPNone
	ok := true
	chunks(a.v.l4, func(c chunk) bool {
		next := sctpNext(Original, SCTPNone, c.typ)
		ok = next != SCTPNone && next != cIV && a.beginTag(&c)
		return ok
	})
	return ok
}

func (a *assoc) beginTag(c *chunk) bool {
	switch c.typ {
	case chunkInit:
		tag, ok := c.initTag()
		if a.vtag != 0 || !ok {
			return false
		}
		a.s.VTag[Reply] = tag
	case chunkHeartbeat:
		a.s.VTag[Original] = a.vtag
	case chunkShutdownAck:
		a.s.VTag[Reply] = a.vtag
	}
	return true
}

// wrongTag checks the tag of packets without chunks that have rules of their own.
func (a *assoc) wrongTag() bool {
	for _, t := range [...]uint8{chunkInit, chunkShutdownEnd, chunkCookieEcho, chunkAbort,
		chunkShutdownAck, chunkHeartbeat, chunkHeartbeatOK} {
		if a.types.has(t) {
			return false
		}
	}
	return a.vtag != a.s.VTag[a.v.dir]
}

// chunk takes one chunk into account; false ends the packet.
func (a *assoc) chunk(c chunk) bool {
	switch a.checkTag(&c) {
	case tagBad:
		a.bad = true
		return false
	case tagSkip:
		a.quiet = true
		return true
	}
	old := a.v.f.TCP.State
	a.next = sctpNext(a.v.dir, old, c.typ)
	if a.next == cIV || !a.noteTag(&c, old) {
		a.bad = true
		return false
	}
	a.v.f.TCP.State = a.next
	if old != a.next && a.next == SCTPEstablished {
		a.v.f.Status |= Assured
	}
	return true
}

// tagCheck is what a chunk's own tag rule says.
type tagCheck uint8

const (
	tagOK tagCheck = iota
	tagBad
	tagSkip
)

func (a *assoc) checkTag(c *chunk) tagCheck {
	d, s := a.v.dir, a.s
	ok := true
	switch c.typ {
	case chunkInit:
		ok = a.vtag == 0
	case chunkAbort, chunkShutdownEnd:
		const peers = 1 // the T flag: the tag is the peer's
		own := c.flags&peers == 0
		ok = own && a.vtag == s.VTag[d] || !own && a.vtag == s.VTag[d.Not()]
	case chunkCookieEcho:
		ok = a.vtag == s.VTag[d]
	case chunkCookieAck:
		s.Init = [2]bool{}
	case chunkHeartbeat:
		return a.heartbeat()
	case chunkHeartbeatOK:
		return a.heartbeatAck()
	}
	if !ok {
		return tagBad
	}
	return tagOK
}

func (a *assoc) heartbeat() tagCheck {
	d, s := a.v.dir, a.s
	switch {
	case s.VTag[d] == 0:
		s.VTag[d] = a.vtag
	case a.vtag == s.VTag[d]:
		s.Failed = false
	case a.types.has(chunkData) || a.quiet:
		return tagBad
	default:
		s.Failed, s.LastDir = true, d
		return tagSkip
	}
	return tagOK
}

func (a *assoc) heartbeatAck() tagCheck {
	d, s := a.v.dir, a.s
	switch {
	case s.VTag[d] == 0:
		s.VTag[d] = a.vtag
	case a.vtag == s.VTag[d]:
		s.Failed = false
	case a.types.has(chunkData) || a.quiet || !s.Failed || s.LastDir == d:
		return tagBad
	default:
		s.Failed = false
		s.VTag[d], s.VTag[d.Not()] = a.vtag, 0
	}
	return tagOK
}

// noteTag takes the tag from an INIT or its answer.
func (a *assoc) noteTag(c *chunk, old SCTPState) bool {
	if c.typ != chunkInit && c.typ != chunkInitAck {
		return true
	}
	tag, ok := c.initTag()
	if !ok {
		return false
	}
	d, s := a.v.dir, a.s
	peer := d.Not()
	if c.typ == chunkInitAck {
		have := s.VTag[peer]
		if !s.Init[peer] && have != 0 && have != tag ||
			s.Init[d] && s.Init[peer] && have != tag {
			return false
		}
		s.VTag[peer] = tag
		return true
	}
	if old == SCTPNone || s.VTag[peer] != tag {
		if s.Init[d] && s.Init[peer] {
			s.Init[peer] = false
		}
		s.Init[d] = true
	}
	s.VTag[peer] = tag
	if a.next == SCTPClosed && old == SCTPClosed && a.v.f.Is(Confirmed) {
		a.quiet = true
	}
	return true
}
