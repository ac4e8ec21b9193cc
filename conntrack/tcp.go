package conntrack

import "github.com/hookpath/hookpath/packet"

// TCPFlags are what is known of one side of a TCP connection, and (the last two)
// of the last segment that was ignored.
//
// Kernel: include/uapi/linux/netfilter/nf_conntrack_tcp.h, IP_CT_TCP_FLAG_*.
const (
	TCPWindowScale uint8 = 1 << iota
	TCPSackPerm
	TCPCloseInit
	TCPBeLiberal
	TCPUnacknowledged
	TCPMaxAckSet
	TCPChallengeAck
	TCPSimultaneous
)

// TCPSeen is what was seen of one side.
//
// Kernel: include/linux/netfilter/nf_conntrack_tcp.h, ip_ct_tcp_state.
type TCPSeen struct {
	End, MaxEnd, MaxWin, MaxAck uint32
	Scale, Flags                uint8
}

// TCP is the private part of a TCP connection. State also holds the state numbers
// of SCTP and DCCP.
//
// Kernel: include/linux/netfilter/nf_conntrack_tcp.h, ip_ct_tcp.
type TCP struct {
	Seen                      [2]TCPSeen
	LastSeq, LastAck, LastEnd uint32
	LastWin                   uint16
	LastScale, LastFlags      uint8
	State                     TCPState
	LastDir                   Dir
	LastIndex                 tcpIndex
	Retrans                   uint8
}

// tcp follows a TCP connection.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, nf_conntrack_tcp_packet.
func (v *visit) tcp() action {
	if len(v.l4) < 20 || v.tcpError() {
		return invalid
	}
	s := readSegment(v.l4)
	if !v.f.Is(Confirmed) && !v.tcpNew(&s) {
		return invalid
	}
	m := move{v: v, tcp: &v.f.TCP, s: &s, index: s.index(), old: v.f.TCP.State}
	m.next = tcpStates[v.dir][m.index][m.old]
	switch m.decide() {
	case stepAccept:
		return accept
	case stepInvalid:
		return invalid
	case stepRepeat:
		return repeat
	case stepDrop:
		return drop
	case stepWindow:
		switch m.inWindow() {
		case windowIgnore:
			return accept
		case windowInvalid:
			m.shrink()
			return invalid
		}
	}
	m.commit()
	return accept
}

// tcpError tells whether the segment is unsound by itself.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, tcp_error.
func (v *visit) tcpError() bool {
	n := int(v.l4[12]>>4) * 4
	return n < 20 || len(v.l4) < n || v.badChecksum(packet.TCP) || !validFlags(v.l4[13])
}

// tcpNew begins a connection with a SYN, or in its middle where that is allowed.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, tcp_new.
func (v *visit) tcpNew(s *segment) bool {
	next := tcpStates[Original][s.index()][TCPNone]
	if next >= tcpInvalid || next != TCPSynSent && !v.t.loose {
		return false
	}
	tcp := &v.f.TCP
	*tcp = TCP{LastIndex: segNone}
	mine := &tcp.Seen[Original]
	mine.End, mine.MaxEnd, mine.MaxWin = s.end, s.end, max(s.win, 1)
	if next == TCPSynSent {
		s.readOptions(mine)
		return true
	}
	mine.MaxEnd += mine.MaxWin
	// Scaling and SACK were agreed on before anybody looked.
	mine.Flags = TCPSackPerm | TCPBeLiberal
	tcp.Seen[Reply].Flags = mine.Flags
	return true
}

// move is a segment's step through the table of states.
type move struct {
	v         *visit
	tcp       *TCP
	s         *segment
	index     tcpIndex
	old, next TCPState
}

// step is what the present states say of a segment, before windows are looked at.
type step uint8

const (
	stepWindow step = iota // look at the windows
	stepCommit             // it fits whatever the windows are
	stepAccept             // let it pass, change nothing
	stepInvalid
	stepRepeat
	stepDrop
)

// decide treats the states that need more than the table.
func (m *move) decide() step {
	switch m.next {
	case TCPSynSent:
		if m.old < TCPTimeWait {
			return stepWindow
		}
		if m.reopens() {
			if m.v.t.Kill(m.v.w, m.v.id) {
				return stepRepeat
			}
			return stepDrop
		}
		return m.ignore()
	case tcpIgnore:
		return m.ignore()
	case tcpInvalid:
		return stepInvalid
	case TCPTimeWait:
		return m.timeWait()
	case TCPSynSent2:
		m.tcp.LastFlags |= TCPSimultaneous
	case TCPSynRecv:
		if m.v.dir == Reply && m.index == segAck && m.tcp.LastFlags&TCPSimultaneous != 0 {
			m.next = TCPEstablished
		}
	case TCPClose:
		if m.index == segRst {
			return m.reset()
		}
	}
	return stepWindow
}

// reopens tells whether a SYN may begin the connection anew.
func (m *move) reopens() bool {
	seen := &m.tcp.Seen
	return (seen[0].Flags|seen[1].Flags)&TCPCloseInit != 0 ||
		m.tcp.LastDir == m.v.dir && m.tcp.LastIndex == segRst
}

// ignore treats segments that may be right where we are out of step: they pass, and
// what they say is kept until the other side answers.
func (m *move) ignore() step {
	tcp, s, dir := m.tcp, m.s, m.v.dir
	if m.index == segSynAck && tcp.LastIndex == segSyn && tcp.LastDir != dir &&
		s.ack == tcp.LastEnd {
		m.resync()
		return stepWindow
	}
	tcp.LastIndex, tcp.LastDir = m.index, dir
	tcp.LastSeq, tcp.LastEnd, tcp.LastWin = s.seq, s.end, uint16(s.win)
	if m.index == segSyn && dir == Original {
		m.keepOptions()
	}
	if m.old == TCPSynSent && m.index == segAck && dir == Reply {
		tcp.LastAck = s.ack // it may challenge our SYN
	}
	return stepAccept
}

// resync takes over what an ignored SYN said, now that it is answered.
func (m *move) resync() {
	tcp := m.tcp
	m.old, m.next = TCPSynSent, TCPSynRecv
	tcp.LastFlags &^= TCPChallengeAck
	seen := &tcp.Seen[tcp.LastDir]
	seen.End, seen.MaxEnd = tcp.LastEnd, tcp.LastEnd
	seen.MaxWin = max(uint32(tcp.LastWin), 1)
	seen.Scale, seen.Flags = tcp.LastScale, tcp.LastFlags
	other := &tcp.Seen[m.v.dir]
	*other = TCPSeen{Flags: other.Flags & TCPBeLiberal}
}

// keepOptions notes the options of an ignored SYN.
func (m *move) keepOptions() {
	var seen TCPSeen
	m.s.readOptions(&seen)
	m.tcp.LastFlags = seen.Flags & (TCPWindowScale | TCPSackPerm)
	m.tcp.LastScale = 0
	if seen.Flags&TCPWindowScale != 0 {
		m.tcp.LastScale = seen.Scale
	}
	if m.old == TCPLastAck {
		m.tcp.LastFlags |= TCPChallengeAck
	}
}

// timeWait knows an ACK that challenges a SYN from the last of a connection.
func (m *move) timeWait() step {
	tcp := m.tcp
	if m.old == TCPLastAck && m.index == segAck && tcp.LastDir != m.v.dir &&
		tcp.LastIndex == segSyn && tcp.LastFlags&TCPChallengeAck != 0 {
		tcp.LastFlags &^= TCPChallengeAck
		return stepAccept
	}
	return stepWindow
}

// reset looks whether a RST is meant for this connection.
func (m *move) reset() step {
	tcp, f, dir, seq := m.tcp, m.v.f, m.v.dir, m.s.seq
	if tcp.State >= TCPFinWait && tcp.State <= TCPClose {
		return stepCommit // closing: what was noted may be of an older use
	}
	peer := &tcp.Seen[dir.Not()]
	if peer.Flags&TCPMaxAckSet != 0 && tcp.LastIndex != segSyn {
		established := f.tcpEstablished()
		if seq == 0 && !established {
			return stepWindow
		}
		if before(seq, peer.MaxAck) && !m.v.t.ignoreRST {
			return stepInvalid
		}
		if !established || seq == peer.MaxAck {
			return stepWindow
		}
		if tcp.LastIndex == segAck && tcp.LastDir == dir && seq == tcp.LastEnd {
			return stepWindow
		}
		m.next = m.old // it may be answered by a challenge ACK
	}
	if m.answersIgnored() {
		return stepCommit
	}
	if m.old == TCPSynSent && tcp.LastIndex == segAck && tcp.LastDir == Reply &&
		seq == tcp.LastAck {
		return stepCommit
	}
	return stepWindow
}

// answersIgnored tells whether a RST answers a segment that was let through though
// it did not fit.
func (m *move) answersIgnored() bool {
	tcp, f := m.tcp, m.v.f
	syn := f.Is(SeenReply) && tcp.LastIndex == segSyn && tcp.LastDir != m.v.dir
	ack := !f.Is(Assured) && tcp.LastIndex == segAck
	return (syn || ack) && m.s.ack == tcp.LastEnd
}

// tcpEstablished tells whether both sides agreed on the connection.
//
// Kernel: include/net/netfilter/nf_conntrack.h, nf_conntrack_tcp_established.
func (f *Flow) tcpEstablished() bool {
	return f.TCP.State == TCPEstablished && f.Is(Assured)
}

// commit moves to the next state and sets the timeout.
func (m *move) commit() {
	v, tcp := m.v, m.tcp
	tcp.LastIndex, tcp.LastDir = m.index, v.dir
	tcp.State = m.next
	if m.old != m.next && m.next == TCPFinWait {
		tcp.Seen[v.dir].Flags |= TCPCloseInit
	}
	d := v.t.tcp[m.timeout()]
	if v.f.Is(SeenReply) {
		if m.assures() {
			v.f.Status |= Assured
		}
		v.refresh(d)
		return
	}
	if m.s.has(rstFlag) {
		v.account()
		v.t.Kill(v.w, v.id)
		return
	}
	if m.index == segSyn && m.old == TCPSynSent {
		return // a repeated SYN must not keep the entry alive
	}
	if m.next == TCPEstablished {
		d = min(d, v.t.tcp[tcpUnack])
	}
	v.refresh(d)
}

// assures tells whether the segment shows that the connection works both ways.
func (m *move) assures() bool {
	return !m.v.f.Is(Assured) && (m.old == TCPSynRecv || m.old == TCPEstablished) &&
		m.next == TCPEstablished
}

// timeout names the timeout of the new state.
func (m *move) timeout() TCPState {
	t, tcp := &m.v.t.tcp, m.tcp
	longer := func(than TCPState) bool { return t[m.next] > t[than] }
	switch {
	case int(tcp.Retrans) >= m.v.t.maxRetrans && longer(tcpRetrans):
		return tcpRetrans
	case m.index == segRst:
		return TCPClose
	case (tcp.Seen[0].Flags|tcp.Seen[1].Flags)&TCPUnacknowledged != 0 && longer(tcpUnack):
		return tcpUnack
	case tcp.LastWin == 0 && longer(tcpRetrans):
		return tcpRetrans
	}
	return m.next
}
