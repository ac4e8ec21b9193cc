package gen

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

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
	var cover Cover
	var asked, steps, delivered, out, errs, bent, hit int
	var opening, asking time.Duration
	for seed := range uint64(seeds(20)) {
		g := New(seed, Options{Backend: kernel.Backend(1 + seed%2)})
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
			cover.Add(sc.Hosts[0].Files["iptables-save"], a.Steps)
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
	var b strings.Builder
	cover.Print(&b)
	t.Logf("cover:\n%s", b.String())
	t.Logf("never matched: %v; always matched: %v", cover.Missing(0), cover.Missing(1))
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
