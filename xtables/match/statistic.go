package match

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// statistic matches by chance, or every nth packet that asks the rule.
//
// Kernel: net/netfilter/xt_statistic.c, statistic_mt.
type statistic struct {
	Mode          xtables.Enum
	Probability   probability
	Every, Packet number
	NotP, NotN    bool
}

var statisticModes = []string{"random", "nth"}

func newStatistic() xtables.Match {
	return &statistic{Mode: xtables.Enum{Words: statisticModes}, Every: number{Min: 1}}
}

// Options implements xtables.Match.
func (m *statistic) Options(s *xtables.Spec) {
	s.Var("mode", &m.Mode).Required()
	s.Var("probability", &m.Probability).Not(&m.NotP)
	s.Var("every", &m.Every).Not(&m.NotN).Needs("packet")
	s.Var("packet", &m.Packet).Needs("every")
	s.OneOf("probability", "every")
	s.Check(m.check)
}

func (m *statistic) check(*xtables.Context) error {
	switch {
	case m.Mode.N == 0 && !m.Probability.given:
		return fmt.Errorf("mode random needs --probability")
	case m.Mode.N == 1 && !m.Every.given:
		return fmt.Errorf("mode nth needs --every")
	case m.Mode.N == 1 && m.Packet.n >= m.Every.n:
		return fmt.Errorf("--packet must be from 0 to %d", m.Every.n-1)
	}
	return nil
}

// Pred implements xtables.Match.
func (m *statistic) Pred(b *xtables.Build) field.Pred {
	if m.Mode.N == 1 {
		return m.nth(b)
	}
	const whole = 1 << 31
	p := uint64(m.Probability.n)
	if p == 0 || p == whole {
		return always(p == 0 == m.NotP)
	}
	weights := []uint64{p, whole - p}
	rule, place := uint64(b.Number), uint64(placeOf(b, m))
	return xtables.Call(func(e *xtables.Env) bool {
		c := world.Choice{Key: world.Key{What: world.ChoiceStatistic, A: rule,
			B: uint64(e.Packet.SKB)<<16 | uint64(e.Hook)<<8 | place}, N: 2, Weights: weights,
			Values: hitOrMiss, Anew: true}
		return (e.World.Dice.Take(c) == 0) != m.NotP
	})
}

func hitOrMiss(i int) string { return [...]string{"hit", "miss"}[i] }

// placeOf is the number of a match among those of its rule.
func placeOf(b *xtables.Build, m xtables.Match) int {
	for i := range b.Rule.Matches {
		if b.Rule.Matches[i].M == m {
			return i
		}
	}
	return 0
}

// nth counts the packets that ask; the rule's counter begins so that packet number
// --packet is the first to match.
func (m *statistic) nth(b *xtables.Build) field.Pred {
	last := uint32(m.Every.n - 1)
	slot := xtables.Slot(b, last-uint32(m.Packet.n))
	assume(b, "-m statistic --mode nth counts as just loaded")
	return xtables.Call(func(e *xtables.Env) bool {
		n := &slot.In(e.World.State).V
		if *n == last {
			*n = 0
		} else {
			*n++
		}
		return (*n == 0) != m.NotN
	})
}

// probability is a number from 0 to 1, kept in parts of 2^31.
type probability struct {
	n     uint32
	given bool
}

// Parse implements xtables.Value.
//
// iptables: extensions/libxt_statistic.c, XTTYPE_DOUBLE and lround.
func (v *probability) Parse(a *xtables.Args) error {
	f, err := strconv.ParseFloat(a.Word, 64)
	if err != nil || strings.ContainsAny(a.Word, "_nN") || f < 0 || f > 1 {
		return fmt.Errorf("%q is not a probability from 0 to 1", a.Word)
	}
	v.n, v.given = uint32(math.Round(f*(1<<31))), true
	return nil
}

// Append implements xtables.Value.
func (v *probability) Append(b []byte, _ trace.Family) []byte {
	return strconv.AppendFloat(b, float64(v.n)/(1<<31), 'f', 11, 64)
}

// Unset implements xtables.Value.
func (v *probability) Unset() bool { return !v.given }
