package field

import (
	"math/bits"
	"sort"

	"github.com/hookpath/hookpath/packet"
)

// Value is an unsigned number of at most 128 bits.
type Value struct{ Hi, Lo uint64 }

// U returns the Value of a number that fits in 64 bits.
func U(n uint64) Value { return Value{Lo: n} }

// Bool returns 1 or 0.
func Bool(b bool) Value {
	if b {
		return Value{Lo: 1}
	}
	return Value{}
}

// AddrValue returns the 128 bits of an address, IPv4-mapped.
func AddrValue(a packet.Addr) Value {
	var v Value
	for i := range 8 {
		v.Hi = v.Hi<<8 | uint64(a[i])
		v.Lo = v.Lo<<8 | uint64(a[i+8])
	}
	return v
}

// Addr turns the 128 bits back into an address.
func (v Value) Addr() packet.Addr {
	var a packet.Addr
	for i := range 8 {
		a[i] = byte(v.Hi >> (56 - 8*i))
		a[i+8] = byte(v.Lo >> (56 - 8*i))
	}
	return a
}

// Less orders values as numbers.
func (v Value) Less(w Value) bool { return v.Hi < w.Hi || v.Hi == w.Hi && v.Lo < w.Lo }

// And returns the bits in both.
func (v Value) And(w Value) Value { return Value{v.Hi & w.Hi, v.Lo & w.Lo} }

// Or returns the bits in either.
func (v Value) Or(w Value) Value { return Value{v.Hi | w.Hi, v.Lo | w.Lo} }

// AndNot returns the bits of v that are not in w.
func (v Value) AndNot(w Value) Value { return Value{v.Hi &^ w.Hi, v.Lo &^ w.Lo} }

// Xor returns the bits in which v and w differ.
func (v Value) Xor(w Value) Value { return Value{v.Hi ^ w.Hi, v.Lo ^ w.Lo} }

// IsZero tells whether v is 0.
func (v Value) IsZero() bool { return v == Value{} }

// Ones returns the Value whose lowest n bits are set.
func Ones(n int) Value {
	switch {
	case n <= 0:
		return Value{}
	case n < 64:
		return Value{Lo: 1<<n - 1}
	case n < 128:
		return Value{Hi: 1<<(n-64) - 1, Lo: ^uint64(0)}
	}
	return Value{^uint64(0), ^uint64(0)}
}

// PrefixMask returns the mask of a field of the given width whose first n bits
// are looked at.
func PrefixMask(width, n int) Value { return Ones(width).AndNot(Ones(width - n)) }

// Range is a closed range of values.
type Range struct{ Lo, Hi Value }

// Set is a set of values of one field: those that agree with a value under a
// mask, or a sorted list of ranges. The zero Set holds every value.
type Set struct {
	val, mask Value
	ranges    []Range
	isRanges  bool
}

// Masked returns the set of values v with v&mask == val&mask.
func Masked(val, mask Value) Set { return Set{val: val.And(mask), mask: mask} }

// Exactly returns the set that holds just v, in a field of any width.
func Exactly(v Value) Set { return Set{val: v, mask: Ones(128)} }

// Num returns the set that holds just n.
func Num(n uint64) Set { return Exactly(U(n)) }

// Between returns the set of lo to hi, both included; it is empty when lo > hi.
func Between(lo, hi uint64) Set {
	if lo == hi {
		return Num(lo)
	}
	if lo > hi {
		return Set{isRanges: true}
	}
	return Set{isRanges: true, ranges: []Range{{U(lo), U(hi)}}}
}

// Ranges returns the union of the ranges; reversed ones are empty.
func Ranges(rs ...Range) Set {
	out := make([]Range, 0, len(rs))
	for _, r := range rs {
		if !r.Hi.Less(r.Lo) {
			out = append(out, r)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Lo.Less(out[j].Lo) })
	merged := out[:0]
	for _, r := range out {
		if n := len(merged); n > 0 && !merged[n-1].Hi.Less(r.Lo) {
			if merged[n-1].Hi.Less(r.Hi) {
				merged[n-1].Hi = r.Hi
			}
			continue
		}
		merged = append(merged, r)
	}
	return Set{isRanges: true, ranges: merged}
}

// OneOf returns the set of the given numbers.
func OneOf(ns ...uint64) Set {
	if len(ns) == 1 {
		return Num(ns[0])
	}
	rs := make([]Range, len(ns))
	for i, n := range ns {
		rs[i] = Range{U(n), U(n)}
	}
	return Ranges(rs...)
}

// AddrMask returns the set of addresses that agree with a under a mask that is
// given as an address too. In IPv4 the mask counts for the lowest 32 bits, and
// the mapping prefix must agree.
func AddrMask(a, mask packet.Addr) Set {
	m := AddrValue(mask)
	if a.Is4() {
		m = PrefixMask(128, 96).Or(Value{Lo: m.Lo & 0xffffffff})
	}
	return Masked(AddrValue(a), m)
}

// AddrPrefix returns the set of the addresses in a/n, n counted in the family.
func AddrPrefix(a packet.Addr, n int) Set {
	if a.Is4() {
		n += 96
	}
	return Masked(AddrValue(a), PrefixMask(128, n))
}

// AddrRange returns the set of addresses from lo to hi.
func AddrRange(lo, hi packet.Addr) Set { return Ranges(Range{AddrValue(lo), AddrValue(hi)}) }

// Holds tells whether v is in s.
func (s *Set) Holds(v Value) bool {
	if !s.isRanges {
		return (v.Lo^s.val.Lo)&s.mask.Lo == 0 && (v.Hi^s.val.Hi)&s.mask.Hi == 0
	}
	for i := range s.ranges {
		if v.Less(s.ranges[i].Lo) {
			return false
		}
		if !s.ranges[i].Hi.Less(v) {
			return true
		}
	}
	return false
}

// IsFull tells whether the set is known to hold every value.
func (s *Set) IsFull() bool { return !s.isRanges && s.mask.IsZero() }

// Single returns the only value of a set of one.
func (s *Set) Single(width int) (Value, bool) {
	if !s.isRanges && s.mask.And(Ones(width)) == Ones(width) {
		return s.val.And(Ones(width)), true
	}
	if len(s.ranges) == 1 && s.ranges[0].Lo == s.ranges[0].Hi {
		return s.ranges[0].Lo, true
	}
	return Value{}, false
}

// Mask returns value and mask of a set that is given so.
func (s *Set) Mask() (val, mask Value, ok bool) { return s.val, s.mask, !s.isRanges }

// Ranges returns the ranges of a set that is given as ranges.
func (s *Set) Ranges() ([]Range, bool) { return s.ranges, s.isRanges }

// Looked returns bits of a field of the given width such that every value that
// agrees with v in them gives the same answer from Holds.
func (s *Set) Looked(v Value, width int) Value {
	if !s.isRanges {
		return s.mask.And(Ones(width))
	}
	if width <= 16 {
		return Ones(width)
	}
	return PrefixMask(width, s.samePrefix(v, width))
}

// samePrefix is the length of the shortest prefix of v that lies as a whole
// inside or outside of the ranges.
func (s *Set) samePrefix(v Value, width int) int {
	lo, hi := Value{}, Ones(width)
	for _, r := range s.ranges {
		if r.Hi.Less(v) && !r.Hi.Less(lo) {
			lo = inc(r.Hi)
		}
		if v.Less(r.Lo) {
			hi = dec(r.Lo)
			break
		}
		if !v.Less(r.Lo) && !r.Hi.Less(v) {
			lo, hi = r.Lo, r.Hi
			break
		}
	}
	for n := 0; n < width; n++ {
		rest := Ones(width - n)
		if first, last := v.AndNot(rest), v.Or(rest); !first.Less(lo) && !hi.Less(last) {
			return n
		}
	}
	return width
}

func inc(v Value) Value {
	lo, c := bits.Add64(v.Lo, 1, 0)
	return Value{v.Hi + c, lo}
}

func dec(v Value) Value {
	lo, b := bits.Sub64(v.Lo, 1, 0)
	return Value{v.Hi - b, lo}
}
