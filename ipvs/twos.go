package ipvs

import (
	"fmt"

	"github.com/hookpath/hookpath/world"
)

// twos draws two servers, each as often as its weight, and takes the one whose connections
// cost less for its weight.
//
// Kernel: net/netfilter/ipvs/ip_vs_twos.c, ip_vs_twos_schedule.
type twos struct{}

func newTwos(*world.Schema, *service) scheduler { return twos{} }

// mostTwos is the number of servers up to which the draw is one choice among them, with
// their exact shares; with more it is two choices, for each of the servers drawn.
const mostTwos = 512

func (t twos) schedule(c call) int {
	total := 0
	for i := range c.svc.Dests {
		if c.open(i) {
			total += c.server(i).Weight
		}
	}
	switch {
	case total == 0:
		return -1
	case c.w.Dice.Rand != nil:
		// As the kernel rolls: from zero to the sum, both included.
		roll := world.Choice{N: total + 1}
		first, second := t.drawn(&c, c.w.Dice.Take(roll)), t.drawn(&c, c.w.Dice.Take(roll))
		return t.lighter(&c, first, second)
	}
	return t.choose(&c)
}

// drawn is the server that a rolled number stands for.
func (twos) drawn(c *call, roll int) int {
	for i := range c.svc.Dests {
		if !c.open(i) {
			continue
		}
		if roll -= c.server(i).Weight; roll <= 0 {
			return i
		}
	}
	return -1
}

// lighter is the one of two servers that is taken: the first but where the second costs
// less. The products wrap as the kernel's do.
func (twos) lighter(c *call, first, second int) int {
	a, b := int32(c.server(first).Weight), int32(c.server(second).Weight)
	if b*overhead(c.counts(first)) > a*overhead(c.counts(second)) {
		return second
	}
	return first
}

// choose asks the dice for the server.
func (t twos) choose(c *call) int {
	var open []int
	var shares []uint64
	for i := range c.svc.Dests {
		if c.open(i) {
			open, shares = append(open, i), append(shares, uint64(c.server(i).Weight))
		}
	}
	shares[0]++ // of the zero, which is one number more than the weights are
	if len(open) > mostTwos {
		first, second := c.ask(open, shares), c.ask(open, shares)
		return t.lighter(c, first, second)
	}
	taken := make([]uint64, len(open))
	number := make(map[int]int, len(open))
	for k, i := range open {
		number[i] = k
	}
	for k, first := range open {
		for l, second := range open {
			taken[number[t.lighter(c, first, second)]] += shares[k] * shares[l]
		}
	}
	return c.ask(open, taken)
}

// ask lets the dice choose one of some servers.
func (c *call) ask(servers []int, weights []uint64) int {
	dests := c.svc.Dests // not c itself, which would be an allocation
	return servers[c.w.Dice.Take(world.Choice{
		Key:     world.Key{What: world.ChoiceServer, A: uint64(c.svc.number)},
		N:       len(servers),
		Weights: weights,
		Values:  func(i int) string { return dests[servers[i]].String() },
		Anew:    true,
	})]
}

// String is a server as messages name it: "10.0.0.1:80".
func (d *Dest) String() string {
	if d.Addr.Is4() {
		return fmt.Sprintf("%s:%d", d.Addr, d.Port)
	}
	return fmt.Sprintf("[%s]:%d", d.Addr, d.Port)
}

// totalWeight is the sum of the servers' weights.
func totalWeight(dests []Dest) int {
	sum := 0
	for i := range dests {
		sum += dests[i].Weight
	}
	return sum
}
