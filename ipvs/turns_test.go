package ipvs

import (
	"fmt"
	"maps"
	"testing"

	"github.com/hookpath/hookpath/explore"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/world"
)

// TestUnknownTurn: the answers of a service that was asked before are those of one that stands
// anywhere in its round, each as often.
func TestUnknownTurn(t *testing.T) {
	const row = 5
	for _, c := range []struct {
		scheduler, servers string
		round              int
	}{
		{"rr", "1 1 1", 3}, {"rr", "1 0 9", 2}, {"rr", "1 1! 1", 2}, {"rr", "1", 1}, {"rr", "0 0", 1},
		{"wrr", "4 3 2", 9}, {"wrr", "1 1", 2}, {"wrr", "20 10", 3}, {"wrr", "0 3 0", 1}, {"wrr", "7", 1},
		{"wrr", "5 1 1", 7}, {"wrr", "0", 1},
	} {
		s := Service{Scheduler: c.scheduler, Dests: dests(t, c.servers)}
		want := map[string]float64{}
		b := newBench(t, s, nil)
		for range 2 * c.round { // what the adding left behind is over
			b.ask(1, 1)
		}
		for range c.round {
			from := b.State
			b.State = from.Fork()
			want[letters(asked(b, row))] += 1 / float64(c.round)
			b.State = from
			b.ask(1, 1)
		}
		s.Used = true
		if got := shares(t, s, row); !near(got, want) {
			t.Errorf("%s %q: %v, want %v", c.scheduler, c.servers, got, want)
		}
	}
}

func asked(b *bench, n int) []int {
	var out []int
	for range n {
		out = append(out, b.ask(1, 1))
	}
	return out
}

// shares are the answers of a row of questions with their probability, by all dice.
func shares(t *testing.T, s Service, row int) map[string]float64 {
	t.Helper()
	branches, _ := explore.All(func(dice *world.Dice) string {
		b := newBench(t, s, link.Sysctl{})
		b.Dice = dice
		return letters(asked(b, row))
	}, func(a, b string) bool { return a == b }, explore.Options{})
	out := map[string]float64{}
	for _, b := range branches {
		out[b.Result] += b.Prob
	}
	return out
}

func near(a, b map[string]float64) bool {
	round := func(m map[string]float64) map[string]string {
		out := map[string]string{}
		for k, v := range m {
			out[k] = fmt.Sprintf("%.9f", v)
		}
		return out
	}
	return maps.Equal(round(a), round(b))
}

// TestUnknownPlace: what a destination went to before is not known; from then on it is.
func TestUnknownPlace(t *testing.T) {
	for _, scheduler := range []string{"lblc", "lblcr"} {
		got := shares(t, Service{Scheduler: scheduler, Dests: dests(t, "1 2 0"), Used: true}, 3)
		if want := map[string]float64{"AAA": 0.5, "BBB": 0.5}; !near(got, want) {
			t.Errorf("%s: %v, want %v", scheduler, got, want)
		}
	}
}

// TestLongRound: a round that is too long to be followed is asked by weight.
func TestLongRound(t *testing.T) {
	got := shares(t, Service{Scheduler: "wrr", Dests: dests(t, "40000 10001"), Used: true}, 1)
	if want := map[string]float64{"A": 40000.0 / 50001, "B": 10001.0 / 50001}; !near(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
