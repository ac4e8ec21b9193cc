package ipset_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

const testNow = world.Instant(1735732800) * world.Second

// read makes sets of the text of `ipset save`; the error names the line.
func read(text string) ([]ipset.Set, error) {
	var rd ipset.Reader
	var sets []*ipset.Set
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		words, err := ipset.Words(line, nil)
		if err == nil && words[0] == "create" {
			var s *ipset.Set
			if s, err = rd.Create(words[1:]); err == nil {
				sets = append(sets, s)
			}
		} else if err == nil {
			i := slices.IndexFunc(sets, func(s *ipset.Set) bool { return s.Name == words[1] })
			e, exist, bad := rd.Entry(sets[i], words[2:])
			if err = bad; err == nil {
				err = sets[i].Add(&e, exist, testNow)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", line, err)
		}
	}
	out := make([]ipset.Set, len(sets))
	for i := range sets {
		out[i] = *sets[i]
	}
	return out, nil
}

// host is sets in a world.
type host struct {
	t     testing.TB
	sets  *ipset.Sets
	links *link.Table
	w     *world.World
}

func newHost(t testing.TB, text string) *host {
	t.Helper()
	h := &host{t: t}
	sets, err := read(text)
	if err != nil {
		t.Fatal(err)
	}
	var schema world.Schema
	if h.sets, err = ipset.New(&schema, sets); err != nil {
		t.Fatal(err)
	}
	up := link.Up | link.LowerUp
	h.links, err = link.New(link.Config{Links: []link.Link{
		{Index: 1, Name: "lo", Flags: up | link.LoopbackFlag, MTU: 65536},
		{Index: 2, Name: "eth0", Flags: up, MTU: 1500}, {Index: 3, Name: "eth1", Flags: up, MTU: 1500}}})
	if err != nil {
		t.Fatal(err)
	}
	h.w = &world.World{State: schema.NewState(), Now: testNow, Dice: &world.Dice{}, HZ: 250}
	return h
}

// parse reads the one-line form "udp A:P > B:P", where sctp, icmp and so on go as well;
// of icmp the second port is type and code. It came in by eth0.
func parse(t testing.TB, s string) *packet.Packet {
	t.Helper()
	var proto, src, dst string
	var sport, dport uint16
	s = strings.NewReplacer(":", " ", " > ", " ").Replace(s)
	if _, err := fmt.Sscanf(s, "%s %s %d %s %d", &proto, &src, &sport, &dst, &dport); err != nil {
		t.Fatalf("%q: %v", s, err)
	}
	number := map[string]uint8{"tcp": 6, "udp": 17, "icmp": 1, "sctp": 132, "gre": 47}[proto]
	ip := make([]byte, 40)
	ip[0], ip[3], ip[8], ip[9], ip[32] = 0x45, 40, 64, number, 0x50
	a, b := packet.MustParseAddr(src), packet.MustParseAddr(dst)
	copy(ip[12:], a.Bytes())
	copy(ip[16:], b.Bytes())
	copy(ip[20:], []byte{byte(sport >> 8), byte(sport), byte(dport >> 8), byte(dport)})
	if number == packet.ICMP {
		ip[20], ip[21] = byte(dport>>8), byte(dport)
	}
	p, ok := packet.FromFrame(append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x09\x08\x00"), ip...))
	if !ok {
		t.Fatal("no packet")
	}
	p.In = 2
	return p
}

// query reads "SET src,dst [flags]".
func (h *host) query(s string) ipset.Query {
	h.t.Helper()
	w := strings.Fields(s)
	i, ok := h.sets.ByName(w[0])
	if !ok {
		h.t.Fatalf("no set %q", w[0])
	}
	q := ipset.Query{Set: i, Timeout: ipset.NoTimeout}
	for dir := range strings.SplitSeq(w[1], ",") {
		if dir == "src" {
			q.Src |= 1 << q.Dims
		}
		q.Dims++
	}
	for _, f := range w[2:] {
		q.Flags |= map[string]ipset.Flags{"exist": ipset.Exist, "nomatch": ipset.ReturnNoMatch,
			"quiet": ipset.SkipCounters, "subquiet": ipset.SkipSubcounters}[f]
	}
	return q
}

func (h *host) place() *ipset.Place { return &ipset.Place{Links: h.links, Dev: 2} }

func (h *host) test(q, pkt string) bool {
	h.t.Helper()
	query := h.query(q)
	in, _ := h.sets.Test(h.w, parse(h.t, pkt), &query, h.place())
	return in
}

func (h *host) add(q, pkt string) bool {
	h.t.Helper()
	query := h.query(q)
	return h.sets.Add(h.w, parse(h.t, pkt), &query, h.place())
}

func (h *host) del(q, pkt string) bool {
	h.t.Helper()
	query := h.query(q)
	return h.sets.Del(h.w, parse(h.t, pkt), &query, h.place())
}

// content prints a set's entries, sorted.
func (h *host) content(name string) string {
	i, _ := h.sets.ByName(name)
	var out []string
	h.sets.Entries(h.w, i, func(e *ipset.Entry) bool {
		out = append(out, string(h.sets.Set(i).AppendEntry(nil, e)))
		return true
	})
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// testCase is a set with packets that are in it and that are not.
type testCase struct{ typ, set, dirs, in, out string }

var testCases = []testCase{
	{"bitmap:ip", "create s bitmap:ip range 10.0.0.0/24\nadd s 10.0.0.9", "src",
		"tcp 10.0.0.9:1 > 10.0.0.1:2", "tcp 10.0.0.1:1 > 10.0.0.9:2; tcp 11.0.0.9:1 > 10.0.0.1:2"},
	{"bitmap:ip", "create s bitmap:ip range 10.0.0.0/16 netmask 24\nadd s 10.0.5.7", "src",
		"tcp 10.0.5.0:1 > 1.1.1.1:2; tcp 10.0.5.255:1 > 1.1.1.1:2", "tcp 10.0.4.255:1 > 1.1.1.1:2"},
	{"bitmap:ip,mac", "create s bitmap:ip,mac range 10.0.0.0/24\nadd s 10.0.0.9,02:00:00:00:00:09\n" +
		"add s 10.0.0.8\nadd s 10.0.0.7,02:00:00:00:00:07", "src,src",
		"tcp 10.0.0.9:1 > 1.1.1.1:2; tcp 10.0.0.8:1 > 1.1.1.1:2", "tcp 10.0.0.7:1 > 1.1.1.1:2"},
	{"bitmap:port", "create s bitmap:port range 0-1024\nadd s 80", "dst",
		"tcp 1.1.1.1:1 > 1.1.1.1:80; udp 1.1.1.1:1 > 1.1.1.1:80",
		"sctp 1.1.1.1:1 > 1.1.1.1:80; tcp 1.1.1.1:80 > 1.1.1.1:81; tcp 1.1.1.1:1 > 1.1.1.1:2000"},
	{"hash:ip", "create s hash:ip netmask 24\nadd s 10.0.0.0", "src",
		"tcp 10.0.0.77:1 > 1.1.1.1:2", "tcp 10.0.1.77:1 > 1.1.1.1:2; tcp 0.0.0.5:1 > 1.1.1.1:2"},
	{"hash:ip", "create s hash:ip bitmask 255.0.0.255\nadd s 10.0.0.5", "src",
		"tcp 10.77.0.5:1 > 1.1.1.1:2", "tcp 10.77.0.6:1 > 1.1.1.1:2"},
	{"hash:ip,mac", "create s hash:ip,mac\nadd s 10.0.0.9,02:00:00:00:00:09", "src,src",
		"tcp 10.0.0.9:1 > 1.1.1.1:2", "tcp 10.0.0.8:1 > 1.1.1.1:2"},
	{"hash:ip,mark", "create s hash:ip,mark markmask 0xf0\nadd s 10.0.0.9,0x5", "src,src",
		"tcp 10.0.0.9:1 > 1.1.1.1:2", "tcp 10.0.0.8:1 > 1.1.1.1:2"},
	{"hash:ip,port", "create s hash:ip,port\nadd s 10.0.0.1,80\nadd s 10.0.0.1,icmp:ping\nadd s 10.0.0.1,47:0",
		"dst,dst", "tcp 1.1.1.1:1 > 10.0.0.1:80; icmp 1.1.1.1:0 > 10.0.0.1:2048; gre 1.1.1.1:7 > 10.0.0.1:8",
		"udp 1.1.1.1:1 > 10.0.0.1:80; tcp 1.1.1.1:80 > 10.0.0.1:1; icmp 1.1.1.1:0 > 10.0.0.1:2049"},
	{"hash:ip,port,ip", "create s hash:ip,port,ip\nadd s 10.0.0.1,udp:53,10.0.0.2", "dst,dst,src",
		"udp 10.0.0.2:9 > 10.0.0.1:53", "udp 10.0.0.1:9 > 10.0.0.2:53; udp 10.0.0.3:9 > 10.0.0.1:53"},
	{"hash:ip,port,net", "create s hash:ip,port,net\nadd s 10.0.0.1,udp:53,10.1.0.0/16\n" +
		"add s 10.0.0.1,udp:53,10.1.2.0/24 nomatch", "dst,dst,src",
		"udp 10.1.9.9:9 > 10.0.0.1:53", "udp 10.1.2.9:9 > 10.0.0.1:53; udp 10.2.0.1:9 > 10.0.0.1:53"},
	{"hash:mac", "create s hash:mac\nadd s 02:00:00:00:00:09", "src",
		"tcp 10.0.0.9:1 > 1.1.1.1:2", ""},
	{"hash:mac", "create s hash:mac\nadd s 02:00:00:00:00:09", "dst", "", "tcp 10.0.0.9:1 > 1.1.1.1:2"},
	{"hash:net", "create s hash:net\nadd s 10.0.0.0/8\nadd s 10.1.0.0/16 nomatch\nadd s 10.1.2.0/24",
		"src", "tcp 10.0.0.1:1 > 1.1.1.1:2; tcp 10.1.2.3:1 > 1.1.1.1:2",
		"tcp 10.1.3.3:1 > 1.1.1.1:2; tcp 11.1.3.3:1 > 1.1.1.1:2"},
	{"hash:net,iface", "create s hash:net,iface\nadd s 10.0.0.0/8,eth0\nadd s 11.0.0.0/8,eth wildcard\n" +
		"add s 0.0.0.0/0,lo\nadd s 12.0.0.0/8,physdev:eth0", "src,src",
		"tcp 10.0.0.1:1 > 1.1.1.1:2; tcp 11.1.2.3:1 > 1.1.1.1:2",
		"tcp 9.1.3.3:1 > 1.1.1.1:2; tcp 12.1.3.3:1 > 1.1.1.1:2"},
	// A network that is there with another interface hides the wider one.
	{"hash:net,iface", "create s hash:net,iface\nadd s 10.0.0.0/8,eth0\nadd s 10.1.0.0/16,eth1", "src,src",
		"tcp 10.0.0.1:1 > 1.1.1.1:2", "tcp 10.1.0.1:1 > 1.1.1.1:2"},
	{"hash:net,net", "create s hash:net,net\nadd s 10.0.0.0/8,11.0.0.0/8\nadd s 10.0.0.0/24,11.0.0.0/16 nomatch",
		"src,dst", "tcp 10.0.1.1:1 > 11.0.0.1:2; tcp 10.0.0.1:1 > 11.1.0.1:2",
		"tcp 10.0.0.1:1 > 11.0.0.1:2; tcp 11.0.0.1:1 > 10.0.0.1:2"},
	{"hash:net,port", "create s hash:net,port\nadd s 10.0.0.0/8,80\nadd s 10.1.0.0/16,80 nomatch", "dst,dst",
		"tcp 1.1.1.1:1 > 10.0.0.1:80", "tcp 1.1.1.1:1 > 10.1.0.1:80; tcp 1.1.1.1:1 > 10.0.0.1:81"},
	{"hash:net,port,net", "create s hash:net,port,net\nadd s 10.0.0.0/8,80,0.0.0.0/0", "dst,dst,src",
		"tcp 1.1.1.1:1 > 10.0.0.1:80", "tcp 1.1.1.1:1 > 11.0.0.1:80; udp 1.1.1.1:1 > 10.0.0.1:80"},
	{"list:set", "create a hash:ip\nadd a 10.0.0.1\ncreate b bitmap:port range 0-99\nadd b 80\n" +
		"create s list:set\nadd s a\nadd s b before a", "dst",
		"tcp 1.1.1.1:1 > 10.0.0.1:81; tcp 1.1.1.1:1 > 10.0.0.2:80", "tcp 1.1.1.1:1 > 10.0.0.2:81"},
}

func TestTest(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range testCases {
		seen[c.typ] = true
		h := newHost(t, c.set)
		for i, list := range []string{c.in, c.out} {
			for pkt := range strings.SplitSeq(list, "; ") {
				if pkt == "" {
					continue
				}
				if got, want := h.test("s "+c.dirs, pkt), i == 0; got != want {
					t.Errorf("%s: %s: %v, want %v", c.set, pkt, got, want)
				}
			}
		}
	}
	for _, typ := range ipset.Types() {
		if !seen[typ] {
			t.Errorf("%s has no case", typ)
		}
	}
}

// TestDimensions asks with too few words, and with another family.
func TestDimensions(t *testing.T) {
	h := newHost(t, "create s hash:ip,port\nadd s 10.0.0.1,80\ncreate six hash:ip family inet6\nadd six fe80::1")
	const pkt = "tcp 1.1.1.1:1 > 10.0.0.1:80"
	for q, want := range map[string]bool{"s dst": false, "s dst,dst": true, "s dst,dst,src": true,
		"six dst": false} {
		if got := h.test(q, pkt); got != want {
			t.Errorf("%s: %v", q, got)
		}
	}
	if h.add("s dst", pkt) || h.add("six dst", pkt) {
		t.Error("added")
	}
}

// refusals are lines that the kernel, or ipset, does not take, with a word of why.
var refusals = []struct{ text, why string }{
	{"create s hash:ip\nadd s 0.0.0.0", "address zero"},
	{"create s hash:ip,port\nadd s 0.0.0.0,80", "address zero"},
	{"create s hash:net\nadd s 1.1.1.1/0", "prefix length 0"},
	{"create s hash:net\nadd s 0.0.0.0-255.255.255.255", "whole of IPv4"},
	{"create s hash:net\nadd s 1.1.1.1/33", "prefix length 33"},
	{"create s hash:ip\nadd s 1.1.1.1\nadd s 1.1.1.1", "already added"},
	{"create s hash:ip maxelem 1\nadd s 1.1.1.1\nadd s 1.1.1.2", "full"},
	{"create s hash:ip\nadd s 1.1.1.1 timeout 5", "without timeout"},
	{"create s hash:ip\nadd s 1.1.1.1 packets 5", "without counter"},
	{"create s hash:ip\nadd s 1.1.1.1 comment \"x\"", "without comment"},
	{"create s hash:ip\nadd s 1.1.1.1 skbmark 5", "without skbinfo"},
	{"create s hash:ip\nadd s 1.1.1.1 nomatch", "no nomatch"},
	{"create s hash:net\nadd s 1.1.1.1 wildcard", "no wildcard"},
	{"create s hash:ip\nadd s fe80::1", "family inet"},
	{"create s hash:ip family inet6\nadd s 1.1.1.1", "family inet6"},
	{"create s hash:ip family inet6\nadd s fe80::1-fe80::5", "ranges of IPv6"},
	{"create s hash:ip family inet6\nadd s fe80::1/64", "takes no prefix"},
	{"create s hash:ip family inet7", "family"},
	{"create s hash:ip netmask 33", "netmask"},
	{"create s hash:ip netmask 0", "netmask"},
	{"create s hash:ip netmask 24 bitmask 255.255.0.0", "exclude"},
	{"create s hash:net netmask 24", "unknown option"},
	{"create s hash:ip,mark markmask 0", "markmask"},
	{"create s hash:what", "unknown set type"},
	{"create 12345678901234567890123456789012 hash:ip", "31 bytes"},
	{"create s hash:mac\nadd s 00:00:00:00:00:00", "zero"},
	{"create s hash:mac\nadd s 00:00:00:00:00", "MAC"},
	{"create s hash:ip,port\nadd s 1.1.1.1,0:80", "protocol"},
	{"create s hash:ip,port\nadd s 1.1.1.1", "not an element"},
	{"create s hash:ip,port\nadd s 1.1.1.1,tcp:65536", "port"},
	{"create s hash:net,iface\nadd s 1.1.1.1,0123456789abcdef", "interface"},
	{"create s bitmap:ip range 10.0.0.0/24\nadd s 10.0.1.0", "out of the range"},
	{"create s bitmap:ip range 10.0.0.0/8", "places"},
	{"create s bitmap:ip range 10.0.0.0/24 netmask 20", "netmask"},
	{"create s bitmap:ip", "range"},
	{"create s bitmap:port range 0-10\nadd s 11", "out of the range"},
	{"create a hash:ip\ncreate s list:set\nadd s a\nadd s a", "already added"},
	{"create a hash:ip\ncreate s list:set\nadd s a before b", "not in the list"},
	{"create s hash:ip timeout 2147484", "out of range"},
	{"create s hash:ip hashsize x", "not a number"},
	{"create s hash:ip comment\nadd s 1.1.1.1 comment \"" + strings.Repeat("x", 256) + "\"", "comment"},
	{"create s hash:ip\nadd s 1.1.1.1 comment \"x", "does not end"},
}

func TestRefusals(t *testing.T) {
	for _, r := range refusals {
		if _, err := read(r.text); err == nil || !strings.Contains(err.Error(), r.why) {
			t.Errorf("%s: %v, want %q", r.text, err, r.why)
		}
	}
}

// TestRanges holds what an entry with a range stands for.
func TestRanges(t *testing.T) {
	for text, want := range map[string]string{
		"create s hash:ip\nadd s 1.1.1.1-1.1.1.3":                       "1.1.1.1; 1.1.1.2; 1.1.1.3",
		"create s hash:ip\nadd s 1.1.1.3-1.1.1.2":                       "1.1.1.2; 1.1.1.3",
		"create s hash:ip\nadd s 1.1.1.1/31":                            "1.1.1.0; 1.1.1.1",
		"create s hash:ip netmask 24\nadd s 1.1.1.9-1.1.2.3":            "1.1.1.0; 1.1.2.0",
		"create s hash:net\nadd s 10.2.0.0-10.2.1.12":                   "10.2.0.0/24; 10.2.1.0/29; 10.2.1.12; 10.2.1.8/30",
		"create s hash:ip,port\nadd s 1.1.1.1,80-82":                    "1.1.1.1,tcp:80; 1.1.1.1,tcp:81; 1.1.1.1,tcp:82",
		"create s hash:ip,port\nadd s 1.1.1.1,47:9":                     "1.1.1.1,47:0",
		"create s hash:net,net\nadd s 1.0.0.0/8,2.0.0.0-2.0.0.2":        "1.0.0.0/8,2.0.0.0/31; 1.0.0.0/8,2.0.0.2",
		"create s hash:ip,port,net\nadd s 1.1.1.1,80,2.2.2.2/24":        "1.1.1.1,tcp:80,2.2.2.0/24",
		"create s bitmap:port range 0-9\nadd s 3-1":                     "1; 2; 3",
		"create s bitmap:ip range 10.0.0.0-10.0.0.9\nadd s 10.0.0.2/31": "10.0.0.2; 10.0.0.3",
		"create s hash:net,iface family inet6\nadd s ::/0,eth0":         "::/0,eth0",
	} {
		if got := newHost(t, text).content("s"); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// saved are lines that `ipset save` prints: what is read prints the same.
var saved = []string{
	"create s hash:net timeout 100 counters comment skbinfo\nadd s 10.0.0.0/8 timeout 7 nomatch " +
		`packets 4 bytes 10 comment "x y" skbmark 0x5/0xff skbprio 1:10 skbqueue 3`,
	"create s hash:net,iface\nadd s 0.0.0.0/0,physdev:eth0 nomatch wildcard",
	"create s hash:ip,port family inet6\nadd s fe80::1,ipv6-icmp:neighbour-solicitation",
	"create s hash:ip,port\nadd s 1.2.3.4,icmp:3/17",
	"create s hash:mac\nadd s 01:02:03:04:05:0A",
	"create s hash:ip,mark\nadd s 1.1.1.1,0x00001234",
	"create s bitmap:ip,mac range 10.0.0.0/24 timeout 9\nadd s 10.0.0.1 timeout 600",
	"create s hash:ip timeout 0 counters\nadd s 1.1.1.1 timeout 0 packets 0 bytes 0",
	"create s hash:net,port,net family inet6\nadd s fe80::/64,udp:53,::/0",
}

func TestPrint(t *testing.T) {
	for _, text := range saved {
		_, want, _ := strings.Cut(text, "\nadd s ")
		if got := newHost(t, text).content("s"); got != want {
			t.Errorf("printed %s, want %s", got, want)
		}
	}
}

// TestCounters counts in members and in the list itself, or not.
func TestCounters(t *testing.T) {
	const text = "create a hash:ip counters\nadd a 10.0.0.1\ncreate l list:set counters\nadd l a"
	const pkt = "tcp 1.1.1.1:1 > 10.0.0.1:80"
	for q, want := range map[string]string{
		"a dst":            "10.0.0.1 packets 1 bytes 40 a packets 0 bytes 0",
		"a dst quiet":      "10.0.0.1 packets 0 bytes 0 a packets 0 bytes 0",
		"l dst":            "10.0.0.1 packets 1 bytes 40 a packets 1 bytes 40",
		"l dst subquiet":   "10.0.0.1 packets 0 bytes 0 a packets 1 bytes 40",
		"l dst quiet":      "10.0.0.1 packets 0 bytes 0 a packets 0 bytes 0",
		"a src":            "10.0.0.1 packets 0 bytes 0 a packets 0 bytes 0",
		"a dst quiet peek": "10.0.0.1 packets 0 bytes 0 a packets 0 bytes 0",
	} {
		h := newHost(t, text)
		h.test(q, pkt)
		if got := h.content("a") + " " + h.content("l"); got != want {
			t.Errorf("%s: %s, want %s", q, got, want)
		}
	}
}

// TestChange adds and deletes by packets.
func TestChange(t *testing.T) {
	steps := []struct {
		set, do, q, pkt string
		ok              bool
		want            string
	}{
		{"create s hash:ip", "add", "s src", "tcp 1.1.1.1:1 > 2.2.2.2:2", true, "1.1.1.1"},
		{"", "add", "s src", "tcp 1.1.1.1:1 > 2.2.2.2:2", false, "1.1.1.1"},
		{"", "add", "s src exist", "tcp 1.1.1.1:1 > 2.2.2.2:2", true, "1.1.1.1"},
		{"", "add", "s dst", "tcp 1.1.1.1:1 > 2.2.2.2:2", true, "1.1.1.1; 2.2.2.2"},
		{"", "del", "s src", "tcp 1.1.1.1:1 > 2.2.2.2:2", true, "2.2.2.2"},
		{"", "del", "s src", "tcp 1.1.1.1:1 > 2.2.2.2:2", false, "2.2.2.2"},
		// A network is added as wide as the most specific one of the set.
		{"create s hash:net\nadd s 10.0.0.0/24\nadd s 11.0.0.0/8", "add", "s src",
			"tcp 1.1.1.1:1 > 2.2.2.2:2", true, "1.1.1.0/24; 10.0.0.0/24; 11.0.0.0/8"},
		{"", "del", "s dst", "tcp 1.1.1.1:1 > 10.0.0.9:2", true, "1.1.1.0/24; 11.0.0.0/8"},
		{"create s hash:net", "add", "s src", "tcp 1.1.1.1:1 > 2.2.2.2:2", true, "1.1.1.1"},
		// Adding again forgets nomatch.
		{"create s hash:net counters\nadd s 1.1.1.1 nomatch packets 5 bytes 5", "add", "s src exist",
			"tcp 1.1.1.1:1 > 2.2.2.2:2", true, "1.1.1.1 packets 1 bytes 40"},
		{"create s hash:ip timeout 9", "add", "s src", "tcp 1.1.1.1:1 > 2.2.2.2:2", true,
			"1.1.1.1 timeout 9"},
		{"create s hash:ip maxelem 1\nadd s 9.9.9.9", "add", "s src", "tcp 1.1.1.1:1 > 2.2.2.2:2", false,
			"9.9.9.9"},
		// Every bucket of one place, and a packet can't make the table grow.
		{"create s bitmap:port range 10-20", "add", "s dst", "tcp 1.1.1.1:1 > 2.2.2.2:9", false, ""},
		{"", "add", "s dst", "udp 1.1.1.1:1 > 2.2.2.2:10", true, "10"},
		{"create s bitmap:ip,mac range 10.0.0.0/24 timeout 9\nadd s 10.0.0.1 timeout 600", "add", "s src,src",
			"tcp 10.0.0.1:1 > 2.2.2.2:9", true, "10.0.0.1,02:00:00:00:00:09 timeout 600"},
		// A list changes its first member that lets it.
		{"create s hash:ip\ncreate b hash:ip\nadd b 1.1.1.1\ncreate l list:set\nadd l b\nadd l s", "add",
			"l src", "tcp 1.1.1.1:1 > 2.2.2.2:2", true, "1.1.1.1"},
	}
	var h *host
	for _, s := range steps {
		if s.set != "" {
			h = newHost(t, s.set)
		}
		do := map[string]func(string, string) bool{"add": h.add, "del": h.del}[s.do]
		if got := do(s.q, s.pkt); got != s.ok {
			t.Errorf("%s: %s %s, %s: %v", s.set, s.do, s.q, s.pkt, got)
		}
		if got := h.content("s"); got != s.want {
			t.Errorf("%s: %s %s, %s: %q, want %q", s.set, s.do, s.q, s.pkt, got, s.want)
		}
	}
}

// TestFork changes a fork and leaves what it came from.
func TestFork(t *testing.T) {
	h := newHost(t, "create s hash:net counters\nadd s 10.0.0.0/24\ncreate p bitmap:port range 0-9\nadd p 1")
	base := h.w.State
	before := h.content("s") + h.content("p")
	h.w.State = base.Fork()
	h.add("s src", "tcp 1.1.1.1:1 > 10.0.0.1:2")
	h.test("s dst", "tcp 1.1.1.1:1 > 10.0.0.1:2")
	h.add("p dst", "tcp 1.1.1.1:1 > 10.0.0.1:2")
	h.del("p src", "tcp 1.1.1.1:1 > 10.0.0.1:2")
	if got := h.content("s") + h.content("p"); got == before {
		t.Errorf("the fork has not changed: %s", got)
	}
	h.w.State = base
	if got := h.content("s") + h.content("p"); got != before {
		t.Errorf("%s, was %s", got, before)
	}
}

// TestTime lets entries grow old by the kernel's ticks.
func TestTime(t *testing.T) {
	h := newHost(t, "create s hash:ip timeout 5 maxelem 1\nadd s 1.1.1.1")
	const pkt = "tcp 1.1.1.1:1 > 2.2.2.2:2"
	h.w.Now += 5 * world.Second
	if !h.test("s src", pkt) {
		t.Error("gone too early")
	}
	if h.add("s dst", pkt) {
		t.Error("added to a full set")
	}
	h.w.Now += world.Second / 250
	if h.test("s src", pkt) || h.content("s") != "" {
		t.Error("still there")
	}
	if !h.add("s dst", pkt) || h.content("s") != "2.2.2.2 timeout 5" {
		t.Errorf("what is over is not replaced: %s", h.content("s"))
	}
}

// TestDepends holds which bits are noted.
func TestDepends(t *testing.T) {
	h := newHost(t, "create s hash:ip,port bitmask 255.255.0.0\nadd s 10.0.0.1,80")
	var d field.Deps
	q := h.query("s src,dst")
	at := h.place()
	at.Deps = &d
	h.sets.Test(h.w, parse(t, "tcp 10.0.0.1:1 > 1.1.1.1:80"), &q, at)
	if want := field.PrefixMask(128, 96).Or(field.U(0xffff0000)); d[field.Src] != want {
		t.Errorf("src: %x, want %x", d[field.Src], want)
	}
	if d[field.DstPort] != field.Ones(16) || !d[field.SrcPort].IsZero() || !d[field.Dst].IsZero() {
		t.Error("ports and destination")
	}
	for _, id := range h.sets.Reads(&q) {
		if id == field.Dst || id == field.SrcPort {
			t.Errorf("%s is read", id)
		}
	}
}

// TestNew refuses what can't be one host.
func TestNew(t *testing.T) {
	for text, why := range map[string]string{
		"create s hash:ip\ncreate s hash:ip":            "twice",
		"create l list:set\nadd l none":                 "no set",
		"create l list:set\ncreate m list:set\nadd l m": "a list itself",
	} {
		sets, err := read(text)
		if err == nil {
			_, err = ipset.New(&world.Schema{}, sets)
		}
		if err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", text, err)
		}
	}
	s, err := ipset.New(&world.Schema{}, nil)
	if err != nil || !s.Open() {
		t.Errorf("no sets: %v", err)
	}
}

// TestPrefixesAgainstScan holds the lookup against asking each network in turn.
func TestPrefixesAgainstScan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		text := "create s hash:net"
		for range 1 + r.IntN(40) {
			n := fmt.Sprintf("%d.%d.%d.%d/%d", 10+r.IntN(2), r.IntN(2), r.IntN(3), r.IntN(256), 1+r.IntN(32))
			text += "\nadd s " + n + []string{"", " nomatch"}[r.IntN(2)] + " -exist"
		}
		h := newHost(t, text)
		i, _ := h.sets.ByName("s")
		for range 50 {
			ip := packet.V4(uint32(10+r.IntN(2))<<24 | uint32(r.IntN(2))<<16 | uint32(r.IntN(3))<<8 | uint32(r.IntN(256)))
			longest, want := -1, false
			h.sets.Entries(h.w, i, func(e *ipset.Entry) bool {
				s := field.AddrPrefix(e.Addr[0], int(e.Prefix[0]))
				if int(e.Prefix[0]) > longest && s.Holds(field.AddrValue(ip)) {
					longest, want = int(e.Prefix[0]), !e.NoMatch
				}
				return true
			})
			if got := h.test("s src", "tcp "+ip.String()+":1 > 1.1.1.1:1"); got != want {
				t.Fatalf("%s\n%s: %v, want %v", text, ip, got, want)
			}
		}
	}
}

// TestNoAllocation holds that asking a known set costs no memory.
func TestNoAllocation(t *testing.T) {
	h := newHost(t, "create s hash:net,port counters\nadd s 10.0.0.0/8,80\nadd s 10.1.0.0/16,80")
	q, p, at := h.query("s dst,dst"), parse(t, "tcp 1.1.1.1:1 > 10.0.0.1:80"), h.place()
	if n := testing.AllocsPerRun(100, func() { h.sets.Test(h.w, p, &q, at) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
