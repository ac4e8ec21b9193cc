package compare

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// faultPackets is within how many packets a fault must be found.
const faultPackets = 5000

// root is the module's folder, seen from this package.
const root = "../../.."

// fault is a line of the engine made wrong: old stands there once.
type fault struct {
	file, old, new string
	why            string // what the engine then does
}

func faults() []fault {
	return []fault{
		{"walk/forward.go", "k.p.TTL() <= 1", "k.p.TTL() <= 0", "forwards a TTL of 1"},
		{"walk/forward.go", "k.p.SetTTL(k.p.TTL() - 1)", "k.p.SetTTL(k.p.TTL())", "keeps the TTL"},
		{"walk/forward.go", "k.sendICMP(11, 0, 0)", "k.sendICMP(11, 1, 0)", "wrong ICMP code"},
		{"walk/receive.go", "p.Trim(total)", "_ = total", "keeps padding"},
		{"walk/output.go", "p.TOS() == tos && p.Mark == mark", "p.TOS() == tos",
			"no rerouting by mark"},
		{"walk/output.go", "v != trace.Accept || f == nil", "v != trace.Accept || f == nil || true",
			"no rerouting after DNAT in OUTPUT"},
		{"walk/input.go", "k.nested(func() { k.sendICMP(3, 3, 0) })",
			"k.nested(func() { k.sendICMP(3, 2, 0) })", "wrong code for a closed port"},
		{"walk/input.go", "l4[13]&tcpRST == 0", "l4[13]&tcpRST != 0", "resets answer resets"},
		{"walk/postrouting.go", "hop := d.Nexthop(k.p.Dst())", "hop := k.p.Dst()",
			"asks for the destination instead of the gateway"},
		{"walk/hooks.go", `{-150, "mangle", nil, true, (*Walk).mangleOutput}`,
			`{-150, "mangle", nil, true, (*Walk).table}`, "no rerouting after mangle"},

		{"conntrack/tcp.go", "next != TCPSynSent && !v.t.loose", "next != TCPSynSent && false",
			"picks connections up against tcp_loose"},
		{"conntrack/tcp.go", "v.f.Status |= Assured", "v.f.Status |= 0", "never assured"},
		{"conntrack/tcp.go", "if m.s.has(rstFlag) {", "if false {",
			"a reset leaves an unanswered connection"},
		{"conntrack/tcp_window.go", "if !before(e.seq, e.sender.MaxEnd+1) {", "if false {",
			"takes segments beyond the window"},
		{"conntrack/icmp.go", "|| v.t.Ref(v.w, id).Tuples[dir].Dst != v.p.Dst()", "",
			"relates an error to whatever it quotes"},
		{"conntrack/icmp.go", "v.p.CT.Info = packet.RelatedReply", "v.p.CT.Info = packet.Related",
			"wrong direction of an error"},

		{"nat/range.go", "h == trace.Postrouting || h == trace.Input", "h == trace.Postrouting",
			"INPUT translates destinations"},
		{"nat/range.go", "!less(a, r.MinAddr) && !less(r.MaxAddr, a)", "!less(a, r.MinAddr)",
			"no upper bound of a range"},
		{"nat/hook.go", "if related && p.Protocol() == packet.ICMP {", "if false {",
			"errors keep what they quote"},
		{"nat/target.go", "dst = addrs[0].Local", "dst = addrs[len(addrs)-1].Local",
			"REDIRECT to the last address"},
		{"nat/target.go", "mask := ^(lo[i] ^ hi[i])", "mask := byte(0)", "NETMAP changes nothing"},

		{"route/lookup.go", "uint32(res.a.bits) <= r.SuppressPrefix.N",
			"uint32(res.a.bits) < r.SuppressPrefix.N", "suppress_prefixlength off by one"},
		{"route/lookup.go", "l.Group == r.SuppressGroup.N", "l.Group != r.SuppressGroup.N",
			"suppress_ifgroup turned round"},
		{"route/lookup.go", "i = r.target - 1", "i = r.target", "goto one rule too far"},
		{"route/lookup.go", "return result{}, EACCES", "return result{}, EINVAL",
			"prohibit is a blackhole"},
		{"route/rule.go", "return ok != r.Not", "return ok", "no ip rule not"},
		{"route/rule.go", "add(field.SrcPort, r.SPort.set())", "add(field.DstPort, r.SPort.set())",
			"sport looks at the destination port"},
		{"route/rule.go", "field.Between(uint64(r.UID.Lo), uint64(r.UID.Hi))",
			"field.Num(uint64(r.UID.Lo))", "uidrange of one"},
		{"route/input.go", "d.ICMP, d.ICMPCode = true, 13", "d.ICMP, d.ICMPCode = true, 10",
			"wrong code of prohibit"},
		{"route/source.go", "q.in.Conf.RPFilter == 1", "q.in.Conf.RPFilter == 2",
			"strict and loose rp_filter changed places"},
		{"route/source.go", "fl.Mark = a.Mark", "fl.Mark = 0", "no src_valid_mark"},

		{"link/source.go", "case !s.dst.IsAny() && a.Holds(s.dst):", "case false:",
			"MASQUERADE takes the first address"},
		{"link/source.go", "case min(a.Scope, localnet) > s.scope:",
			"case min(a.Scope, localnet) > s.scope && false:",
			"addresses of every scope"},
		{"socket/lookup.go", "return s.Dev == 0 || s.Dev == in", "return true",
			"sockets hear every device"},
		{"packet/icmp/icmp.go", "tos&0x1e | internetControl", "tos&0x0e | internetControl",
			"an error loses a bit of TOS"},
		{"packet/icmp/icmp.go", "const maxError = 576", "const maxError = 548", "short errors"},

		{"ipset/kadt.go", "return binary.BigEndian.Uint16(l4[2:])",
			"return binary.BigEndian.Uint16(l4)", "destination ports are source ports"},
		{"ipset/kadt.go", "id, ip = field.Src, a.p.Src()", "id, ip = field.Src, a.p.Dst()",
			"sources are destinations"},

		{"xtables/table.go", "r.e.stack = append(r.e.stack, r.at)", "_ = r.at", "jump is goto"},
		{"xtables/table.go", "add(NotOut, field.Out, b.Devs(t.Out))",
			"add(NotOut, field.In, b.Devs(t.Out))", "-o looks at -i"},
		{"xtables/match/simple.go", "field.Between(0, m.Less.n-1)", "field.Between(0, m.Less.n)",
			"--ttl-lt takes its own number"},
		{"xtables/match/statistic.go", "if *n == last {", "if *n > last {", "every nth plus one"},
		{"xtables/match/limit.go", "credit < c.cost {", "credit <= c.cost {",
			"the bucket's last token stays"},
		{"xtables/match/connlimit.go", "uint64(n) > m.Limit.n == m.Above",
			"uint64(n) >= m.Limit.n == m.Above", "connlimit one too early"},
		{"xtables/match/tcp.go", "return result(!not)", "return result(not)",
			"--tcp-option turned round"},
		{"xtables/match/recent.go", "hits >= u.m.Hits.N", "hits > u.m.Hits.N",
			"--hitcount one too late"},
		{"xtables/target/ttl.go", "max(old-int(t.Dec.N), 0)", "max(old-int(t.Dec.N)-1, 0)",
			"--ttl-dec one too much"},
		{"xtables/target/connmark.go", "t.Shift.of(e.Packet.Mark&nf)", "t.Shift.of(e.Packet.Mark)",
			"--nfmask of --save-mark unseen"},
		{"xtables/target/tcpmss.go", "if be16(old[:]) <= mss {", "if false {", "raises the MSS"},
	}
}

// hunter is a test that finds faults.
type hunter struct {
	test   string
	faults []fault
	// clean are the disagreements of a seed's scenario without a fault.
	clean func(t *testing.T, seed uint64) []string
	// again is how often a find is repeated, with the fault and without.
	again int
}

func hunters() []hunter {
	return []hunter{{"TestAgreement", faults(), cleanHost, 3}, {"TestIPVS", balanceFaults(), cleanDirector, 1}}
}

func cleanHost(t *testing.T, seed uint64) []string {
	t.Helper()
	var clean Tally
	if err := clean.Run(t.Context(), seed, options(seed), questions); err != nil {
		t.Fatal(err)
	}
	return clean.Diffs
}

func cleanDirector(t *testing.T, seed uint64) []string {
	t.Helper()
	var clean Tally
	balance(t, machine(t), &clean, seed)
	return clean.Diffs
}

// TestFaultsFit: the tables say what stands in the engine.
func TestFaultsFit(t *testing.T) {
	for _, h := range hunters() {
		if len(h.faults) < 40 {
			t.Errorf("%s: %d faults, fewer than 40", h.test, len(h.faults))
		}
		for _, f := range h.faults {
			text, err := os.ReadFile(filepath.Join(root, f.file))
			if err != nil {
				t.Error(err)
				continue
			}
			if n := strings.Count(string(text), f.old); n != 1 {
				t.Errorf("%s: %q stands there %d times, not once", f.file, f.old, n)
			}
		}
	}
}

// quick are faults that are found within some 200 packets. A short run plants one of
// these; the others take minutes each.
func quick() []string {
	return []string{"INPUT translates destinations", "wrong code for a closed port", "keeps the TTL"}
}

// TestFaults plants faults in the engine and wants each to be found: HOOKPATH_FAULTS of each
// table, drawn by HOOKPATH_SEED; with HOOKPATH_SOAK all of them; else a quick one of the first.
func TestFaults(t *testing.T) {
	needRoot(t)
	n := number(t, "HOOKPATH_FAULTS", 0)
	seed := number(t, "HOOKPATH_SEED", uint64(rand.Uint32()))
	fmt.Printf("HOOKPATH_SEED=%d HOOKPATH_FAULTS=%d\n", seed, n)
	for i, h := range hunters() {
		switch {
		case os.Getenv("HOOKPATH_SOAK") != "":
			n = uint64(len(h.faults))
		case n == 0 && i > 0:
			continue
		case n == 0:
			h.faults = slices.DeleteFunc(h.faults, func(f fault) bool { return !slices.Contains(quick(), f.why) })
			h.some(t, seed, 1)
			continue
		}
		h.some(t, seed, min(n, uint64(len(h.faults))))
	}
}

// some plants n of the faults.
func (h *hunter) some(t *testing.T, seed, n uint64) {
	order := rand.New(rand.NewPCG(seed, 0x6661756c)).Perm(len(h.faults))
	for _, i := range order[:n] {
		f := h.faults[i]
		t.Run(h.test+"/"+strings.ReplaceAll(f.file+": "+f.why, "/", "."), func(t *testing.T) {
			f.hunt(t, h, seed)
		})
	}
}

// hunt runs the test with the fault until it is found. What disagrees without the fault too, or
// not each time, finds nothing.
func (f *fault) hunt(t *testing.T, h *hunter, seed uint64) {
	t.Helper()
	bin := f.build(t)
	packets := 0
	for packets < faultPackets {
		at, n, ok := f.run(t, h, bin, "HOOKPATH_SEEDS=1000000", seed, faultPackets-packets)
		packets += n
		if !ok {
			break
		}
		if f.sure(t, h, bin, at) {
			t.Logf("found after %d packets", packets)
			return
		}
		seed = at + 1
	}
	t.Errorf("%s: %q for %q is not found within %d packets", f.file, f.new, f.old, packets)
}

// sure repeats a scenario with the fault and without.
func (f *fault) sure(t *testing.T, h *hunter, bin string, seed uint64) bool {
	t.Helper()
	for range h.again {
		clean := h.clean(t, seed)
		_, _, again := f.run(t, h, bin, "HOOKPATH_SEEDS=1", seed, faultPackets)
		if len(clean) > 0 || !again {
			return false
		}
	}
	return true
}

// build compiles this package's test with the fault in the place of its file.
func (f *fault) build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file, err := filepath.Abs(filepath.Join(root, f.file))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(dir, "wrong.go")
	write := func(name string, b []byte) {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(wrong, []byte(strings.Replace(string(text), f.old, f.new, 1)))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: wrong}})
	if err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(dir, "overlay.json"), overlay)
	bin := filepath.Join(dir, "compare.test")
	cmd := exec.CommandContext(t.Context(), "go", "test", "-c", "-vet=off", "-overlay",
		filepath.Join(dir, "overlay.json"), "-o", bin, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

// huntTime bounds one run, so that a fault that goes round for ever ends it.
const huntTime = 15 * time.Minute

// run has the test stop at the first disagreement, and returns its seed and after how many
// packets that was; false for none.
func (f *fault) run(t *testing.T, h *hunter, bin, seeds string, seed uint64, most int) (at uint64,
	n int, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), huntTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "-test.run", "^"+h.test+"$", "-test.v")
	cmd.Env = append(os.Environ(), fmt.Sprint("HOOKPATH_SEED=", seed), seeds,
		fmt.Sprint("HOOKPATH_PACKETS=", most), "HOOKPATH_SOAK=", "HOOKPATH_KEEP=")
	out, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if _, rest, cut := strings.Cut(line, stopped); cut {
			_, err := fmt.Sscanf(rest, " %d after %d packets", &at, &n)
			return at, n, err == nil
		}
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return 0, most, false
}
