package match_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// rigSetText are the sets of the rig.
const rigSetText = `create addrs hash:ip counters
add addrs 10.0.0.9 packets 4 bytes 100
create nets hash:net
add nets 10.0.0.0/24
add nets 10.0.0.9 nomatch
create services hash:ip,port
add services 10.0.0.1,tcp:80
add services 10.0.0.1,icmp:ping
create macs hash:mac
add macs 02:00:00:00:00:09
create both list:set
add both services
add both nets
create six hash:ip family inet6
create brief hash:ip timeout 60
add brief 10.0.0.9`

// readSets makes sets of the text of `ipset save`.
func readSets(t testing.TB, text string, now world.Instant) []ipset.Set {
	t.Helper()
	var rd ipset.Reader
	var sets []*ipset.Set
	for line := range strings.SplitSeq(text, "\n") {
		words, err := ipset.Words(line, nil)
		if err != nil {
			t.Fatal(err)
		}
		if words[0] == "create" {
			s, err := rd.Create(words[1:])
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			sets = append(sets, s)
			continue
		}
		i := slices.IndexFunc(sets, func(s *ipset.Set) bool { return s.Name == words[1] })
		e, exist, err := rd.Entry(sets[i], words[2:])
		if err == nil {
			err = sets[i].Add(&e, exist, now)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	out := make([]ipset.Set, len(sets))
	for i := range sets {
		out[i] = *sets[i]
	}
	return out
}

func rigSets(t testing.TB) []ipset.Set { return readSets(t, rigSetText, rigNow) }

var setCases = []matchCase{
	{ext: "set", rule: "-m set --match-set addrs src", rows: []row{
		{packetOf{}, yes}, {packetOf{src: "10.0.0.8"}, no},
	}},
	{ext: "set", rule: "-m set ! --match-set addrs src", rows: []row{
		{packetOf{}, no}, {packetOf{src: "10.0.0.8"}, yes},
	}},
	{ext: "set", rule: "-m set --match-set addrs src --packets-gt 5", rows: []row{
		{packetOf{}, no}, {packetOf{}, yes}, // the packet itself counts
	}},
	{ext: "set", rule: "-m set --match-set addrs src ! --update-counters --packets-eq 4", rows: []row{
		{packetOf{}, yes}, {packetOf{}, yes},
	}},
	{ext: "set", rule: "-m set --match-set addrs src --bytes-lt 141", rows: []row{
		{packetOf{}, yes}, {packetOf{}, no},
	}},
	{ext: "set", rule: "-m set --match-set nets src", rows: []row{
		{packetOf{}, no}, {packetOf{src: "10.0.0.8"}, yes}, {packetOf{src: "10.0.1.8"}, no},
	}},
	{ext: "set", rule: "-m set --match-set nets src --return-nomatch", rows: []row{
		{packetOf{}, yes}, {packetOf{src: "10.0.0.8"}, no}, {packetOf{src: "10.0.1.8"}, no},
	}},
	{ext: "set", rule: "-m set --match-set services dst,dst", rows: []row{
		{packetOf{}, yes}, {packetOf{dport: 81}, no}, {packetOf{proto: udp}, no},
		{packetOf{frag: laterFragment}, no}, {packetOf{cut: 39}, no},
		{packetOf{proto: icmp}, yes}, {packetOf{proto: icmp, l4: "\x08\x01\x00\x00\x00\x00\x00\x00"}, no},
	}},
	{ext: "set", rule: "-m set --match-set services dst", rows: []row{{packetOf{}, no}}},
	{ext: "set", rule: "-m set ! --match-set services dst", rows: []row{{packetOf{}, yes}}},
	{ext: "set", rule: "-m set --match-set services dst,dst,src,src", rows: []row{{packetOf{}, yes}}},
	{ext: "set", rule: "-m set --match-set macs src", hook: in, rows: []row{
		{packetOf{in: 2}, yes}, {packetOf{in: 1}, no}, {packetOf{in: 2, local: true}, no},
	}},
	{ext: "set", rule: "-m set --match-set macs dst", hook: in, rows: []row{{packetOf{in: 2}, no}}},
	{ext: "set", rule: "-m set --match-set both dst,dst", rows: []row{
		{packetOf{}, yes}, {packetOf{dport: 81}, yes}, {packetOf{dst: "10.1.0.1"}, no},
	}},
	{ext: "set", rule: "-m set --match-set both dst", rows: []row{{packetOf{}, yes}}},
}

// TestSets asks sets one packet after another.
func TestSets(t *testing.T) {
	for _, c := range setCases {
		h := c.hook
		if h == 0 {
			h = fwd
		}
		r := newRig(t, "mangle", chainRules(h.String(), c.rule)...)
		for i, row := range c.rows {
			if got := r.ask(h, row.d); got != row.want {
				t.Errorf("%s: packet %d: %s, want %s", c.rule, i+1, got, row.want)
			}
		}
	}
}

// TestSetTimeout lets an entry's time pass.
func TestSetTimeout(t *testing.T) {
	r := newRig(t, "mangle", chainRules("FORWARD", "-m set --match-set brief src")...)
	for _, s := range []struct {
		after world.Instant
		want  answer
	}{{0, yes}, {60 * world.Second, yes}, {world.Second / rigHZ, no}} {
		r.world.Now += s.after
		if got := r.ask(fwd, packetOf{}); got != s.want {
			t.Errorf("after %d: %s, want %s", s.after, got, s.want)
		}
	}
}

// setGrammar are rules and what iptables prints of them; "refused" where it does not
// take them.
var setGrammar = []struct{ rule, want string }{
	{"-m set --match-set addrs src", "="},
	{"-m set --set addrs src", "-m set --match-set addrs src"},
	{"-m set ! --match-set services src,dst,src,src,dst,dst", "="},
	{"-m set --match-set services src,dst,src,src,dst,dst,dst", "refused"},
	{"-m set --match-set addrs", "refused"},
	{"-m set --match-set addrs foo", "refused"},
	{"-m set --match-set addrs src,", "refused"},
	{"-m set --match-set six src", "refused"},
	{"-m set --match-set none src", "refused"},
	{"-m set --match-set both src", "="},
	{"-m set --match-set addrs src --return-nomatch ! --update-counters ! --update-subcounters " +
		"--packets-eq 4 --bytes-lt 8", "="},
	{"-m set --match-set addrs src --bytes-gt 8 ! --packets-eq 0x10 --return-nomatch",
		"-m set --match-set addrs src --return-nomatch ! --packets-eq 16 --bytes-gt 8"},
	{"-m set --match-set addrs src ! --bytes-gt 8", "refused"},
	{"-m set --match-set addrs src --bytes-gt 8 --bytes-lt 9", "refused"},
	{"-m set --match-set addrs src --update-counters", "-m set --match-set addrs src"},
	{"-m set --match-set addrs src ! --return-nomatch", "refused"},
	{"-m set --match-set addrs src --match-set services src", "refused"},
	{"-m set --match-set addrs src -m set --match-set services src,dst", "="},
	{"-m set --match-set addrs src --packets-eq 18446744073709551615", "="},
	{"-m set --match-set addrs src --packets-eq 18446744073709551616", "refused"},
	{"-m set --match-set addrs src --packets-eq 0", "="},
	{"-m set", "refused"},
	{"-m set --return-nomatch", "refused"},
}

// TestSetGrammar holds what is read and printed against what iptables 1.8.9 did.
func TestSetGrammar(t *testing.T) {
	for _, g := range setGrammar {
		got := "refused"
		if rs, err := parse("*mangle\n-A FORWARD "+g.rule+"\nCOMMIT\n", trace.IPv4); err == nil {
			r := &rig{t: t, table: "mangle"}
			if r.build([]string{"-A FORWARD " + g.rule}) == nil {
				b := xtables.AppendRule(nil, trace.IPv4, &rs.Tables[0].Chains[0].Rules[0])
				got = strings.TrimPrefix(string(b), " ")
			}
		}
		if want := strings.Replace(g.want, "=", g.rule, 1); got != want && !(g.want != "=" && got == g.want) {
			t.Errorf("%s: %s, want %s", g.rule, got, g.want)
		}
	}
}

// TestSetDepends holds which bits an answer hangs on.
func TestSetDepends(t *testing.T) {
	r := newRig(t, "mangle", chainRules("FORWARD", "-m set --match-set services dst,dst")...)
	e := &xtables.Env{Rooms: &r.rooms, World: r.world, Trace: &trace.Trace{},
		Packet: packetOf{}.build(t), Hook: fwd}
	r.program.Run(e)
	d := &e.Trace.Deps
	if d[field.Dst].IsZero() || d[field.DstPort].IsZero() || d[field.Proto].IsZero() {
		t.Errorf("the destination is not noted")
	}
	if !d[field.Src].IsZero() || !d[field.SrcPort].IsZero() {
		t.Errorf("the source is noted")
	}
}

// TestSetFreePort lets a test decide a port that NAT drew.
func TestSetFreePort(t *testing.T) {
	for _, decide := range []bool{true, false} {
		r := newRig(t, "mangle", chainRules("FORWARD", "-m set --match-set services dst,dst")...)
		p := packetOf{dport: 9}.build(t)
		p.Free = packet.FreeDstPort
		var asked string
		e := &xtables.Env{Rooms: &r.rooms, World: r.world, Packet: p, Hook: fwd,
			Narrow: func(id field.ID, s *field.Set) bool {
				v, _ := s.Single(id.Bits())
				asked += id.String() + "=" + string(rune('0'+v.Lo/10)) + " "
				return decide
			}}
		want := trace.Queue
		if decide {
			want = trace.Accept
		}
		if got := r.program.Run(e); got != want || asked != "dport=8 " {
			t.Errorf("%v: %v, asked %q", decide, got, asked)
		}
	}
}

// TestUnknownSets walks both answers where no file tells of the sets, and gives the
// same answer to the same packet.
func TestUnknownSets(t *testing.T) {
	r := newRig(t, "mangle", "-A FORWARD -p udp -j ACCEPT")
	r.rooms.Sets = nil
	r.schema = world.Schema{}
	if err := r.compile(chainRules("FORWARD", "-m set --match-set x src -m set --match-set x src")); err != nil {
		t.Fatal(err)
	}
	for i, want := range []answer{yes, no} {
		r.world = &world.World{State: r.schema.NewState(), HZ: rigHZ, Dice: &world.Dice{Forced: []int{i}}}
		if got := r.ask(fwd, packetOf{}); got != want || len(r.world.Dice.Taken) != 1 {
			t.Errorf("%d: %s, %d choices", i, got, len(r.world.Dice.Taken))
		}
	}
	if len(r.assumed) != 1 {
		t.Errorf("assumed %q", r.assumed)
	}
}
