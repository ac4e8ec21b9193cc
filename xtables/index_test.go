package xtables_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// TestIndexAgrees holds the index of long chains against its slow twin, which asks
// every rule: the same rules match in the same order, also those that count.
func TestIndexAgrees(t *testing.T) {
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 7))
		save := longRules(rng)
		fast, slow := indexHost(t, save, false), indexHost(t, save, true)
		fs, ss := fast.Memory(), slow.Memory()
		for n := range 60 {
			b := indexPacket(rng)
			got, want := "", ""
			got, fs = indexWalk(t, fast, fs, b)
			want, ss = indexWalk(t, slow, ss, b)
			if got != want {
				t.Fatalf("seed %d, packet %d:\n got %s\nwant %s\n%s", seed, n, got, want, save)
			}
		}
	}
}

// TestIndexSeesOrder: a rule behind a match is not asked, one before it is.
func TestIndexSeesOrder(t *testing.T) {
	save := "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
	for i := range 30 {
		save += fmt.Sprintf("-A FORWARD -d 10.0.1.%d/32 -j MARK --set-xmark %#x/0xffffffff\n", i, i)
	}
	save += "-A FORWARD -j DROP\n-A FORWARD -d 10.0.1.7/32 -j ACCEPT\nCOMMIT\n"
	h := indexHost(t, save, false)
	s, err := packet.ParseSentence("tcp 10.0.0.9:5 to 10.0.1.7:80 in eth0")
	if err != nil {
		t.Fatal(err)
	}
	got, _ := indexWalk(t, h, h.Memory(), s)
	if want := "FORWARD 8, FORWARD 31, dropped"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// longRules draws a filter table whose chains are long enough for an index, over few
// values, so that much matches; some rules change what later ones see.
func longRules(rng *rand.Rand) string {
	var b strings.Builder
	b.WriteString("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n")
	chains := []string{"FORWARD", "A", "B", "C"}
	for _, c := range chains[1:] {
		fmt.Fprintf(&b, ":%s - [0:0]\n", c)
	}
	for i, c := range chains {
		for range 10 + rng.IntN(60) {
			fmt.Fprintf(&b, "-A %s%s%s\n", c, drawTests(rng), drawTarget(rng, chains[i+1:]))
		}
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

func drawTests(rng *rand.Rand) string {
	all := []string{
		fmt.Sprintf(" -s 10.0.0.%d/32", rng.IntN(6)), fmt.Sprintf(" ! -s 10.0.0.%d/32", rng.IntN(6)),
		fmt.Sprintf(" -d 10.0.1.%d/32", rng.IntN(6)), fmt.Sprintf(" -d 10.0.1.%d/30", 4*rng.IntN(2)),
		" -i eth0", " -o eth1", " ! -i eth0",
		fmt.Sprintf(" -p tcp -m tcp --dport %d", 80+rng.IntN(4)),
		fmt.Sprintf(" -p tcp -m tcp --sport %d:%d", 1000+rng.IntN(3), 1003),
		fmt.Sprintf(" -p udp -m udp --dport %d", 80+rng.IntN(4)),
		fmt.Sprintf(" -m mark --mark %#x", rng.IntN(3)),
		" -m limit --limit 1/day --limit-burst 3",
		" -m statistic --mode nth --every 3 --packet 0",
		fmt.Sprintf(" -m mac --mac-source 02:00:00:00:00:0%d", rng.IntN(3)),
	}
	var text string
	for range rng.IntN(3) {
		w := all[rng.IntN(len(all))]
		word := strings.Fields(strings.TrimPrefix(strings.TrimSpace(w), "! "))[0]
		if !strings.Contains(text, word+" ") || word == "-m" && !strings.Contains(text, w) {
			text += w
		}
	}
	return text
}

func drawTarget(rng *rand.Rand, below []string) string {
	if len(below) > 0 && rng.IntN(4) == 0 {
		return [...]string{" -j ", " -g "}[rng.IntN(2)] + below[rng.IntN(len(below))]
	}
	all := []string{" -j ACCEPT", " -j DROP", " -j RETURN", "", "", ""}
	if n := rng.IntN(len(all) + 6); n < len(all) {
		return all[n]
	}
	return fmt.Sprintf(" -j MARK --set-xmark %#x/0xffffffff", rng.IntN(3))
}

func indexHost(t *testing.T, save string, linear bool) *walk.Host {
	t.Helper()
	d := &snapshot.Dir{Name: "r", Files: map[string][]byte{"iptables-save": []byte(save)}}
	cfg, err := d.Config(snapshot.Options{Devs: []string{"eth0", "eth1"}})
	if err != nil {
		t.Fatalf("%v\n%s", err, save)
	}
	h, _, err := walk.Build(cfg)
	if err != nil {
		t.Fatalf("%v\n%s", err, save)
	}
	for _, p := range h.Programs() {
		p.Linear = linear
	}
	return h
}

func indexPacket(rng *rand.Rand) *packet.Sentence {
	s := &packet.Sentence{Proto: []uint8{packet.TCP, packet.UDP, packet.ICMP}[rng.IntN(3)],
		Src: packet.MustParseAddr(fmt.Sprintf("10.0.0.%d", rng.IntN(8))),
		Dst: packet.MustParseAddr(fmt.Sprintf("10.0.1.%d", rng.IntN(8))),
		In:  "eth0", SPort: uint16(999 + rng.IntN(6)), DPort: uint16(79 + rng.IntN(6)),
		MACSrc: packet.MAC{2, 0, 0, 0, 0, byte(rng.IntN(4))},
		Given:  packet.GivenSPort | packet.GivenDPort}
	return s
}

// indexWalk takes one packet through a host and says which rules matched.
func indexWalk(t *testing.T, h *walk.Host, st *world.State, s *packet.Sentence) (string, *world.State) {
	t.Helper()
	q := *s
	q.Complete()
	ip, err := q.Packet()
	if err != nil {
		t.Fatal(err)
	}
	p, _ := packet.FromIP(ip)
	in := h.Links.ByName("eth0")
	p.PushLink(in.MAC, s.MACSrc)
	w := h.NewWorld(st.Fork())
	w.Dice = &world.Dice{}
	k := h.NewWalk(w, &trace.Trace{})
	h.Receive(k, in.Index, slices.Clone(p.Frame()))
	if k.Err != nil {
		t.Fatal(k.Err)
	}
	var out []string
	for _, e := range k.Trace.Events {
		if r, ok := e.(*trace.Rule); ok {
			p := h.Program(r.Ref.Table)
			out = append(out, fmt.Sprintf("%s %d", p.ChainName(r.Ref.Chain), r.Ref.Rule))
		}
	}
	for _, o := range k.Trace.Outcomes {
		out = append(out, o.Result.String())
	}
	return strings.Join(out, ", "), w.State
}
