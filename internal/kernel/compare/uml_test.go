package compare

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/internal/kernel/gen"
	"github.com/hookpath/hookpath/internal/kernel/uml"
)

func TestMain(m *testing.M) {
	uml.Main()
	os.Exit(m.Run())
}

// second is a user-mode-linux machine, which boots once for all tests and ends with the
// process.
var second = sync.OnceValues(bootSecond)

func bootSecond() (*uml.Machine, error) { return uml.Boot(context.Background(), uml.Options{}) }

func machine(t *testing.T) *uml.Machine {
	t.Helper()
	return bootable(t, second)
}

// bootable boots a machine, or skips the test where none can be.
func bootable(t *testing.T, boot func() (*uml.Machine, error)) *uml.Machine {
	t.Helper()
	err := uml.Usable()
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip("SKIP:", err)
	}
	m, err := boot()
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// lasting hands out the machine of a long run. It is booted anew after many scenarios: one that had made and
// removed the namespaces of 1,266 hung.
type lasting struct {
	boot func() (*uml.Machine, error)
	used int
	m    *uml.Machine
}

// scenarios is how many a machine is for.
const scenarios = 250

func (l *lasting) next(t *testing.T) *uml.Machine {
	t.Helper()
	if l.m != nil && l.used < scenarios {
		l.used++
		return l.m
	}
	if l.m != nil {
		if err := l.m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	l.m, l.used = bootable(t, l.boot), 1
	return l.m
}

// TestAgreementUML draws scenarios as TestAgreement does, for the second kernel: an older
// one, without nf_tables and conntrack zones.
func TestAgreementUML(t *testing.T) {
	machines := lasting{boot: bootSecond, m: machine(t)}
	seed := number(t, "HOOKPATH_SEED", uint64(rand.Uint32()))
	n := number(t, "HOOKPATH_SEEDS", min(number(t, "HOOKPATH_SOAK", 3), 100))
	fmt.Printf("HOOKPATH_SEED=%d HOOKPATH_SEEDS=%d\n", seed, n)
	tally := Tally{Keep: os.Getenv("HOOKPATH_KEEP"),
		Open: func(ctx context.Context, sc kernel.Scenario) (kernel.Asker, error) {
			return machines.next(t).Open(ctx, sc)
		}}
	for s := seed; s < seed+n; s++ {
		o := gen.Options{Backend: kernel.Legacy, Random: s%4 > 1, Focus: gen.Focus(s),
			Except: []string{"CT"}}
		if err := tally.Run(t.Context(), s, o, questions); err != nil {
			t.Error(err)
		}
	}
	for _, d := range tally.Diffs {
		t.Log(d)
	}
	t.Logf("%d scenarios, %d packets, %d packets agreed with the kernel", tally.Scenarios,
		tally.Packets, tally.Agreed)
	bound(t, &tally, 0)
}
