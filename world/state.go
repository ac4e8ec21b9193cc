package world

import (
	"maps"
	"reflect"
)

// A Cell is one part of a host's memory: a table, an array, a variable. Fork
// returns a writable copy in constant time; the receiver is frozen by it and must
// not be written any more.
type Cell interface{ Fork() Cell }

// Schema lists the cells that a host's memory has. Rooms add theirs while the host
// is built.
type Schema struct{ makers []func() Cell }

// Slot is the place of one cell in every State of its schema. The zero Slot
// belongs to nothing and must not be asked.
type Slot[T Cell] struct{ n int }

// Add gives the schema another cell; mk makes its first content.
func Add[T Cell](s *Schema, mk func() T) Slot[T] {
	s.makers = append(s.makers, func() Cell { return mk() })
	return Slot[T]{len(s.makers)}
}

// State is a host's memory: connections, set entries, counters, buckets. Fork is
// cheap, and asking a fork never changes what it was forked from.
type State struct {
	parent *State
	root   []Cell // of the first state: every cell
	forked cells  // of a fork: the cells that were asked for
	depth  int    // of forks, since they were last laid together
}

// cells are some cells by number. The first few, which rooms have and every packet
// asks, stand in an array.
type cells struct {
	few  [fewCells]Cell
	more map[int]Cell
}

const fewCells = 24

func (c *cells) get(n int) Cell {
	if n < fewCells {
		return c.few[n]
	}
	return c.more[n]
}

func (c *cells) set(n int, v Cell) {
	if n < fewCells {
		c.few[n] = v
		return
	}
	if c.more == nil {
		c.more = map[int]Cell{}
	}
	c.more[n] = v
}

// under takes the cells of another that c has not.
func (c *cells) under(o *cells) {
	for n, v := range o.few {
		if c.few[n] == nil {
			c.few[n] = v
		}
	}
	for n, v := range o.more {
		if c.get(n) == nil {
			c.set(n, v)
		}
	}
}

// NewState makes the memory that the schema describes.
func (s *Schema) NewState() *State {
	st := &State{root: make([]Cell, len(s.makers))}
	for i, mk := range s.makers {
		st.root[i] = mk()
	}
	return st
}

// Fork freezes st and returns a writable copy of it.
func (st *State) Fork() *State {
	if st.depth >= maxDepth {
		st = st.together()
	}
	return &State{parent: st, depth: st.depth + 1}
}

// together lays a chain of forks into one, so that what is between can be forgotten.
func (st *State) together() *State {
	all := &State{depth: 1}
	for ; st.root == nil; st = st.parent {
		all.forked.under(&st.forked)
	}
	all.parent = st
	return all
}

// In returns the slot's cell in a state, for reading and writing.
func (s Slot[T]) In(st *State) T { return st.cell(s.n - 1).(T) }

// Look returns the slot's cell in a state for reading alone: nothing is copied for it.
func (s Slot[T]) Look(st *State) T { return st.frozen(s.n - 1).(T) }

func (st *State) cell(n int) Cell {
	if st.root != nil {
		return st.root[n]
	}
	if c := st.forked.get(n); c != nil {
		return c
	}
	c := st.parent.frozen(n).Fork()
	st.forked.set(n, c)
	return c
}

// frozen finds the nearest cell without copying it.
func (st *State) frozen(n int) Cell {
	for ; st.root == nil; st = st.parent {
		if c := st.forked.get(n); c != nil {
			return c
		}
	}
	return st.root[n]
}

// Same tells whether two forks of one memory hold the same. It may say no of
// states that only differ in how they came about.
func (st *State) Same(o *State) bool {
	var all cells
	all.under(&st.forked)
	all.under(&o.forked)
	for n := range all.few {
		if all.few[n] != nil && !st.sameCell(o, n) {
			return false
		}
	}
	for n := range all.more {
		if !st.sameCell(o, n) {
			return false
		}
	}
	return true
}

func (st *State) sameCell(o *State, n int) bool {
	a, b := st.writable(n), o.writable(n)
	if c, ok := a.(interface{ same(Cell) bool }); ok {
		return c.same(b)
	}
	return reflect.DeepEqual(a, b)
}

// writable is a cell as cell returns it, without keeping it.
func (st *State) writable(n int) Cell {
	if c := st.forked.get(n); c != nil {
		return c
	}
	return st.frozen(n).Fork()
}

// maxDepth is how many forks of a state may lie on one another.
const maxDepth = 8

// Table is a map with a cheap Fork. Keys and values should hold no pointers.
//
// Overlays are merged as those of a log-structured store: each is more than twice as
// large as the one above it, so that there are few and each key is copied seldom.
type Table[K comparable, V any] struct {
	base *Table[K, V] // frozen
	m    map[K]entry[V]
	n    int
}

type entry[V any] struct {
	v    V
	dead bool
}

// NewTable returns an empty table.
func NewTable[K comparable, V any]() *Table[K, V] {
	return &Table[K, V]{m: map[K]entry[V]{}}
}

// Fork implements Cell.
func (t *Table[K, V]) Fork() Cell {
	t = t.compact()
	return &Table[K, V]{base: t, m: map[K]entry[V]{}, n: t.n}
}

// compact returns a frozen table with the same content and few overlays.
func (t *Table[K, V]) compact() *Table[K, V] {
	if t.base != nil && len(t.m) == 0 {
		return t.base
	}
	for t.base != nil && t.base.base != nil && 2*len(t.m) >= len(t.base.m) {
		m := make(map[K]entry[V], len(t.m)+len(t.base.m))
		maps.Copy(m, t.base.m)
		maps.Copy(m, t.m)
		t = &Table[K, V]{base: t.base.base, m: m, n: t.n}
	}
	return t
}

// Get returns the value of a key.
func (t *Table[K, V]) Get(k K) (V, bool) {
	for ; t != nil; t = t.base {
		if e, ok := t.m[k]; ok {
			return e.v, !e.dead
		}
	}
	var zero V
	return zero, false
}

// Put sets the value of a key.
func (t *Table[K, V]) Put(k K, v V) {
	if _, ok := t.Get(k); !ok {
		t.n++
	}
	t.m[k] = entry[V]{v: v}
}

// Delete forgets a key.
func (t *Table[K, V]) Delete(k K) {
	if _, ok := t.Get(k); !ok {
		return
	}
	t.n--
	if t.base == nil {
		delete(t.m, k)
		return
	}
	t.m[k] = entry[V]{dead: true}
}

// Len is the number of keys.
func (t *Table[K, V]) Len() int { return t.n }

// All yields every key and value, in no order.
func (t *Table[K, V]) All(yield func(K, V) bool) {
	for l := t; l != nil; l = l.base {
		for k, e := range l.m {
			if !e.dead && t.owner(k) == l && !yield(k, e.v) {
				return
			}
		}
	}
}

// owner is the topmost layer that says something about a key.
func (t *Table[K, V]) owner(k K) *Table[K, V] {
	for ; t != nil; t = t.base {
		if _, ok := t.m[k]; ok {
			return t
		}
	}
	return nil
}

// Array is a growing list of values with a cheap Fork. Values should hold no
// pointers. Its overlays are merged as those of a Table.
type Array[V any] struct {
	base *Array[V] // frozen
	root []V       // where there is no base
	m    map[int]*V
	n    int
	// recent are values of m that were asked for last, each at its index modulo the
	// length: a packet comes back to its connection and to the same few rules.
	recent [16]place[V]
}

type place[V any] struct {
	i int
	v *V
}

// NewArray returns an array of n zero values.
func NewArray[V any](n int) *Array[V] { return &Array[V]{root: make([]V, n), n: n} }

// Fork implements Cell.
func (a *Array[V]) Fork() Cell {
	a = a.compact()
	return &Array[V]{base: a, m: map[int]*V{}, n: a.n}
}

func (a *Array[V]) compact() *Array[V] {
	if a.base != nil && len(a.m) == 0 && a.n == a.base.n {
		return a.base
	}
	for a.base != nil && a.base.base != nil && 2*len(a.m) >= len(a.base.m) {
		m := make(map[int]*V, len(a.m)+len(a.base.m))
		maps.Copy(m, a.base.m)
		maps.Copy(m, a.m)
		a = &Array[V]{base: a.base.base, m: m, n: a.n}
	}
	return a
}

// same tells whether two arrays hold the same in the same layers, whatever of it was
// asked for last.
func (a *Array[V]) same(c Cell) bool {
	b, ok := c.(*Array[V])
	if a == b || !ok || a == nil || b == nil {
		return ok && a == b
	}
	return a.n == b.n && reflect.DeepEqual(a.m, b.m) && reflect.DeepEqual(a.root, b.root) &&
		a.base.same(b.base)
}

// Len is the number of values.
func (a *Array[V]) Len() int { return a.n }

// Get returns the value at i, zero when there is none.
func (a *Array[V]) Get(i int) V {
	var zero V
	if i < 0 || i >= a.n {
		return zero
	}
	if v := a.find(i); v != nil {
		return *v
	}
	return zero
}

// find returns the value at i for reading, nil where no layer holds it yet.
func (a *Array[V]) find(i int) *V {
	for ; a.base != nil; a = a.base {
		if v, ok := a.m[i]; ok {
			return v
		}
	}
	if i < len(a.root) {
		return &a.root[i]
	}
	return nil
}

// Ref returns the value at i for writing. The pointer is good until the next
// Append or Fork. It panics when i is out of range.
func (a *Array[V]) Ref(i int) *V {
	if a.base == nil {
		return &a.root[i]
	}
	at := &a.recent[uint(i)%uint(len(a.recent))]
	if at.v == nil || at.i != i {
		*at = place[V]{i, a.own(i)}
	}
	return at.v
}

// own returns the value at i in this layer, copied from below where it is not there.
func (a *Array[V]) own(i int) *V {
	if v, ok := a.m[i]; ok {
		return v
	}
	if i < 0 || i >= a.n {
		panic("world: array index out of range")
	}
	v := new(V)
	if old := a.base.find(i); old != nil {
		*v = *old
	}
	a.m[i] = v
	return v
}

// Append adds a value and returns its index.
func (a *Array[V]) Append(v V) int {
	i := a.n
	a.n++
	if a.base == nil {
		a.root = append(a.root, v)
		return i
	}
	a.m[i] = &v
	return i
}

// Var is a single value that is copied when forked.
type Var[V any] struct{ V V }

// Fork implements Cell.
func (v *Var[V]) Fork() Cell { return &Var[V]{v.V} }
