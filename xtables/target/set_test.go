package target_test

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
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
)

const setText = `create addrs hash:ip timeout 60
add addrs 10.0.0.9
create services hash:ip,port
create marks hash:ip skbinfo
add marks 10.0.0.9 skbmark 0x5/0xf skbprio 1:2
create both list:set
add both addrs
create six hash:ip family inet6`

// setRig is a host with the sets and one rule.
func setRig(t *testing.T, table, chain, rule string) (*rig, string, error) {
	t.Helper()
	r := &rig{t: t}
	if err := r.build(); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.rooms.Sets, err = ipset.New(&r.schema, readSets(t)); err != nil {
		t.Fatal(err)
	}
	rs, err := xtables.Parse("*"+table+"\n-A "+chain+" "+rule+"\nCOMMIT\n",
		xtables.ParseOptions{File: "t", Force: true, Version: xtables.V1811,
			Catalog: xtables.NewCatalog(trace.IPv4, match.All(), target.All())})
	if err != nil {
		return nil, "", err
	}
	c := xtables.Compiler{Build: xtables.Build{Rooms: &r.rooms, Schema: &r.schema, HZ: 250}}
	c.Counters = world.Add(&r.schema, func() *world.Array[xtables.Counters] {
		return world.NewArray[xtables.Counters](c.Next)
	})
	rl := &rs.Tables[0].Chains[0].Rules[0]
	r.target = rl.Target
	if r.program, err = c.Compile(rs, rs.Tables[0], 0); err != nil {
		return nil, "", err
	}
	r.world = &world.World{State: r.schema.NewState(), Dice: &world.Dice{}, HZ: 250}
	return r, strings.TrimPrefix(string(xtables.AppendRule(nil, trace.IPv4, rl)), " "), nil
}

func readSets(t *testing.T) (out []ipset.Set) {
	t.Helper()
	var rd ipset.Reader
	var sets []*ipset.Set
	for line := range strings.SplitSeq(setText, "\n") {
		words, err := ipset.Words(line, nil)
		if err != nil {
			t.Fatal(err)
		}
		if words[0] == "create" {
			s, err := rd.Create(words[1:])
			if err != nil {
				t.Fatal(err)
			}
			sets = append(sets, s)
			continue
		}
		i := slices.IndexFunc(sets, func(s *ipset.Set) bool { return s.Name == words[1] })
		e, exist, err := rd.Entry(sets[i], words[2:])
		if err == nil {
			err = sets[i].Add(&e, exist, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sets {
		out = append(out, *s)
	}
	return out
}

// TestSETGrammar holds what is read and printed against what iptables 1.8.9 did in
// table mangle, FORWARD where nothing else is said.
func TestSETGrammar(t *testing.T) {
	for _, g := range []struct{ table, chain, rule, want string }{
		{"", "", "-j SET", "refused"},
		{"", "", "-j SET --add-set addrs src", "="},
		{"", "", "-j SET --add-set addrs src --timeout 5 --exist --del-set services src,dst",
			"-j SET --add-set addrs src --exist --timeout 5 --del-set services src,dst"},
		{"", "", "-j SET --del-set services src,dst --exist", "refused"},
		{"", "", "-j SET --del-set services src,dst --timeout 5", "refused"},
		{"", "", "-j SET --map-set addrs src --map-mark --map-prio --map-queue", "="},
		{"", "", "-j SET --map-set addrs src", "refused"},
		{"", "", "-j SET ! --map-set addrs src --map-mark", "-j SET --map-set addrs src --map-mark"},
		{"", "", "-j SET ! --add-set addrs src", "-j SET --add-set addrs src"},
		{"", "", "-j SET --add-set addrs src --map-set addrs dst --map-mark --exist --timeout 0",
			"-j SET --add-set addrs src --exist --timeout 0 --map-set addrs dst --map-mark"},
		{"", "", "-j SET --add-set addrs src --map-mark", "refused"},
		{"", "", "-j SET --add-set six src", "refused"},
		{"", "", "-j SET --add-set both src", "="},
		{"", "", "-j SET --add-set addrs src --timeout 4294967295", "refused"},
		{"", "", "-j SET --add-set addrs src --timeout 4294967294", "="},
		{"", "", "-j SET --add-set addrs src --add-set services src", "refused"},
		{"", "", "-j SET --add-set nope src", "refused"},
		{"", "", "-j SET --add-set services src", "="},
		{"", "", "-j SET --add-set addrs src,dst,src,src,dst,dst,dst", "refused"},
		{"filter", "", "-j SET --map-set addrs src --map-mark", "refused"},
		{"filter", "", "-j SET --add-set addrs src", "="},
		{"", "PREROUTING", "-j SET --map-set addrs src --map-prio", "refused"},
		{"", "PREROUTING", "-j SET --map-set addrs src --map-mark", "="},
		{"", "POSTROUTING", "-j SET --map-set addrs src --map-queue", "="},
	} {
		table, chain := "mangle", "FORWARD"
		if g.table != "" {
			table = g.table
		}
		if g.chain != "" {
			chain = g.chain
		}
		_, got, err := setRig(t, table, chain, g.rule)
		if err != nil {
			got = "refused"
		}
		want := g.want
		if want == "=" {
			want = g.rule
		}
		if got != want {
			t.Errorf("%s %s: %s: %s (%v), want %s", table, chain, g.rule, got, err, want)
		}
	}
}

// TestSET adds, deletes and maps.
func TestSET(t *testing.T) {
	ip := packet.MustParseAddr
	for _, c := range []struct {
		rule, dst, addrs string
		mark, prio       uint32
	}{
		{"-j SET --add-set addrs dst", "10.0.1.7", "10.0.0.9 timeout 60; 10.0.1.7 timeout 60", 0xf0, 0},
		{"-j SET --add-set addrs dst --timeout 5", "10.0.1.7", "10.0.0.9 timeout 60; 10.0.1.7 timeout 5", 0xf0, 0},
		{"-j SET --add-set addrs src --timeout 5", "10.0.1.7", "10.0.0.9 timeout 60", 0xf0, 0},
		{"-j SET --add-set addrs src --timeout 5 --exist", "10.0.1.7", "10.0.0.9 timeout 5", 0xf0, 0},
		{"-j SET --del-set addrs src", "10.0.1.7", "", 0xf0, 0},
		{"-j SET --add-set addrs dst --del-set addrs src", "10.0.1.7", "10.0.1.7 timeout 60", 0xf0, 0},
		{"-j SET --add-set both dst", "10.0.1.7", "10.0.0.9 timeout 60; 10.0.1.7 timeout 60", 0xf0, 0},
		{"-j SET --map-set marks src --map-mark --map-prio", "10.0.1.7", "10.0.0.9 timeout 60", 0xf5, 0x10002},
		{"-j SET --map-set marks src --map-prio", "10.0.1.7", "10.0.0.9 timeout 60", 0xf0, 0x10002},
		{"-j SET --map-set marks dst --map-mark", "10.0.1.7", "10.0.0.9 timeout 60", 0xf0, 0},
	} {
		r, _, err := setRig(t, "mangle", "FORWARD", c.rule)
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		b := make([]byte, 40)
		b[0], b[9] = 0x45, packet.TCP
		src, dst := ip("10.0.0.9"), ip(c.dst)
		copy(b[12:], src.Bytes())
		copy(b[16:], dst.Bytes())
		p, _ := packet.FromIP(b)
		p.Mark = 0xf0
		if v := r.do(trace.Forward, p); v != trace.Continue {
			t.Errorf("%s: %s", c.rule, v)
		}
		if got := r.setContent("addrs"); got != c.addrs || p.Mark != c.mark || p.Priority != c.prio {
			t.Errorf("%s: %q, mark %#x, priority %#x", c.rule, got, p.Mark, p.Priority)
		}
		forgets := slices.ContainsFunc(r.target.Effects(), func(e field.Effect) bool { return e.ID == field.Mark })
		if p.Mark != 0xf0 && !forgets {
			t.Errorf("%s: the mark changes without an effect", c.rule)
		}
	}
}

func (r *rig) setContent(name string) string {
	i, _ := r.rooms.Sets.ByName(name)
	var out []string
	r.rooms.Sets.Entries(r.world, i, func(e *ipset.Entry) bool {
		out = append(out, string(r.rooms.Sets.Set(i).AppendEntry(nil, e)))
		return true
	})
	slices.Sort(out)
	return strings.Join(out, "; ")
}
