// Package gen draws random scenarios for package kernel: hosts with rules in
// all five tables, routes, policy and sockets, and packets bent to fit them.
//
// It stands beside the packet's way and invents both the way and the packet. A
// scenario is drawn at once; its questions are drawn one after the other, since
// a reply is built from the frame that came out. Everything follows from the
// seed and from the kernel's answers.
package gen

import (
	"fmt"
	"math/rand/v2"

	"github.com/hookpath/hookpath/internal/kernel"
)

// Options says what may be drawn. The zero Options draws only what the kernel
// answers the same way each time.
type Options struct {
	// Random adds dice: statistic --mode random, --random and --random-fully.
	Random bool
	// Focus names what the scenario is about, see Focus: rules for it stand at the
	// head of chains, and most packets are bent to them.
	Focus []string
	// Except are names of matches and targets that are never drawn.
	Except []string
	// Backend is what the rules are loaded with. The zero Backend is legacy.
	Backend kernel.Backend
	// Bridge gives some hosts a bridge of two ports in place of a network card.
	Bridge bool
	// Rules is about how many rules a host has; 0 means 40.
	Rules int
}

// Gen draws one scenario and its questions.
type Gen struct {
	*rand.Rand
	Options
	host  *host
	talks []*talk
	last  pending
	asked int
}

// New draws from a seed.
func New(seed uint64, o Options) *Gen {
	if o.Rules == 0 {
		o.Rules = 40
	}
	if o.Backend == kernel.Auto {
		o.Backend = kernel.Legacy
	}
	return &Gen{Rand: rand.New(rand.NewPCG(seed, 0x686f6f6b)), Options: o}
}

// Scenario draws the host. Call it once, before Next.
func (g *Gen) Scenario() kernel.Scenario {
	g.host = g.drawHost()
	return kernel.Scenario{Backend: g.Backend,
		Hosts: []kernel.Host{{Name: "r", Files: g.host.files()}}}
}

// chance is true in n of 100 cases.
func (g *Gen) chance(n int) bool { return g.IntN(100) < n }

// between draws from low to high, both included.
func (g *Gen) between(low, high int) int { return low + g.IntN(high-low+1) }

// pick draws one of a list.
func pick[T any](g *Gen, list []T) T { return list[g.IntN(len(list))] }

// one draws one of its arguments.
func one[T any](g *Gen, list ...T) T { return pick(g, list) }

// weighted is anything with a weight.
type weighted interface{ weigh() int }

// draw takes one of a list by weight. The weights must not all be zero.
func draw[T weighted](g *Gen, list []T) T {
	total := 0
	for _, e := range list {
		total += e.weigh()
	}
	n := g.IntN(total)
	for _, e := range list {
		if n -= e.weigh(); n < 0 {
			return e
		}
	}
	panic(fmt.Sprintf("weights sum to %d", total))
}
