package ipvs

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"pgregory.net/rapid"
)

// bench is a service that is asked for servers without packets.
type bench struct {
	table *Table
	world.World
}

// newBench makes a table of one service on 10.0.0.1:80.
func newBench(t rapid.TB, s Service, sysctl link.Sysctl) *bench {
	t.Helper()
	s.Proto, s.Port = packet.TCP, 80
	if s.Addr.IsZero() {
		s.Addr = packet.V4(0x0a000001)
	}
	var schema world.Schema
	table, err := New(Config{Schema: &schema, Sysctl: sysctl, Services: []Service{s}})
	if err != nil {
		t.Fatal(err)
	}
	return &bench{table, world.World{State: schema.NewState(), Now: 1000 * world.Second,
		Dice: &world.Dice{}, HZ: 250}}
}

// ask lets the scheduler choose for a client's packet to the service.
func (b *bench) ask(client uint32, port uint16) int {
	return b.askTo(b.table.services[0].Addr, packet.V4(client), port)
}

func (b *bench) askTo(dst, client packet.Addr, port uint16) int {
	h := Header{Family: trace.IPv4, Proto: packet.TCP, Src: client, Dst: dst,
		L4: []byte{byte(port >> 8), byte(port), 0, 80}}
	return b.table.choose(&b.World, b.table.services[0], &h)
}

// take is ask, and the connection counts as an active one from now on.
func (b *bench) take(client uint32, port uint16) int {
	i := b.ask(client, port)
	if i >= 0 {
		b.count(i).Active++
	}
	return i
}

func (b *bench) count(i int) *Counts { return b.table.totals.In(b.State).Ref(i) }

// dests reads servers in the kernel's order, the newest first, written as
// weight[:active[:inactive]], with a ! behind an overloaded one: "2:1:3 1! 0". The port of
// each is 80, its address 10.1.0.1 and up.
func dests(t testing.TB, text string) []Dest {
	t.Helper()
	var out []Dest
	for i, s := range strings.Fields(text) {
		d := Dest{Addr: packet.V4(0x0a010001 + uint32(i)), Port: 80}
		s, over := strings.CutSuffix(s, "!")
		parts := append(strings.Split(s, ":"), "0", "0")
		_, err := fmt.Sscan(strings.Join(parts[:3], " "), &d.Weight, &d.Counts.Active,
			&d.Counts.Inactive)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		if over {
			d.Upper = 1
			d.Counts.Inactive = max(d.Counts.Inactive, 1)
		}
		out = append(out, d)
	}
	return out
}

// letters writes chosen servers as letters, A for the first, - for none.
func letters(chosen []int) string {
	var out strings.Builder
	for _, i := range chosen {
		if i < 0 {
			out.WriteByte('-')
			continue
		}
		out.WriteByte('A' + byte(i))
	}
	return out.String()
}

// TestSequence asks each scheduler for a row of connections, all from one client, which
// stay and count as active.
func TestSequence(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range []struct{ scheduler, servers, want string }{
		{"rr", "1 1 1", "ABCABCA"},
		{"rr", "1 0 9", "ACACACA"},
		{"rr", "1 1! 1", "ACACACA"},
		{"rr", "1", "AAA"},
		{"rr", "0 1!", "--"},
		{"rr", "", "-"},

		// A round begins with the weight that the adding left behind: C (2), then B (3),
		// then A (4) leave 1. From then on it goes as the manual says: AABABCABC.
		{"wrr", "4 3 2", "ABC" + "AABABCABC" + "AABABCABC"},
		{"wrr", "2 3 4", "ABC" + "CBCABCABC" + "CBCABCABC"},
		{"wrr", "1 1 1", "ABCABCA"},
		{"wrr", "2 1", "AB" + "AAB" + "AAB"},
		{"wrr", "20 10", "AB" + "AAB" + "AAB"},
		{"wrr", "5 10", "AB" + "BAB" + "BAB"},
		{"wrr", "0 3 0", "BBBB"},
		{"wrr", "3! 1", "BBBB"},
		{"wrr", "65535! 2 1", "BCBBCBBC"},
		{"wrr", "3! 1!", "---"},
		{"wrr", "0 0", "--"},
		{"wrr", "", "-"},

		{"lc", "1 1 1", "ABCABC"},
		{"lc", "1 9 1", "ABCABC"},
		{"lc", "1:2 1:0:9 0", "BBAB"},
		{"lc", "1:1:0 1:0:257 1:0:256", "CABC"},
		{"lc", "0 1!", "-"},

		{"wlc", "1 1 1", "ABCABC"},
		{"wlc", "1 2", "ABBABB"},
		{"wlc", "1:0:1 3:0:4 0", "ABBB"},
		{"wlc", "0:0 1:5 1:4!", "BBB"},
		{"wlc", "0 0", "-"},

		{"sed", "1 2 3", "CBCABC"},
		{"sed", "1 1", "ABAB"},
		{"sed", "1:0:100 1", "ABAB"},
		{"sed", "0 5! 1:7", "CC"},
		{"sed", "", "-"},

		{"nq", "1 2 3", "ABCCBC"},
		{"nq", "0 1! 2:5 3:1", "DDDDDDDC"},
		{"nq", "1:1 9:3", "BBBBBBBBBBBBBBAB"},
		{"nq", "0", "-"},

		{"fo", "1 3 3", "BBBB"},
		{"fo", "1 3! 2", "CCCC"},
		{"fo", "0 0", "-"},

		{"ovf", "1 2 2", "BBBCCCAA-"},
		{"ovf", "1 2! 0", "AA-"},
		{"ovf", "", "-"},

		// 0x0a000001 * 0x61c88647 is 0x27c88647, whose first byte goes three times into 39.
		{"dh", "1 1 1", "AAA"},
		{"dh", "1 1", "BBB"},
		{"dh", "1 0", "---"}, // and nobody else
		{"dh", "", "-"},
		{"sh", "", "-"},
		{"mh", "", "-"},
		{"mh", "0 0", "-"},

		{"lblc", "1 1", "AABBBB"}, // A until it has more than its weight and B nothing
		{"lblc", "4 4:3", "AAAAAAAAAA"},
		{"lblc", "0 1 3!", "BBBB"},
		{"lblc", "0", "-"},
		{"lblcr", "1 1", "AABBBABAB"}, // both belong to the destination then
		{"lblcr", "0 1 3!", "BBBB"},
		{"lblcr", "0", "-"},

		{"twos", "0 1! 7", "CCCC"},
		{"twos", "0 1!", "-"},
		{"none", "1 1", "--"},
	} {
		seen[c.scheduler] = true
		b := newBench(t, Service{Scheduler: c.scheduler, Dests: dests(t, c.servers)}, nil)
		var got []int
		for range len(c.want) {
			got = append(got, b.take(0x0a090001, 1000))
		}
		if g := letters(got); g != c.want {
			t.Errorf("%s over %q: %s, want %s", c.scheduler, c.servers, g, c.want)
		}
	}
	for name := range schedulers {
		if !seen[name] {
			t.Errorf("no row for scheduler %s", name)
		}
	}
}

// TestHashes holds the hashes against the kernel's: hash_32 by hand, hsiphash by the vector
// of lib/test_siphash.c for four bytes.
func TestHashes(t *testing.T) {
	if got := hash32(0x0a000001, 8); got != 0x27 {
		t.Errorf("hash_32(0x0a000001, 8) is %#x, want 0x27", got)
	}
	key := sipKey{0x0706050403020100, 0x0f0e0d0c0b0a0908}
	if got := hsiphash(0x03020100, key); got != 0x88d38328 {
		t.Errorf("hsiphash_1u32(0x03020100) is %#x, want 0x88d38328", got)
	}
	four := packet.V4(0x01020304)
	six := packet.Addr{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0xff, 0, 0, 0x0f, 0, 0, 0, 0, 1}
	for _, c := range []struct {
		family trace.Family
		addr   packet.Addr
		want   uint32
	}{{trace.IPv4, four, 0x01020304}, {trace.IPv6, six, 0x20010db8 ^ 0xff ^ 0xf00 ^ 1}} {
		if got := fold(c.family, c.addr); got != c.want {
			t.Errorf("%s folds to %#x, want %#x", c.addr, got, c.want)
		}
	}
	for _, c := range []struct {
		family trace.Family
		addr   packet.Addr
		want   uint32
	}{{trace.IPv6, four, 0x01020304}, {trace.IPv4, six, 0x20010db8}} {
		if got := destKey(c.family, &Dest{Addr: c.addr}); got != c.want {
			t.Errorf("the key of server %s in a service of %s is %#x, want %#x", c.addr,
				c.family, got, c.want)
		}
	}
}

// TestQuiet holds that no scheduler, whatever it has seen, gives a connection to a server
// without weight or with too many, that hashes ask for nothing else but the packet, and that
// a fork goes its own way.
func TestQuiet(t *testing.T) {
	names := slices.Sorted(maps.Keys(schedulers))
	rapid.Check(t, func(t *rapid.T) {
		s := Service{Scheduler: rapid.SampledFrom(names).Draw(t, "scheduler"),
			Flags: Flags(rapid.IntRange(0, 3).Draw(t, "flags"))}
		for i := range rapid.IntRange(0, 6).Draw(t, "servers") {
			s.Dests = append(s.Dests, Dest{Addr: packet.V4(0x0a010001 + uint32(i)), Port: 80,
				Weight: rapid.SampledFrom([]int{0, 1, 2, 3, 7, 100}).Draw(t, "weight"),
				Upper:  uint32(rapid.SampledFrom([]int{0, 0, 2, 5}).Draw(t, "upper"))})
		}
		b := newBench(t, s, nil)
		for range rapid.IntRange(1, 60).Draw(t, "connections") {
			b.State = b.State.Fork()
			b.Now += world.Instant(rapid.IntRange(0, 5000).Draw(t, "seconds")) * world.Second
			client := packet.V4(rapid.Uint32().Draw(t, "client"))
			dst := packet.V4(rapid.Uint32Range(0, 3).Draw(t, "destination"))
			other := bench{b.table, b.World}
			other.State = b.State.Fork()
			b.State = b.State.Fork()
			i, j := b.askTo(dst, client, 1000), other.askTo(dst, client, 1000)
			if i != j && s.Scheduler != "twos" {
				t.Fatalf("server %d here, %d in a fork", i, j)
			}
			b.check(t, i)
		}
	})
}

// check holds that a chosen server may be had, and gives it the connection.
func (b *bench) check(t *rapid.T, i int) {
	svc := b.table.services[0]
	if i < 0 {
		return
	}
	n := b.count(i)
	cached := svc.Scheduler == "lblc" // which does not ask whether it has too many
	if svc.Dests[i].Weight == 0 || n.Overload && !cached {
		t.Fatalf("%s chose server %d: %+v with %+v", svc.Scheduler, i, svc.Dests[i], *n)
	}
	n.Active++
	n.Overload = svc.Dests[i].Upper != 0 && uint32(n.Total()) >= svc.Dests[i].Upper
}

// TestWeightedShares holds wrr against weights: over a whole cycle, wherever it begins,
// each server has its weight divided by what all have in common.
func TestWeightedShares(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(0, 20), 1, 6).Draw(t, "weights")
		s := Service{Scheduler: "wrr"}
		common, sum := 0, 0
		for _, w := range weights {
			s.Dests = append(s.Dests, Dest{Weight: w})
			common, sum = gcd(common, w), sum+w
		}
		if sum == 0 {
			return
		}
		b := newBench(t, s, nil)
		for range rapid.IntRange(0, 50).Draw(t, "before") {
			b.ask(1, 1)
		}
		got := make([]int, len(weights))
		for range sum / common {
			got[b.ask(1, 1)]++
		}
		for i, w := range weights {
			if got[i] != w/common {
				t.Fatalf("%v of weights %v", got, weights)
			}
		}
	})
}

// slowRobin is wrr without leaps: it lowers the weight step by step.
type slowRobin struct{ top, step, weight, last int }

func (r *slowRobin) next(weight []int, open []bool) int {
	began, stop, lastRound, again := r.last, -1, false, false
	for r.top != 0 {
		for r.last++; r.last < len(weight); r.last++ {
			if open[r.last] && weight[r.last] >= r.weight {
				return r.last
			}
			if r.last == stop {
				return -1
			}
		}
		r.last = -1
		if r.weight -= r.step; r.weight <= 0 {
			r.weight = r.top
			if lastRound || began < 0 {
				return -1
			}
			again = true
		}
		if lastRound = r.weight <= r.step; lastRound && again {
			stop = began
		}
	}
	return -1
}

// TestWeightedLeaps holds wrr against its slow twin while servers become overloaded and
// recover.
func TestWeightedLeaps(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(0, 40), 0, 5).Draw(t, "weights")
		unit := rapid.IntRange(1, 3).Draw(t, "unit")
		s := Service{Scheduler: "wrr"}
		for i := range weights {
			weights[i] *= unit
			s.Dests = append(s.Dests, Dest{Weight: weights[i]})
		}
		b := newBench(t, s, nil)
		r := b.table.services[0].scheduler.(*weightedRobin)
		at := r.turn.Look(b.State).V
		slow := slowRobin{r.top, r.step, at.weight, at.last}
		for range rapid.IntRange(1, 80).Draw(t, "connections") {
			open := make([]bool, len(weights))
			for i := range open {
				open[i] = rapid.Bool().Draw(t, "open")
				b.count(i).Overload = !open[i]
			}
			got, want := b.ask(1, 1), slow.next(weights, open)
			if at := r.turn.Look(b.State).V; got != want || at.weight != slow.weight ||
				got >= 0 && at.last != slow.last {
				t.Fatalf("%d then %+v, want %d then %+v", got, at, want, slow)
			}
		}
	})
}

// TestFallback closes servers of sh and mh: without fallback their clients have none, with
// it another, and nobody else's server changes.
func TestFallback(t *testing.T) {
	for _, name := range []string{"sh", "mh"} {
		plain := newBench(t, Service{Scheduler: name, Dests: dests(t, "1 2 1 3")}, nil)
		back := newBench(t, Service{Scheduler: name, Flags: fallback,
			Dests: dests(t, "1 2 1 3")}, nil)
		moved := 0
		for client := range uint32(2000) {
			for _, b := range []*bench{plain, back} {
				b.count(1).Overload = false
			}
			before := plain.ask(client, 1)
			for _, b := range []*bench{plain, back} {
				b.count(1).Overload = true
			}
			without, with := plain.ask(client, 1), back.ask(client, 1)
			switch {
			case before != 1 && (without != before || with != before):
				t.Fatalf("%s: client %d had %d, now %d and %d", name, client, before, without, with)
			case before == 1 && (without != -1 || with == 1 || with == -1):
				t.Fatalf("%s: client %d of a closed server has %d and %d", name, client, without, with)
			case before == 1:
				moved++
			}
		}
		if moved < 200 {
			t.Errorf("%s: only %d clients of the closed server", name, moved)
		}
	}
}

// TestPorts holds that the client's port counts with sh-port and mh-port alone.
func TestPorts(t *testing.T) {
	for _, name := range []string{"sh", "mh"} {
		for _, flags := range []Flags{0, withPort} {
			b := newBench(t, Service{Scheduler: name, Flags: flags, Dests: dests(t, "1 1 1")}, nil)
			seen := map[int]bool{}
			for port := range uint16(200) {
				seen[b.ask(5, port)] = true
			}
			if want := 1 + 2*int(flags/withPort); len(seen) != want {
				t.Errorf("%s with flags %d: %d servers, want %d", name, flags, len(seen), want)
			}
		}
	}
}

// TestMaglev holds what the table is for: places go by weights, and few change when a
// server goes.
func TestMaglev(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(0, 8), 2, 20).Draw(t, "weights")
		var all []Dest
		sum := 0
		for i, w := range weights {
			all = append(all, Dest{Addr: packet.V4(0x0a010001 + uint32(i)), Port: 80, Weight: w})
			sum += w
		}
		table := maglevTable(trace.IPv4, all)
		if sum == 0 {
			if table != nil {
				t.Fatal("a table without weights")
			}
			return
		}
		places := make([]int, len(all))
		for _, i := range table {
			places[i]++
		}
		for i, w := range weights {
			if want := mhSize * w / sum; places[i] < want-8 || places[i] > want+8 {
				t.Fatalf("%v places for weights %v", places, weights)
			}
		}
		fewer := maglevTable(trace.IPv4, all[1:])
		if fewer == nil {
			return
		}
		moved := 0
		for i := range table {
			if table[i] != 0 && fewer[i]+1 != table[i] {
				moved++
			}
		}
		if moved > mhSize/2 {
			t.Fatalf("%d of %d places moved when one of %v went", moved, mhSize, weights)
		}
	})
}

// TestMaglevMany has more servers than the table has places: those that were added last are
// left out.
func TestMaglevMany(t *testing.T) {
	all := make([]Dest, mhSize+2)
	for i := range all {
		all[i] = Dest{Addr: packet.V4(uint32(i)), Port: 80, Weight: 65535}
	}
	table := maglevTable(trace.IPv4, all)
	slices.Sort(table)
	if table[0] != 2 || len(slices.Compact(table)) != mhSize {
		t.Errorf("%d servers from %d on, want all but the first two", len(slices.Compact(table)),
			table[0])
	}
}

// TestTwos holds the shares that the dice are given against rolling: each server is drawn
// by its weight, the zero counting for the first.
func TestTwos(t *testing.T) {
	list := "2:3 3:1 0 4:9 1! 5"
	b := newBench(t, Service{Scheduler: "twos", Dests: dests(t, list)}, nil)
	b.ask(1, 1)
	choice := b.Dice.Taken[0]
	share, n := choice.Shares(), choice.N
	if again := b.ask(1, 1); len(b.Dice.Taken) != 2 {
		t.Errorf("the second connection, to %d, is no choice of its own", again)
	}
	var names []string
	for i := range n {
		names = append(names, choice.Values(i))
	}
	if want := "[10.1.0.1:80 10.1.0.2:80 10.1.0.4:80 10.1.0.6:80]"; fmt.Sprint(names) != want {
		t.Errorf("servers %v, want %s", names, want)
	}
	// Of 15 numbers A has 3, B 3, D 4 and F 5. F, which has none, beats all; B (257/3) beats
	// A (771/2) and D (2313/4), A beats D.
	for i, pairs := range []int{3*3 + 2*3*4, 3*3 + 2*3*(3+4), 4 * 4, 5*5 + 2*5*(3+3+4)} {
		if got := share(i) * 15 * 15; got < float64(pairs)-1e-9 || got > float64(pairs)+1e-9 {
			t.Errorf("%s has %v of 225, want %d", names[i], got, pairs)
		}
	}
	b.Dice.Rand = rand.New(rand.NewPCG(1, 2))
	got := map[int]int{}
	const rolls = 100000
	for range rolls {
		got[b.ask(1, 1)]++
	}
	for i, server := range []int{0, 1, 3, 5} {
		if off := float64(got[server]) - share(i)*rolls; off < -1000 || off > 1000 {
			t.Errorf("%s was rolled %d times, want about %.0f", names[i], got[server],
				share(i)*rolls)
		}
	}
}

// TestTwosWraps keeps the kernel's products of 32 bits: 2^16 times 2^16 is nothing.
func TestTwosWraps(t *testing.T) {
	b := newBench(t, Service{Scheduler: "twos", Dests: dests(t, "65536:0:65536 65536")}, nil)
	b.ask(1, 1)
	// Were it more than nothing, the second would beat the first in each draw of both.
	if share := b.Dice.Taken[0].Shares(); share(1) > 0.51 {
		t.Errorf("the second has a share of %v, want a half", share(1))
	}
	heavy := Service{Scheduler: "twos", Proto: packet.TCP, Dests: dests(t, "2147483647 1")}
	_, err := New(Config{Schema: &world.Schema{}, Services: []Service{heavy}})
	if err == nil || !strings.Contains(err.Error(), "unsupported") {
		t.Errorf("weights that wrap when they are summed: %v", err)
	}
}

// TestTwosMany has so many servers that they are drawn one after the other.
func TestTwosMany(t *testing.T) {
	list := strings.Repeat("1:5 ", mostTwos) + "1"
	b := newBench(t, Service{Scheduler: "twos", Dests: dests(t, list)}, nil)
	b.Dice.Forced = []int{3, mostTwos}
	if got := b.ask(1, 1); got != mostTwos || len(b.Dice.Taken) != 2 {
		t.Errorf("server %d by %d choices, want the idle one by two", got, len(b.Dice.Taken))
	}
}

// TestLocalExpiry asks lblc and lblcr for a destination, keeps its server busier than
// others, and asks again after a time: as long as the table remembers, it is the same.
func TestLocalExpiry(t *testing.T) {
	const day = 24 * 60
	sysctl := link.Sysctl{"net.ipv4.vs.lblc_expiration": "600"}
	for _, c := range []struct {
		scheduler string
		sysctl    link.Sysctl
		minutes   []int // between questions
		want      string
	}{
		{"lblc", nil, []int{1, 60, 600}, "AAAA"},
		{"lblc", nil, []int{day - 1, day + 40}, "AAB"},
		// All is looked through in the 30th minute for the first time, and each 30 minutes
		// from then on: an entry of ten minutes is forgotten then, not before.
		{"lblc", sysctl, []int{12, 12}, "AAA"},
		{"lblc", sysctl, []int{29}, "AA"},
		{"lblc", sysctl, []int{30}, "AB"},
		{"lblc", sysctl, []int{25, 10}, "AAA"},
		{"lblc", sysctl, []int{25, 34, 1}, "AAAA"},
		{"lblc", sysctl, []int{25, 35}, "AAB"},
		{"lblcr", sysctl, []int{12, 29, 100}, "AAAA"},
		{"lblcr", nil, []int{day + 40}, "AB"},
	} {
		b := newBench(t, Service{Scheduler: c.scheduler, Dests: dests(t, "9 9")}, c.sysctl)
		got := []int{b.take(1, 1)}
		for _, m := range c.minutes {
			b.Now += world.Instant(m) * 60 * world.Second
			got = append(got, b.ask(1, 1))
		}
		if g := letters(got); g != c.want {
			t.Errorf("%s after %v minutes: %s, want %s", c.scheduler, c.minutes, g, c.want)
		}
	}
}

// TestReplicatedShrinks lets a set of two servers rest for a day: it loses the busier one.
func TestReplicatedShrinks(t *testing.T) {
	b := newBench(t, Service{Scheduler: "lblcr", Dests: dests(t, "1 1")}, nil)
	for range 4 {
		b.take(1, 1) // AABB
	}
	b.count(1).Active = 3
	for range 3 { // used each half a day, so that it is not forgotten as a whole
		b.Now += 12 * 60 * 60 * world.Second
		b.ask(1, 1)
	}
	b.count(1).Active = 0 // B would be the lighter one, but it is no longer in the set
	b.count(0).Active = 1
	if got := b.ask(1, 1); got != 0 {
		t.Errorf("server %d, want the one that stayed", got)
	}
}

// TestLocalMany fills the table of lblc: with 24576 destinations no more are taken, and each
// minute some that were not used for six go.
func TestLocalMany(t *testing.T) {
	b := newBench(t, Service{Scheduler: "lblc", Dests: dests(t, "9")}, nil)
	l := b.table.services[0].scheduler.(*locality)
	entries := func() int { return l.table.Look(b.State).Len() }
	for i := range uint32(localMost + 100) {
		b.askTo(packet.V4(i), packet.V4(1), 1)
	}
	if got := entries(); got != localMost {
		t.Fatalf("%d entries, want %d", got, localMost)
	}
	for _, c := range []struct{ minutes, least, most int }{
		{5, localMost, localMost},
		// All are old: the first tick wants 8192 gone, and stops behind a whole place.
		{1, localMost - localMany/2 - 24, localMost - localMany/2},
		{1, localMany - 24, localMany},
		{1, localMany - 24, localMany},
	} {
		b.Now += world.Instant(c.minutes) * localTick
		b.ask(1, 1) // 10.0.0.1 is not one of them
		if got := entries() - 1; got < c.least-1 || got > c.most {
			t.Errorf("%d entries after %d minutes more, want %d to %d", got, c.minutes, c.least, c.most)
		}
	}
}

// TestLocalLongTime asks again after a century, which must not take one.
func TestLocalLongTime(t *testing.T) {
	sysctl := link.Sysctl{"net.ipv4.vs.lblc_expiration": "2147483647"}
	b := newBench(t, Service{Scheduler: "lblc", Dests: dests(t, "9 9")}, sysctl)
	for i := range uint32(1000) {
		b.askTo(packet.V4(i), packet.V4(1), 1)
	}
	b.Now += 100 * 365 * 24 * 60 * localTick
	b.ask(1, 1)
	if got := b.table.services[0].scheduler.(*locality).table.Look(b.State).Len(); got != 1 {
		t.Errorf("%d entries, want the new one alone", got)
	}
}

// TestQuotedAnswer schedules for a quoted answer of the service: sh and mh take the client's
// end of it, dh and lblc the destination as it stands.
func TestQuotedAnswer(t *testing.T) {
	for name, turned := range map[string]bool{"sh": true, "mh": true, "dh": false} {
		b := newBench(t, Service{Scheduler: name, Flags: withPort,
			Dests: dests(t, strings.Repeat("1 ", 16))}, nil)
		same, asked := 0, uint32(200)
		for client := range asked {
			h := Header{Family: trace.IPv4, Proto: packet.TCP, Src: packet.V4(0x0a000001),
				Dst: packet.V4(client), L4: []byte{0, 80, 3, 232}, Quoted: true, Inverse: true}
			if b.table.choose(&b.World, b.table.services[0], &h) == b.ask(client, 1000) {
				same++
			}
		}
		if got := same == int(asked); got != turned {
			t.Errorf("%s: %d of %d quoted answers go where the client's packet went", name, same, asked)
		}
	}
}

// manyServers are 1,000 servers, of which some are closed.
func manyServers(tb testing.TB) []Dest {
	return dests(tb, strings.Repeat("3:4:1 0 1! 2:1:9 7:3:5 ", 200))
}

// TestNoAllocation holds that a decision allocates nothing, neither in a host's first memory
// nor in a fork of it, once what it depends on was there before.
func TestNoAllocation(t *testing.T) {
	for name := range schedulers {
		b := newBench(t, Service{Scheduler: name, Flags: fallback, Dests: manyServers(t)}, nil)
		b.Dice.Rand = rand.New(rand.NewPCG(1, 2))
		for range 2 {
			if n := testing.AllocsPerRun(20, func() { b.ask(77, 1) }); n != 0 {
				t.Errorf("%s: %v allocations a decision", name, n)
			}
			b.State = b.State.Fork()
		}
	}
}

func BenchmarkSchedule(b *testing.B) {
	for _, name := range slices.Sorted(maps.Keys(schedulers)) {
		b.Run(name, func(b *testing.B) {
			bench := newBench(b, Service{Scheduler: name, Dests: manyServers(b)}, nil)
			bench.Dice.Rand = rand.New(rand.NewPCG(1, 2))
			b.ReportAllocs()
			for i := range b.N {
				bench.ask(uint32(i), 1)
			}
		})
	}
}
