package compare

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/internal/kernel/gen"
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

// number is an environment variable's value, or def.
func number(t *testing.T, name string, def uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return def
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// maxTold bounds the disagreements that are printed in full.
const maxTold = 40

// questions is how many packets a scenario gets.
const questions = 40

// options are what is drawn for the scenario of a seed.
func options(seed uint64) gen.Options {
	return gen.Options{Backend: kernel.Backend(1 + seed%2), Random: seed%4 > 1,
		Focus: gen.Focus(seed)}
}

// stopped is what a test prints of the first disagreement with HOOKPATH_PACKETS.
const stopped = "HOOKPATH_STOPPED"

// enoughFor tells after the scenario of a seed that most packets were asked, zero for no bound.
// Then the first disagreement ends the test, and is told.
func (t *Tally) enoughFor(tb testing.TB, seed, most uint64) bool {
	tb.Helper()
	if most > 0 && len(t.Diffs) > 0 {
		fmt.Println(stopped, seed, "after", t.Packets, "packets")
		tb.FailNow()
	}
	return most > 0 && uint64(t.Packets) >= most
}

// TestAgreement draws scenarios from a fresh seed and holds the engine against the
// kernel. HOOKPATH_SEED repeats a run, HOOKPATH_SEEDS says how many scenarios,
// HOOKPATH_KEEP=DIR keeps what disagreed. HOOKPATH_PACKETS=N stops after so many packets,
// or at the first disagreement. With HOOKPATH_SOAK each disagreement fails, and all that
// cover.go lists must be covered; up to as many scenarios again make up for what is short.
func TestAgreement(t *testing.T) {
	needRoot(t)
	seed := number(t, "HOOKPATH_SEED", uint64(rand.Uint32()))
	n := number(t, "HOOKPATH_SEEDS", number(t, "HOOKPATH_SOAK", 60))
	most := number(t, "HOOKPATH_PACKETS", 0)
	fmt.Printf("HOOKPATH_SEED=%d HOOKPATH_SEEDS=%d\n", seed, n)
	tally := Tally{Keep: os.Getenv("HOOKPATH_KEEP")}
	ask := func(s uint64) {
		if err := tally.Run(t.Context(), s, options(s), questions); err != nil {
			t.Error(err)
		}
	}
	for s := seed; s < seed+n; s++ {
		ask(s)
		if tally.enoughFor(t, s, most) {
			break
		}
	}
	if os.Getenv("HOOKPATH_SOAK") != "" {
		for s := seed + n; s < seed+2*n && len(tally.Cover.Short(enough)) > 0; s++ {
			if tally.Cover.helps(gen.Focus(s), enough) {
				ask(s)
			}
		}
	}
	judge(t, &tally)
}

// enough is how often a soak wants everything to match, and not to.
const enough = 500

// judge tells what was found, and fails where it is not good enough.
func judge(t *testing.T, tally *Tally) {
	t.Helper()
	say := t.Logf
	if os.Getenv("HOOKPATH_SOAK") != "" {
		say = t.Errorf
		for _, name := range tally.Cover.Short(enough) {
			t.Errorf("not covered: %s", name)
		}
	}
	for i, d := range tally.Diffs {
		if i < maxTold {
			say("%v", d)
		}
	}
	if len(tally.Diffs) > 0 {
		say("%d disagreements", len(tally.Diffs))
	}
	report(t, tally)
	bound(t, tally, spare)
}

// spare is how many disagreements a short run of thousands of packets may have, which is
// with a seed that nobody tried before: it tells them and goes on.
const spare = 1

// bound fails a run with more disagreements than that; with HOOKPATH_SOAK each one fails.
func bound(t *testing.T, tally *Tally, spare int) {
	t.Helper()
	if os.Getenv("HOOKPATH_SOAK") != "" {
		spare = 0
	}
	if n := tally.Packets - tally.Agreed; n > spare {
		t.Errorf("%d packets went another way than in the kernel", n)
	}
}

func report(t *testing.T, tally *Tally) {
	t.Helper()
	var b strings.Builder
	tally.Cover.Print(&b)
	t.Logf("cover (matched, not matched):\n%s", b.String())
	for _, key := range slices.Sorted(maps.Keys(tally.Unsupported)) {
		t.Logf("unsupported %d times: %s", tally.Unsupported[key], key)
	}
	t.Logf("%d packets followed the kernel's dice", tally.Followed)
	t.Logf("%d scenarios, %d packets, %d packets agreed with the kernel", tally.Scenarios,
		tally.Packets, tally.Agreed)
}
