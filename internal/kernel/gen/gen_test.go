package gen

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hookpath/hookpath/internal/kernel"
)

func needRoot(t testing.TB) {
	t.Helper()
	_, err := os.Stat("/dev/net/tun")
	if os.Geteuid() == 0 && err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root and /dev/net/tun")
	}
	t.Skip("SKIP: needs root and /dev/net/tun")
}

// seeds is how many scenarios to run: HOOKPATH_SEEDS, or n.
func seeds(n int) int {
	if v, err := strconv.Atoi(os.Getenv("HOOKPATH_SEEDS")); err == nil {
		return v
	}
	return n
}

// TestKernelTakesAll: every drawn scenario can be laid out, every question
// asked, and the questions hit the rules.
func TestKernelTakesAll(t *testing.T) {
	needRoot(t)
	var asked, steps, delivered, out, errs, bent, hit int
	var opening, asking time.Duration
	for seed := range uint64(seeds(20)) {
		g := New(seed, Options{Backend: kernel.Backend(1 + seed%2), Bridge: seed%4 > 1,
			Focus: Focus(seed)})
		sc := g.Scenario()
		start := time.Now()
		r, err := kernel.Open(t.Context(), sc)
		opening += time.Since(start)
		if err != nil {
			errs++
			t.Errorf("seed %d: %v", seed, err)
			continue
		}
		start = time.Now()
		for range 35 {
			a, err := r.Ask(g.Next())
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			if a.Err != "" {
				t.Errorf("seed %d question %s: %s", seed, a.ID, a.Err)
			}
			if table, chain, n, ok := g.Bent(); ok {
				bent++
				hit += hits(a.Steps, table, chain, n)
			}
			g.Learn(a)
			asked++
			steps += len(a.Steps)
			delivered += min(1, len(a.Delivered))
			out += min(1, len(a.Out))
		}
		asking += time.Since(start)
		start = time.Now()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		opening += time.Since(start)
	}
	t.Logf("%d questions, %d steps, %d with delivery, %d with frames; layout %v, asking %v",
		asked, steps, delivered, out, opening, asking)
	t.Logf("%d of %d bent questions hit their rule", hit, bent)
}

// hits is 1 if the rule is among the steps.
func hits(steps []kernel.Step, table, chain string, n int) int {
	for _, s := range steps {
		if s.Table == table && s.Chain == chain && s.N == n && s.Kind == "rule" {
			return 1
		}
	}
	return 0
}

// BenchmarkScenario is a scenario of 33 questions from layout to removal.
func BenchmarkScenario(b *testing.B) {
	needRoot(b)
	var seed atomic.Uint64
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g := New(seed.Add(1), Options{})
			r, err := kernel.Open(b.Context(), g.Scenario())
			if err != nil {
				b.Error(err)
				return
			}
			for range 33 {
				a, err := r.Ask(g.Next())
				if err != nil {
					b.Error(err)
				}
				g.Learn(a)
			}
			r.Close()
		}
	})
}

// TestWatch holds what an answer reports against the kernel's own books: the
// steps of all questions are the rules' counters, the flows are a whole dump.
func TestWatch(t *testing.T) {
	needRoot(t)
	for seed := range uint64(seeds(10)) {
		g := New(1000+seed, Options{Backend: kernel.Backend(1 + seed%2), Bridge: seed%4 > 1})
		r, err := kernel.Open(t.Context(), g.Scenario())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		hit := map[string]int{}
		for range 60 {
			a, err := r.Ask(g.Next())
			if err != nil {
				t.Fatal(err)
			}
			g.Learn(a)
			for _, s := range a.Steps {
				if s.Kind == "rule" {
					hit[fmt.Sprint(s.Table, " ", s.Chain, " ", s.N)]++
				}
			}
			if dump, err := r.Dump(); err != nil || !slices.Equal(dump, a.Flows) {
				t.Errorf("seed %d question %s: flows differ (%v):\n%s", seed, a.ID, err,
					cmp.Diff(a.Flows, dump, cmpopts.EquateEmpty()))
			}
		}
		files, err := r.Collect("r")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(counters(files["iptables-save"]), hit); d != "" {
			t.Errorf("seed %d: counters and steps differ:\n%s", seed, d)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

// counters are the packets that each rule of iptables-save -c counted, where
// there were any.
func counters(save string) map[string]int {
	out, n := map[string]int{}, map[string]int{}
	table := ""
	for line := range strings.Lines(save) {
		if strings.HasPrefix(line, "*") {
			table = strings.TrimSpace(line[1:])
		}
		if !strings.HasPrefix(line, "[") {
			continue
		}
		var packets, bytes int
		var chain string
		fmt.Sscanf(line, "[%d:%d] -A %s", &packets, &bytes, &chain)
		key := table + " " + chain
		n[key]++
		if packets > 0 {
			out[fmt.Sprint(key, " ", n[key])] = packets
		}
	}
	return out
}

// TestCollectAgain: what the tools print of a drawn host lays out that host
// again: the engine may be given either.
func TestCollectAgain(t *testing.T) {
	needRoot(t)
	for seed := range uint64(seeds(10)) {
		g := New(2000+seed, Options{Backend: kernel.Backend(1 + seed%2), Bridge: seed%4 > 1})
		first := collect(t, g.Scenario())
		second := collect(t, kernel.Scenario{Hosts: []kernel.Host{{Name: "r", Files: first}}})
		for _, file := range []string{"ip-link.json", "ip-addr.json", "ip-rule.json", "ip-route",
			"ip-nexthop.json", "sysctl", "iptables-save", "ipset-save"} {
			if d := cmp.Diff(plainLines(first[file]), plainLines(second[file])); d != "" {
				t.Errorf("seed %d: %s: first and second reading differ:\n%s", seed, file, d)
			}
		}
	}
}

func collect(t *testing.T, sc kernel.Scenario) map[string]string {
	t.Helper()
	r, err := kernel.Open(t.Context(), sc)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	files, err := r.Collect("r")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// plainLines drops comments, seeds and timers, and the order of a set's members
// and of tables: iptables-legacy-save lists them as they were first used.
func plainLines(text string) []string {
	var out []string
	table := ""
	timers := regexp.MustCompile(`_timer":[0-9.]+`)
	for line := range strings.Lines(text) {
		if line[0] == '#' || strings.Contains(line, "nf_conntrack_count") {
			continue
		}
		if line[0] == '*' {
			table = strings.TrimSpace(line)
		}
		line, _, _ = strings.Cut(timers.ReplaceAllString(line, ""), " initval ")
		out = append(out, table+" "+line)
	}
	if table != "" {
		slices.SortStableFunc(out, func(a, b string) int {
			return strings.Compare(a[:strings.Index(a, " ")], b[:strings.Index(b, " ")])
		})
	} else if len(out) > 0 && strings.HasPrefix(out[0], " create") {
		slices.Sort(out)
	}
	return out
}
