// Package explore finds every outcome of a question where the kernel rolls dice or
// the snapshot is silent. It asks the same question again and again, each time with
// a forced prefix of answers, the most probable first; outcomes that are alike are
// one branch, and what was not asked any more is counted.
package explore

import (
	"container/heap"
	"slices"
	"sort"

	"github.com/hookpath/hookpath/world"
)

// Options bound what is asked for one question.
type Options struct {
	Walks int      // how often the question is asked; zero is 256
	Drawn []uint16 // ports that the kernel's NAT is known to have drawn, in order
}

// Branch is one way that things can go.
type Branch[T any] struct {
	Prob float64
	// Taken are the choices that led here. A choice that made no difference is not
	// among them.
	Taken  []world.Taken
	Result T

	path []int // the answers, of those that are alike the first in order
}

// Cut is what was not asked: how many ways at least, and how probable they are
// together. The zero Cut means that every way was asked.
type Cut struct {
	Ways int
	Prob float64
}

// All asks a question once for each combination of answers of the dice and returns
// the branches by falling probability; ties go by the order of the rules and
// alternatives, matched first. Results that are alike become one branch that keeps the
// result of the most probable; a nil alike keeps all apart.
func All[T any](ask func(*world.Dice) T, alike func(a, b T) bool, o Options) ([]Branch[T], Cut) {
	if o.Walks == 0 {
		o.Walks = 256
	}
	q := queue{{nil, 1}}
	var out []Branch[T]
	var cut Cut
	for n := 0; n < o.Walks && len(q) > 0; n++ {
		p := heap.Pop(&q).(prefix)
		dice := &world.Dice{Forced: p.forced, Drawn: slices.Clone(o.Drawn)}
		b := Branch[T]{Result: ask(dice), Taken: dice.Taken}
		b.Prob = others(dice.Taken, len(p.forced), func(p prefix) { heap.Push(&q, p) })
		for i := range dice.Taken {
			b.path = append(b.path, dice.Taken[i].Index)
		}
		out = add(out, b, alike)
		cut.bound(&q, o.Walks)
	}
	for _, p := range q {
		cut.add(p)
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].before(&out[j]) })
	return out, cut
}

// add puts a branch to those before, or into one that is like it.
func add[T any](out []Branch[T], b Branch[T], alike func(a, b T) bool) []Branch[T] {
	for i := range out {
		if o := &out[i]; alike != nil && alike(o.Result, b.Result) {
			o.Prob += b.Prob
			o.Taken = common(o.Taken, b.Taken)
			if slices.Compare(b.path, o.path) < 0 {
				o.path = b.path
			}
			return out
		}
	}
	return append(out, b)
}

// common are the choices that both ways made with the same answer.
func common(a, b []world.Taken) []world.Taken {
	var out []world.Taken
	for i := range a {
		same := func(t world.Taken) bool { return t.Key == a[i].Key && t.Index == a[i].Index }
		if slices.ContainsFunc(b, same) {
			out = append(out, a[i])
		}
	}
	return out
}

// before orders branches: the more probable first, then by their answers.
func (b *Branch[T]) before(c *Branch[T]) bool {
	const same = 1e-9
	if d := b.Prob - c.Prob; d > same || d < -same {
		return d > 0
	}
	return slices.Compare(b.path, c.path) < 0
}

func (c *Cut) add(p prefix) {
	c.Ways++
	c.Prob += p.prob
}

// bound lets go of prefixes that will not be asked: no more than walks are needed, and
// the least probable go first.
func (c *Cut) bound(q *queue, walks int) {
	if len(*q) <= 4*walks {
		return
	}
	sort.Slice(*q, q.Less) // a sorted slice is a heap
	for _, p := range (*q)[walks:] {
		c.add(p)
	}
	clear((*q)[walks:])
	*q = (*q)[:walks]
}

// prefix is the first answers of a way that was not asked yet, and its probability.
type prefix struct {
	forced []int
	prob   float64
}

// queue is a heap of prefixes, the most probable first.
type queue []prefix

// Len implements heap.Interface.
func (q *queue) Len() int { return len(*q) }

// Less implements heap.Interface.
func (q *queue) Less(i, j int) bool {
	a, b := &(*q)[i], &(*q)[j]
	if a.prob != b.prob {
		return a.prob > b.prob
	}
	return slices.Compare(a.forced, b.forced) < 0
}

// Swap implements heap.Interface.
func (q *queue) Swap(i, j int) { (*q)[i], (*q)[j] = (*q)[j], (*q)[i] }

// Push implements heap.Interface.
func (q *queue) Push(x any) { *q = append(*q, x.(prefix)) }

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	n := len(*q) - 1
	p := (*q)[n]
	*q = (*q)[:n]
	return p
}

// others returns the probability of a way, and hands over those that part from it
// behind the answers that were forced.
func others(taken []world.Taken, forced int, push func(prefix)) float64 {
	prob := 1.0
	var path []int
	for i := range taken {
		t := &taken[i]
		share := t.Shares()
		for alt := range t.N {
			if p := prob * share(alt); i >= forced && alt != t.Index && p > 0 {
				push(prefix{append(path[:i:i], alt), p})
			}
		}
		prob *= share(t.Index)
		path = append(path, t.Index)
	}
	return prob
}
