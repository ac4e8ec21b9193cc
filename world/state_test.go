package world

import (
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// twin is a State's table and array beside plain ones.
type twin struct {
	st    *State
	table map[int]int
	array []int
}

func (w twin) fork() twin {
	return twin{w.st.Fork(), maps.Clone(w.table), append([]int(nil), w.array...)}
}

// TestFork holds forks of a state against plain copies: each goes its own way, and
// what one does is never seen in another.
func TestFork(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &Schema{}
		tab := Add(s, NewTable[int, int])
		for range rapid.IntRange(0, 2*fewCells).Draw(t, "cells between") {
			Add(s, func() *Var[int] { return &Var[int]{} })
		}
		arr := Add(s, func() *Array[int] { return NewArray[int](2) })
		all := []twin{{s.NewState(), map[int]int{}, []int{0, 0}}}
		all = append(all, all[0].fork())
		for range rapid.IntRange(0, 120).Draw(t, "steps") {
			// The first is frozen; of a frozen one only forks are made.
			i := rapid.IntRange(1, len(all)-1).Draw(t, "state")
			w := &all[i]
			k := rapid.IntRange(0, 9).Draw(t, "key")
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0:
				tab.In(w.st).Put(k, k*i)
				w.table[k] = k * i
			case 1:
				tab.In(w.st).Delete(k)
				delete(w.table, k)
			case 2:
				arr.In(w.st).Append(k)
				w.array = append(w.array, k)
			case 3:
				k %= len(w.array)
				*arr.In(w.st).Ref(k) = i
				w.array[k] = i
			case 4:
				f := w.fork()
				w.st = w.st.Fork() // w itself is frozen by being forked
				all = append(all, f)
			}
		}
		for i, w := range all[1:] {
			if got := maps.Collect(tab.In(w.st).All); !maps.Equal(got, w.table) ||
				tab.In(w.st).Len() != len(w.table) {
				t.Fatalf("state %d: table %v, want %v", i, got, w.table)
			}
			for k, want := range w.array {
				if got := arr.In(w.st).Get(k); got != want {
					t.Fatalf("state %d: array %d is %d, want %d", i, k, got, want)
				}
			}
			if got := arr.In(w.st).Len(); got != len(w.array) {
				t.Fatalf("state %d: array of %d, want %d", i, got, len(w.array))
			}
		}
	})
}

// TestLongChain forks ten thousand times, as a sequence of questions does: the work
// for each must not grow with their number.
func TestLongChain(t *testing.T) {
	s := &Schema{}
	tab := Add(s, NewTable[int, int])
	arr := Add(s, func() *Array[int] { return NewArray[int](0) })
	st := s.NewState()
	for i := range 10000 {
		st = st.Fork()
		tab.In(st).Put(i, i)
		arr.In(st).Append(i)
	}
	layers := 0
	for l := tab.In(st); l != nil; l = l.base {
		layers++
	}
	if layers > 20 {
		t.Errorf("%d overlays after 10000 forks, want a few", layers)
	}
	depth := 0
	for p := st; p != nil; p = p.parent {
		depth++
	}
	if depth > maxDepth+2 {
		t.Errorf("%d states in a chain, want at most %d", depth, maxDepth+2)
	}
	if got := tab.In(st).Len() + arr.In(st).Len(); got != 20000 {
		t.Errorf("%d entries, want 20000", got)
	}
}

// TestSame compares what two forks of one memory hold, however they came about.
func TestSame(t *testing.T) {
	var s Schema
	slot := Add(&s, NewTable[int, int])
	word := Add(&s, func() *Var[int] { return &Var[int]{} })
	list := Add(&s, func() *Array[int] { return NewArray[int](20) })
	base := s.NewState()
	slot.In(base).Put(1, 10)
	for _, c := range []struct {
		name string
		a, b func(*State)
		want bool
	}{
		{"nothing", func(*State) {}, func(*State) {}, true},
		{"read by one", func(s *State) { slot.In(s) }, func(*State) {}, true},
		{"the same written", func(s *State) { slot.In(s).Put(2, 3) },
			func(s *State) { slot.In(s).Put(2, 3) }, true},
		{"other values", func(s *State) { slot.In(s).Put(2, 3) },
			func(s *State) { slot.In(s).Put(2, 4) }, false},
		{"asked for in another order", func(s *State) { list.In(s).Ref(0); list.In(s).Ref(16) },
			func(s *State) { list.In(s).Ref(16); list.In(s).Ref(0) }, true},
		{"another value in a list", func(s *State) { *list.In(s).Ref(3) = 1 },
			func(s *State) { *list.In(s).Ref(3) = 2 }, false},
		{"written by one", func(s *State) { word.In(s).V = 7 }, func(*State) {}, false},
	} {
		a, b := base.Fork(), base.Fork()
		c.a(a)
		c.b(b)
		if a.Same(b) != c.want || b.Same(a) != c.want {
			t.Errorf("%s: want %v", c.name, c.want)
		}
	}
}

// TestLook holds that looking sees what was written, in the state or before it.
func TestLook(t *testing.T) {
	var s Schema
	slot := Add(&s, NewTable[int, int])
	first := s.NewState()
	slot.In(first).Put(1, 2)
	second := first.Fork()
	if got := slot.Look(second).Len(); got != 1 {
		t.Errorf("%d entries before the fork was written to", got)
	}
	slot.In(second).Put(2, 3)
	if a, b := slot.Look(first).Len(), slot.Look(second).Len(); a != 1 || b != 2 {
		t.Errorf("%d entries in the first state, %d in the second", a, b)
	}
}
