package conntrack

import "github.com/hookpath/hookpath/world"

// window is what the windows say of a segment.
type window uint8

const (
	windowAccept window = iota
	windowIgnore
	windowInvalid
)

// maxAckWindow is how far an ACK may lie behind.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, MAXACKWINDOW.
func maxAckWindow(sender *TCPSeen) uint32 { return max(sender.MaxWin, 66000) }

// edges are the numbers of a segment as the sender's peer counts them.
type edges struct {
	sender, receiver         *TCPSeen
	seq, ack, sack, end, win uint32
}

// inWindow checks a segment against both windows and moves them.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, tcp_in_window.
func (m *move) inWindow() window {
	if m.v.t.noWindow {
		return windowAccept
	}
	e := m.edges()
	if done := m.begin(&e); done {
		return windowAccept
	}
	m.noAck(&e)
	if !before(e.seq, e.sender.MaxEnd+1) {
		return m.overshot(&e)
	}
	if !before(e.sack, e.receiver.End+1) {
		return m.liberal(&e, windowInvalid)
	}
	if e.receiver.MaxWin != 0 && !after(e.end, e.sender.End-e.receiver.MaxWin-1) {
		return m.liberal(&e, windowIgnore)
	}
	if !after(e.sack, e.receiver.End-maxAckWindow(e.sender)-1) {
		return m.liberal(&e, windowIgnore)
	}
	m.advance(&e)
	m.countRetrans(&e)
	return windowAccept
}

// edges reads the segment's numbers, with the shift that a helper caused undone.
func (m *move) edges() edges {
	f, dir := m.v.f, m.v.dir
	e := edges{sender: &m.tcp.Seen[dir], receiver: &m.tcp.Seen[dir.Not()],
		seq: m.s.seq, ack: m.s.ack, sack: m.s.ack, end: m.s.end, win: m.s.win}
	if e.receiver.Flags&TCPSackPerm != 0 {
		e.sack = m.s.sack(e.sack)
	}
	shift := uint32(f.SeqAdj[dir.Not()].offset(e.ack - 1))
	e.ack -= shift
	e.sack -= shift
	return e
}

// begin sets up a side's window from its first segment; done means that the
// segment is a SYN which cannot acknowledge anything.
func (m *move) begin(e *edges) (done bool) {
	syn, ack := m.s.has(synFlag), m.s.has(ackFlag)
	switch {
	case e.sender.MaxWin == 0 && syn:
		m.initSender(e)
		return !ack
	case e.sender.MaxWin == 0:
		e.pickUp()
	case syn && after(e.end, e.sender.End) &&
		(m.tcp.State == TCPSynSent || m.tcp.State == TCPSynRecv):
		m.initSender(e)
		return m.v.dir == Reply && !ack
	}
	return false
}

// initSender begins a side's window with a SYN.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, tcp_init_sender.
func (m *move) initSender(e *edges) {
	s, r := e.sender, e.receiver
	s.End, s.MaxEnd, s.MaxWin = e.end, e.end, max(e.win, 1)
	m.s.readOptions(s)
	if m.v.dir == Reply && s.Flags&r.Flags&TCPWindowScale == 0 {
		s.Scale, r.Scale = 0, 0 // both must offer it
	}
}

// pickUp begins a side's window in the middle of a connection.
func (e *edges) pickUp() {
	s, r := e.sender, e.receiver
	s.End = e.end
	s.MaxWin = max(e.win<<s.Scale, 1)
	s.MaxEnd = e.end + s.MaxWin
	switch {
	case r.MaxWin == 0:
		r.End, r.MaxEnd = e.sack, e.sack
	case e.sack == r.End+1:
		r.End++ // likely the answer to a keepalive
	}
}

// noAck puts in the place of a missing ACK one that is all right.
func (m *move) noAck(e *edges) {
	if !m.s.has(ackFlag) || m.s.has(rstFlag) && e.ack == 0 {
		e.ack, e.sack = e.receiver.End, e.receiver.End
	}
	if m.s.has(rstFlag) && e.seq == 0 && m.tcp.State == TCPSynSent {
		e.seq, e.end = e.sender.End, e.sender.End
	}
}

// overshot treats a segment that begins behind the window. Where only the window is
// at fault the data is noted, so that its ACK does not look wrong later.
func (m *move) overshot(e *edges) window {
	over := e.end - e.sender.MaxEnd + 1
	ackOK := after(e.sack, e.receiver.End-maxAckWindow(e.sender)-1)
	inRecv := e.receiver.MaxWin != 0 && after(e.end, e.sender.End-e.receiver.MaxWin-1)
	if inRecv && ackOK && over <= e.receiver.MaxWin && before(e.sack, e.receiver.End+1) {
		e.sender.End = e.end
		e.sender.Flags |= TCPUnacknowledged
		return m.liberal(e, windowIgnore)
	}
	return m.liberal(e, windowInvalid)
}

// liberal returns w, or acceptance where the sender is not taken at its word.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, nf_tcp_store_invalid.
func (m *move) liberal(e *edges, w window) window {
	if e.sender.Flags&TCPBeLiberal != 0 || m.v.t.liberal {
		return windowAccept
	}
	return w
}

// advance moves both sides' windows.
func (m *move) advance(e *edges) {
	s, r, win := e.sender, e.receiver, e.win
	if !m.s.has(synFlag) {
		win <<= s.Scale
	}
	s.MaxWin = max(s.MaxWin, win+(e.sack-e.ack))
	if after(e.end, s.End) {
		s.End = e.end
		s.Flags |= TCPUnacknowledged
	}
	if m.s.has(ackFlag) && (s.Flags&TCPMaxAckSet == 0 || after(e.ack, s.MaxAck)) {
		s.MaxAck = e.ack
		s.Flags |= TCPMaxAckSet
	}
	if r.MaxWin != 0 && after(e.end, s.MaxEnd) {
		r.MaxWin += e.end - s.MaxEnd
	}
	if after(e.sack+win, r.MaxEnd-1) {
		r.MaxEnd = e.sack + win
		if win == 0 {
			r.MaxEnd++
		}
	}
	if e.ack == r.End {
		r.Flags &^= TCPUnacknowledged
	}
}

// countRetrans counts segments that repeat the last one.
func (m *move) countRetrans(e *edges) {
	t := m.tcp
	if m.index != segAck {
		return
	}
	if t.LastDir == m.v.dir && t.LastSeq == e.seq && t.LastAck == e.ack &&
		t.LastEnd == e.end && uint32(t.LastWin) == m.s.win {
		t.Retrans++
		return
	}
	t.LastDir, t.LastSeq, t.LastAck = m.v.dir, e.seq, e.ack
	t.LastEnd, t.LastWin, t.Retrans = e.end, uint16(m.s.win), 0
}

// shrink shortens the life of a connection that both sides seem to have closed by
// segments which did not fit.
//
// Kernel: net/netfilter/nf_conntrack_proto_tcp.c, nf_tcp_handle_invalid.
func (m *move) shrink() {
	f, tcp := m.v.f, m.tcp
	if !f.Is(Assured) || f.Is(FixedTimeout) || m.index != segRst && m.index != segFin {
		return
	}
	if tcp.LastDir == m.v.dir || tcp.LastIndex != segFin && tcp.LastIndex != segRst {
		tcp.LastIndex, tcp.LastDir = m.index, m.v.dir
		return
	}
	left := f.Timeout - m.v.w.Now
	if unack := m.v.t.tcp[tcpUnack]; left >= 120*world.Second && left > unack {
		f.Timeout = m.v.w.Now + unack
	}
}

// offset is the shift of a sequence number.
//
// Kernel: net/netfilter/nf_conntrack_seqadj.c, nf_ct_seq_offset.
func (a *SeqAdj) offset(seq uint32) int32 {
	if after(seq, a.Pos) {
		return a.After
	}
	return a.Before
}
