package field

// Covers tells whether every value of b is known to be in a.
func Covers(a, b *Set, width int) bool {
	if a.IsFull() {
		return true
	}
	if !a.isRanges && !b.isRanges {
		am := a.mask.And(Ones(width))
		return am.AndNot(b.mask).IsZero() && b.val.Xor(a.val).And(am).IsZero()
	}
	ra, okA := a.asRanges(width)
	rb, okB := b.asRanges(width)
	if !okA || !okB {
		return false
	}
	for _, r := range rb {
		if !rangesHold(ra, r) {
			return false
		}
	}
	return true
}

func rangesHold(rs []Range, r Range) bool {
	for _, x := range rs {
		if !r.Lo.Less(x.Lo) && !x.Hi.Less(r.Hi) {
			return true
		}
	}
	return false
}

// Disjoint tells whether no value is in both, as far as that is known.
func Disjoint(a, b *Set, width int) bool {
	if !a.isRanges && !b.isRanges {
		return !a.val.Xor(b.val).And(a.mask).And(b.mask).And(Ones(width)).IsZero()
	}
	ra, okA := a.asRanges(width)
	rb, okB := b.asRanges(width)
	if !okA || !okB {
		return false
	}
	for _, x := range ra {
		for _, y := range rb {
			if !x.Hi.Less(y.Lo) && !y.Hi.Less(x.Lo) {
				return false
			}
		}
	}
	return true
}

// asRanges turns a set into ranges; false for a mask that is no prefix.
func (s *Set) asRanges(width int) ([]Range, bool) {
	if s.isRanges {
		return s.ranges, true
	}
	host := Ones(width).AndNot(s.mask)
	if inc(host).And(host) != (Value{}) {
		return nil, false
	}
	lo := s.val.And(Ones(width)).AndNot(host)
	return []Range{{lo, lo.Or(host)}}, true
}
