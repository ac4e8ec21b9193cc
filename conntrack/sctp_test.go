package conntrack

import (
	"encoding/binary"
	"testing"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// sctp builds a packet with chunks that all have the initiation tag.
func sctp(tb testing.TB, ends string, vtag, tag uint32, types ...byte) *packet.Packet {
	tb.Helper()
	p := udp(tb, ends)
	b := append([]byte(nil), p.L4()[:4]...)
	b = binary.BigEndian.AppendUint32(b, vtag)
	b = append(b, 0, 0, 0, 0)
	for _, t := range types {
		c := make([]byte, 20)
		c[0], c[3] = t, 20
		binary.BigEndian.PutUint32(c[4:], tag)
		b = append(b, c...)
	}
	binary.LittleEndian.PutUint32(b[8:], SCTPChecksum(b))
	return ip(tb, ends, packet.SCTP, b...)
}

// TestSCTP walks associations through their states.
func TestSCTP(t *testing.T) {
	type step struct {
		ends      string
		vtag, tag uint32
		types     []byte
		want      trace.CTState
		state     string
	}
	open := []step{
		{there, 0, 7, []byte{chunkInit}, trace.StateNew, "CLOSED"},
		{back, 7, 9, []byte{chunkInitAck}, trace.StateEstablished, "COOKIE_WAIT"},
		{there, 9, 0, []byte{chunkCookieEcho}, trace.StateEstablished, "COOKIE_ECHOED"},
		{back, 7, 0, []byte{chunkCookieAck}, trace.StateEstablished, "ESTABLISHED"},
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"close", append(open[:4:4],
			step{there, 9, 0, []byte{chunkData}, trace.StateEstablished, "ESTABLISHED"},
			step{there, 9, 0, []byte{chunkShutdown}, trace.StateEstablished, "SHUTDOWN_SENT"},
			step{back, 7, 0, []byte{chunkShutdownAck}, trace.StateEstablished, "SHUTDOWN_ACK_SENT"},
			step{there, 9, 0, []byte{chunkShutdownEnd}, trace.StateEstablished, "CLOSED"})},
		{"wrong tag", append(open[:4:4],
			step{there, 8, 0, []byte{chunkData}, trace.StateInvalid, "ESTABLISHED"})},
		{"abort", append(open[:4:4],
			step{back, 7, 0, []byte{chunkAbort}, trace.StateEstablished, "CLOSED"})},
		{"init with a tag", []step{{there, 5, 7, []byte{chunkInit}, trace.StateInvalid, ""}}},
		{"init with more", []step{{there, 0, 7, []byte{chunkInit, chunkData}, trace.StateInvalid, ""}}},
		{"abort of nothing", []step{{there, 5, 0, []byte{chunkAbort}, trace.StateInvalid, ""}}},
		{"no chunk", []step{{there, 5, 0, nil, trace.StateInvalid, ""}}},
		{"heartbeats", []step{{there, 5, 0, []byte{chunkHeartbeat}, trace.StateNew, "HEARTBEAT_SENT"},
			{back, 6, 0, []byte{chunkHeartbeatOK}, trace.StateEstablished, "ESTABLISHED"}}},
	} {
		h := newHost(t, Config{})
		for i, s := range c.steps {
			got := h.pass(t, sctp(t, s.ends, s.vtag, s.tag, s.types...))
			state := ""
			for f := range h.t.All(h.w) {
				state = f.stateName()
			}
			if got != s.want || state != s.state {
				t.Errorf("%s, packet %d: got %v %q want %v %q", c.name, i+1, got, state, s.want, s.state)
			}
		}
	}
}

func TestSCTPChecksum(t *testing.T) {
	p := sctp(t, there, 0, 7, chunkInit)
	h := newHost(t, Config{})
	h.t.In(h.w, nil, p, trace.Prerouting)
	if got := h.t.State(h.w, p); got != trace.StateNew {
		t.Errorf("right: got %v", got)
	}
	p = sctp(t, there, 0, 7, chunkInit)
	p.L4()[9] ^= 1
	h.t.In(h.w, nil, p, trace.Prerouting)
	if got := h.t.State(h.w, p); got != trace.StateInvalid {
		t.Errorf("wrong: got %v", got)
	}
}

// dccp builds a packet with 48-bit sequence numbers.
func dccp(tb testing.TB, ends string, typ byte, seq, ack byte) *packet.Packet {
	tb.Helper()
	p := udp(tb, ends)
	b := append([]byte(nil), p.L4()[:4]...)
	b = append(b, 7, 0, 0, 0, typ<<1|1, 0, 0, 0, 0, 0, 0, seq, 0, 0, 0, 0, 0, 0, 0, ack, 0, 0, 0, 0)
	return ip(tb, ends, packet.DCCP, b...)
}

// TestDCCP: a state of its own in old kernels, a protocol like any other in new ones.
func TestDCCP(t *testing.T) {
	h := newHost(t, Config{Kernel: 6<<16 | 1<<8})
	for i, s := range []struct {
		p     *packet.Packet
		want  trace.CTState
		state string
	}{
		{dccp(t, there, 0, 1, 0), trace.StateNew, "REQUEST"},
		{dccp(t, back, 1, 4, 1), trace.StateEstablished, "RESPOND"},
		{dccp(t, there, 3, 2, 4), trace.StateEstablished, "PARTOPEN"},
		{dccp(t, back, 3, 5, 2), trace.StateEstablished, "OPEN"},
		{dccp(t, there, 5, 3, 5), trace.StateInvalid, "OPEN"}, // only servers ask to close
		{dccp(t, back, 5, 6, 3), trace.StateEstablished, "CLOSEREQ"},
		{dccp(t, there, 6, 3, 6), trace.StateEstablished, "CLOSING"},
		{dccp(t, back, 7, 7, 3), trace.StateEstablished, "TIMEWAIT"},
	} {
		got := h.pass(t, s.p)
		state := ""
		for f := range h.t.All(h.w) {
			state = f.stateName()
		}
		if got != s.want || state != s.state {
			t.Errorf("packet %d: got %v %q want %v %q", i+1, got, state, s.want, s.state)
		}
	}
	h = newHost(t, Config{})
	p := dccp(t, there, 0, 1, 0)
	h.pass(t, p)
	if f := h.t.Get(h.w, p.CT.Flow); f.Tuples[0].DPort != 0 || f.Expires(h.w.Now) != 600 {
		t.Errorf("got %+v, %d s", f.Tuples[0], f.Expires(h.w.Now))
	}
}
