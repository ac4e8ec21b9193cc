package conntrack

import (
	"testing"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// TestFTPForms: what is found in a line, from whom, and where.
func TestFTPForms(t *testing.T) {
	for _, c := range []struct {
		line  string
		dir   Dir
		found int
		addr  string
		port  uint16
		at    string // the part that holds the numbers
	}{
		{"PORT 10,0,0,1,4,1\r\n", Original, 1, "10.0.0.1", 1025, "10,0,0,1,4,1"},
		{"port 10,0,0,1,4,1\r\n", Original, 1, "10.0.0.1", 1025, "10,0,0,1,4,1"},
		{"PORT 10,0,0,1,4\r\n", Original, -1, "", 0, ""},
		{"PORT 10,0,0,1,4,1\n", Original, -1, "", 0, ""},
		{"PO", Original, -1, "", 0, ""},
		{"PORT", Original, -1, "", 0, ""},
		{"PORTAL\r\n", Original, -1, "", 0, ""},
		{"USER x\r\n", Original, 0, "", 0, ""},
		{"227 x 10,0,0,1,4,1\r\n", Original, 0, "", 0, ""},
		{"EPRT |1|10.0.0.1|1025|\r\n", Original, 1, "10.0.0.1", 1025, "|1|10.0.0.1|1025|"},
		{"EPRT |2|::1|1025|\r\n", Original, -1, "", 0, ""},
		{"EPRT |1|10.0.0.1|0|\r\n", Original, -1, "", 0, ""},
		{"EPRT 11110.0.0.11025\r\n", Original, -1, "", 0, ""},
		{"227 Passive (10,0,0,1,4,1).\r\n", Reply, 1, "10.0.0.1", 1025, "10,0,0,1,4,1"},
		{"227 =10,0,0,1,4,1 \r\n", Reply, 1, "10.0.0.1", 1025, "10,0,0,1,4,1"},
		{"227 none\r\n", Reply, -1, "", 0, ""},
		{"229 Extended (|||1025|)\r\n", Reply, 1, "", 1025, "|||1025|"},
		{"229 Extended (||1025|)\r\n", Reply, -1, "", 0, ""},
		{"229 Extended\r\n", Reply, -1, "", 0, ""},
		{"331 ok\r\n", Reply, 0, "", 0, ""},
	} {
		var got ftpCommand
		if found := got.find(c.dir, []byte(c.line)); found != c.found {
			t.Errorf("%q: got %d want %d", c.line, found, c.found)
			continue
		}
		if c.found < 1 {
			continue
		}
		if at := c.line[got.at.Off:][:got.at.Len]; got.addr.String() != c.addr || got.port != c.port ||
			at != c.at {
			t.Errorf("%q: got %v %d %q want %s %d %q", c.line, got.addr, got.port, at, c.addr, c.port, c.at)
		}
	}
}

func TestFTPLines(t *testing.T) {
	var l ftpLines
	for _, n := range []uint32{10, 20, 5, 30, 20} {
		l.add(Original, n)
	}
	for seq, want := range map[uint32]bool{5: false, 10: false, 20: true, 30: true} {
		if got := l.starts(Original, seq); got != want {
			t.Errorf("line at %d: got %v want %v", seq, got, want)
		}
	}
	if l.starts(Reply, 20) {
		t.Error("a line of the other side")
	}
}

// withData is a segment that carries a line.
func withData(tb testing.TB, ends string, seq, ack uint32, data string) *packet.Packet {
	tb.Helper()
	p := tcp(tb, ends, "PA", seq, ack)
	return ip(tb, ends, packet.TCP, append(append([]byte(nil), p.L4()...), data...)...)
}

// TestFTPExpects: a command opens the way for one connection, from its server to its
// client, and for nobody else.
func TestFTPExpects(t *testing.T) {
	h := newHost(t, Config{})
	tm := h.t.Template(Template{Helper: FTP})
	syn := tcp(t, there, "S", 100, 0)
	h.t.Attach(syn, tm)
	h.pass(t, syn)
	h.pass(t, tcp(t, back, "SA", 500, 101))
	h.pass(t, tcp(t, there, "A", 101, 501))
	h.pass(t, withData(t, there, 101, 501, "USER x\r\n"))
	h.pass(t, withData(t, there, 109, 501, "PORT 10,0,0,1,4,1\r\n"))
	if n := len(h.t.Expects(h.w)); n != 1 {
		t.Fatalf("got %d expectations want 1", n)
	}
	for _, c := range []struct {
		ends string
		want trace.CTState
	}{
		{"10.0.0.3 10.0.0.1 20 1025", trace.StateNew},
		{"10.0.0.2 10.0.0.1 20 1026", trace.StateNew},
		{"10.0.0.2 10.0.0.1 20 1025", trace.StateRelated},
		{"10.0.0.2 10.0.0.1 21 1025", trace.StateNew}, // it is used up
	} {
		if got := h.pass(t, tcp(t, c.ends, "S", 1, 0)); got != c.want {
			t.Errorf("%s: got %v want %v", c.ends, got, c.want)
		}
	}
	p := withData(t, there, 128, 501, "PORT 10,0")
	h.t.In(h.w, nil, p, trace.Output)
	if v := h.t.Confirm(h.w, nil, p); v != trace.DropIt {
		t.Errorf("a command that is cut off: got %v want DROP", v)
	}
}

// TestTFTPExpects: the answer to a request comes from a port of its own.
func TestTFTPExpects(t *testing.T) {
	h := newHost(t, Config{})
	tm := h.t.Template(Template{Helper: TFTP})
	ask := func(op byte) {
		b := []byte{3, 232, 0, 69, 0, 12, 0, 0, 0, op, 'f', 0}
		p := ip(t, "10.0.0.1 10.0.0.2", packet.UDP, b...)
		h.t.Attach(p, tm)
		h.pass(t, p)
	}
	ask(4)
	if n := len(h.t.Expects(h.w)); n != 0 {
		t.Errorf("an acknowledgement: got %d expectations", n)
	}
	ask(1)
	ask(2) // in the place of the first
	if n := len(h.t.Expects(h.w)); n != 1 {
		t.Errorf("got %d expectations want 1", n)
	}
	h.w.Now += (expectSeconds - 1) * world.Second
	p := udp(t, "10.0.0.2 10.0.0.1 3000 1000")
	p.CT = packet.CT{}
	if got := h.pass(t, p); got != trace.StateNew {
		t.Errorf("the master is over: got %v want NEW", got)
	}
	h.w.Now += 2 * world.Second
	if n := len(h.t.Expects(h.w)); n != 0 {
		t.Errorf("got %d expectations after their time", n)
	}
}

func TestLoadExpects(t *testing.T) {
	h := newHost(t, Config{})
	h.pass(t, udp(t, there))
	master := Tuple{packet.MustParseAddr("10.0.0.1"), packet.MustParseAddr("10.0.0.2"), 1000, 80, packet.UDP}
	e := Foreseen{Expect: Expect{Timeout: h.w.Now + world.Second, SrcMask: fullMask(),
		Tuple: Tuple{packet.MustParseAddr("10.0.0.2"), packet.MustParseAddr("10.0.0.1"), 0, 1000,
			packet.UDP}}, MasterTuple: master}
	if err := h.t.LoadExpects(h.w, e); err != nil {
		t.Fatal(err)
	}
	if got := h.pass(t, udp(t, "10.0.0.2 10.0.0.1 7 1000")); got != trace.StateRelated {
		t.Errorf("got %v want RELATED", got)
	}
	e.MasterTuple.SPort++
	if err := h.t.LoadExpects(h.w, e); err == nil {
		t.Error("an expectation without a master")
	}
}

func TestHelperNames(t *testing.T) {
	for h := FTP; h < helperMax; h++ {
		if got, ok := ParseHelper(h.String()); !ok || got != h {
			t.Errorf("%v: got %v", h, got)
		}
		if h.Supported() != (h == FTP || h == TFTP) {
			t.Errorf("%v: supported %v", h, h.Supported())
		}
	}
	if _, ok := ParseHelper(""); ok {
		t.Error("no name is a helper")
	}
}

// TestSeqAdjust: numbers behind a changed payload are shifted, and so are ACKs and
// selective ACKs on their way back.
func TestSeqAdjust(t *testing.T) {
	var f Flow
	f.ShiftSeq(Original, 1000, 5)
	for _, c := range []struct {
		info     packet.CTInfo
		seq, ack uint32
		wantSeq  uint32
		wantAck  uint32
	}{
		{packet.Established, 1000, 7, 1000, 7},
		{packet.Established, 1001, 7, 1006, 7},
		{packet.EstablishedReply, 7, 1000, 7, 1000},
		{packet.EstablishedReply, 7, 1010, 7, 1005},
	} {
		p := tcp(t, there, "A", c.seq, c.ack)
		p.CT.Info = c.info
		if !seqAdjust(p, &f) {
			t.Fatal("refused")
		}
		s := readSegment(p.L4())
		if s.seq != c.wantSeq || s.ack != c.wantAck {
			t.Errorf("%d/%d: got %d/%d want %d/%d", c.seq, c.ack, s.seq, s.ack, c.wantSeq, c.wantAck)
		}
	}
}
