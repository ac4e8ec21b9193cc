package world

import "math/rand/v2"

// What names the kind of a choice.
type What uint8

// The kinds of choices.
const (
	ChoiceField     What = iota + 1 // an unknown field, narrowed by a test
	ChoiceStatistic                 // -m statistic --mode random
	ChoicePort                      // a port that NAT draws at random
	ChoiceAddr                      // an address that NAT hashes with an unknown seed
	ChoicePath                      // a path of a multipath route
	ChoiceServer                    // a real server that a scheduler draws, or of an unknown state
	ChoiceLimit                     // a bucket whose filling is not known
	ChoiceQueue                     // anything else that the kernel spreads
	ChoiceAnswer                    // which of several hosts answers ARP first
)

// String returns the word that JSON uses.
func (w What) String() string {
	return [...]string{"", "field", "statistic", "port", "address", "path", "server", "limit",
		"queue", "first answer"}[w]
}

// Key names a choice on a path: the same key gives the same answer again. A and B
// mean what the room that asks likes, say a rule's number and a hash. Host is filled in
// by the dice, and Turn where each asking is a roll of its own: how often it was asked
// before.
type Key struct {
	What What
	Host int
	A, B uint64
	Turn int
}

// Choice is one question to the dice. Weights are relative; nil weighs all N the
// same. Values says what each alternative stands for, for reports.
type Choice struct {
	Key     Key
	N       int
	Weights []uint64
	Values  func(i int) string
	// Anew asks for a roll of its own each time that the key comes.
	Anew bool
}

// Taken is a choice with its answer.
type Taken struct {
	Choice
	Index int
}

// Shares returns the probability of each alternative. Where no weight is above zero,
// all weigh the same.
func (c *Choice) Shares() func(i int) float64 {
	var sum float64
	for _, w := range c.Weights {
		sum += float64(w)
	}
	if sum == 0 {
		return func(int) float64 { return 1 / float64(c.N) }
	}
	return func(i int) float64 { return float64(c.Weights[i]) / sum }
}

// Best is the most probable alternative, the first of equals.
func (c *Choice) Best() int {
	best := 0
	for i, w := range c.Weights {
		if w > c.Weights[best] {
			best = i
		}
	}
	return best
}

// Dice answers choices. With Rand it rolls; without, it takes the answers that are
// forced, in order, and then the most probable. It records what it took. The zero
// Dice is ready: no forced answers, no rolling.
type Dice struct {
	Rand   *rand.Rand
	Forced []int
	// Drawn are the ports that a kernel's NAT drew, in order.
	Drawn []uint16
	// Draws counts how many ports were asked for.
	Draws int
	// Oracle, when set, is asked before anything else: it knows what a kernel did.
	Oracle func(*Choice) (int, bool)
	// Host is the host that asks, where several share the dice: the same key on
	// another host is another choice.
	Host  int
	Taken []Taken
	// Watch, when set, is told of each choice that is made.
	Watch func(*Taken)

	known map[Key]int
}

// Take answers a choice.
func (d *Dice) Take(c Choice) int {
	if c.N <= 1 {
		return 0
	}
	if d.Rand != nil {
		return d.roll(c.N, c.Weights)
	}
	c.Key.Host = d.Host
	for {
		i, ok := d.known[c.Key]
		if !ok {
			break
		}
		if !c.Anew {
			return i
		}
		c.Key.Turn++
	}
	i := d.answer(c)
	if d.known == nil {
		d.known = map[Key]int{}
	}
	d.known[c.Key] = i
	return i
}

func (d *Dice) answer(c Choice) int {
	if d.Oracle != nil {
		if i, ok := d.Oracle(&c); ok {
			return i
		}
	}
	i := c.Best()
	if n := len(d.Taken); n < len(d.Forced) {
		i = min(max(d.Forced[n], 0), c.N-1)
	}
	d.Taken = append(d.Taken, Taken{c, i})
	if d.Watch != nil {
		d.Watch(&d.Taken[len(d.Taken)-1])
	}
	return i
}

func (d *Dice) roll(n int, weights []uint64) int {
	if weights == nil {
		return d.Rand.IntN(n)
	}
	var sum uint64
	for _, w := range weights {
		sum += w
	}
	if sum == 0 {
		return 0
	}
	r := d.Rand.Uint64N(sum)
	for i, w := range weights {
		if r < w {
			return i
		}
		r -= w
	}
	return n - 1
}

// NextDrawn returns the next port that a kernel is known to have drawn, if it is one of
// those to choose from; else it belongs to a later draw.
func (d *Dice) NextDrawn(least, most uint16) (uint16, bool) {
	d.Draws++
	if len(d.Drawn) == 0 || d.Drawn[0] < least || d.Drawn[0] > most {
		return 0, false
	}
	p := d.Drawn[0]
	d.Drawn = d.Drawn[1:]
	return p, true
}
