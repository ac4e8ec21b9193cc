package snapshot

import (
	"strings"
	"testing"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// conntrackLines are lines of real tools, with what they are printed back as.
var conntrackLines = []struct{ name, line, want string }{
	{"extended, id", "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.9 dst=10.0.0.1 sport=1000 " +
		"dport=80 src=10.1.0.9 dst=10.0.0.7 sport=8080 dport=600 [ASSURED] mark=7 zone=5 use=2 " +
		"id=77", ""},
	{"plain", "udp      17 29 src=127.0.0.1 dst=127.0.0.1 sport=35277 dport=10 zone-orig=6 " +
		"[UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=10 dport=35277 mark=0 use=1",
		"ipv4     2 udp      17 29 src=127.0.0.1 dst=127.0.0.1 sport=35277 dport=10 zone-orig=6 " +
			"[UNREPLIED] src=127.0.0.1 dst=127.0.0.1 sport=10 dport=35277 mark=0 use=1"},
	{"/proc", "ipv4     2 gre      47 29 timeout=30, stream_timeout=180 src=127.0.0.1 dst=127.0.0.1 " +
		"srckey=0x0 dstkey=0x2 [UNREPLIED] src=127.0.0.1 dst=127.0.0.1 srckey=0x2 dstkey=0x0 " +
		"mark=4660 zone=0 use=2",
		"ipv4     2 gre      47 29 src=127.0.0.1 dst=127.0.0.1 srckey=0x0 dstkey=0x2 [UNREPLIED] " +
			"src=127.0.0.1 dst=127.0.0.1 srckey=0x2 dstkey=0x0 mark=4660 use=1"},
	{"icmp id and flow id", "ipv4     2 icmp     1 29 src=1.0.0.1 dst=1.0.0.2 type=8 code=0 id=9 " +
		"[UNREPLIED] src=1.0.0.2 dst=1.0.0.1 type=0 code=0 id=9 mark=0 use=1 id=1889451715", ""},
	{"no ports", "ipv4     2 unknown  99 599 src=1.0.0.1 dst=1.0.0.2 [UNREPLIED] src=1.0.0.2 " +
		"dst=1.0.0.1 mark=0 use=1", ""},
	{"zone of the reply", "ipv4     2 udp      17 29 src=1.0.0.1 dst=1.0.0.2 sport=1 dport=2 " +
		"src=1.0.0.2 dst=1.0.0.1 sport=2 dport=1 zone-reply=7 mark=0 use=1", ""},
	{"helper", "ipv4     2 udp      17 29 src=1.0.0.1 dst=1.0.0.2 sport=1 dport=69 [UNREPLIED] " +
		"src=1.0.0.2 dst=1.0.0.1 sport=69 dport=1 mark=0 helper=tftp use=1", ""},
	{"sctp", "ipv4     2 sctp     132 9 CLOSED src=1.0.0.1 dst=1.0.0.2 sport=1 dport=2 [UNREPLIED] " +
		"src=1.0.0.2 dst=1.0.0.1 sport=2 dport=1 mark=0 use=1 id=599570922", ""},
	{"ipv6", "ipv6     10 tcp      6 9 CLOSE src=2001:db8::1 dst=2001:db8::2 sport=1 dport=2 " +
		"src=2001:db8::2 dst=2001:db8::1 sport=2 dport=1 [ASSURED] mark=0 use=1", ""},
}

func TestParseConntrack(t *testing.T) {
	const now = 1000 * world.Second
	o := conntrack.Format{Extended: true, Expiry: true, ID: true}
	for _, c := range conntrackLines {
		flows, err := parseConntrack("conntrack", []byte("\n"+c.line+"\n"), now)
		if err != nil || len(flows) != 1 {
			t.Errorf("%s: %d flows, %v", c.name, len(flows), err)
			continue
		}
		flows[0].Status |= conntrack.Confirmed
		want := c.want
		if want == "" {
			want = strings.Replace(c.line, "use=2", "use=1", 1)
		}
		if got := string(flows[0].Append(nil, now, o)); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, got, want)
		}
	}
}

func TestParseConntrackCounters(t *testing.T) {
	line := "udp 17 3 src=1.0.0.1 dst=1.0.0.2 sport=1 dport=2 packets=3 bytes=90 [UNREPLIED] " +
		"src=1.0.0.2 dst=1.0.0.1 sport=2 dport=1 packets=0 bytes=0 mark=0x10 use=1\n" +
		"conntrack v1.4.7 (conntrack-tools): 1 flow entries have been shown.\n"
	flows, err := parseConntrack("conntrack", []byte(line), 0)
	if err != nil || len(flows) != 1 {
		t.Fatal(flows, err)
	}
	f := flows[0]
	if f.Packets != [2]uint64{3, 0} || f.Bytes != [2]uint64{90, 0} || f.Mark != 16 {
		t.Errorf("got packets %v bytes %v mark %d", f.Packets, f.Bytes, f.Mark)
	}
}

func TestParseConntrackErrors(t *testing.T) {
	const good = "udp 17 3 src=1.0.0.1 dst=1.0.0.2 sport=1 dport=2 "
	for _, c := range []struct{ line, want string }{
		{"udp", `"udp" is followed by ""`},
		{"udp 17 3 NONE src=1.0.0.1", `"NONE" is no state`},
		{"tcp 6 3 OPEN src=1.0.0.1", `"OPEN" is no state`},
		{good, "only 1 found"},
		{good + good[9:] + "src=1.0.0.1", "a third"},
		{good + "src=1.0.0.2 dst=1.0.0.x", `"1.0.0.x" is no address`},
		{good + "src=1.0.0.2 dst=::1", "IPv4 and IPv6"},
		{good + "src=1.0.0.2 dst=1.0.0.1 sport=99999", "16 bits"},
		{good + "src=1.0.0.2 dst=1.0.0.1 colour=red", "colour="},
		{good + "src=1.0.0.2 dst=1.0.0.1 [OFFLOAD]", "flowtable"},
		{good + "src=1.0.0.2 dst=1.0.0.1 helper=mine", "helper=mine"},
		{good + "src=1.0.0.2 dst=1.0.0.1 [WHAT]", "[WHAT]"},
		{"icmp 1 3 src=1.0.0.1 dst=1.0.0.2 type=3 code=0 id=1 src=1.0.0.2 dst=1.0.0.1 type=3", "type 3"},
	} {
		_, err := parseConntrack("web/conntrack", []byte("\n"+c.line), 0)
		if err == nil || !strings.Contains(err.Error(), c.want) ||
			!strings.HasPrefix(err.Error(), "web/conntrack:2: ") {
			t.Errorf("%s:\ngot  %v\nwant %s", c.line, err, c.want)
		}
	}
}

func TestParseExpect(t *testing.T) {
	const text = "299 proto=17 src=10.0.0.2 dst=10.0.0.1 sport=0 dport=35277 " +
		"mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535 " +
		"master-src=10.0.0.1 master-dst=10.0.0.2 sport=35277 dport=69 class=0 helper=tftp\n" +
		"conntrack v1.4.7 (conntrack-tools): 1 expectations have been shown.\n"
	got, err := parseExpect("conntrack-expect", []byte(text), 0)
	if err != nil || len(got) != 1 {
		t.Fatal(got, err)
	}
	e := got[0]
	if e.Tuple.DPort != 35277 || e.SPortMask != 0 || e.MasterTuple.DPort != 69 ||
		e.MasterTuple.Proto != packet.UDP || e.Timeout != 299*world.Second {
		t.Errorf("got %+v", e)
	}
	for _, bad := range []string{"x proto=17", "3 proto=17", "3 colour=red", "3 WHAT"} {
		if _, err := parseExpect("f", []byte(bad), 0); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
}

func FuzzParseConntrack(f *testing.F) {
	for _, c := range conntrackLines {
		f.Add([]byte(c.line))
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		flows, _ := parseConntrack("f", data, 0)
		for i := range flows {
			flows[i].Append(nil, 0, conntrack.Format{Extended: true, ID: true})
		}
		_, _ = parseExpect("f", data, 0)
	})
}
