package match

import "bytes"

// search finds the first place of a pattern as the kernel's algorithm does.
type search struct {
	pattern []byte
	fold    bool
	bm      bool
	bad     [256]int // of Boyer-Moore: how far a byte lets the search go on
	good    []int    // and how far an end that agrees does
}

// newSearch prepares a search; a pattern that ignores case is kept in capitals.
func newSearch(pattern string, bm, ignoreCase bool) *search {
	s := &search{pattern: []byte(pattern), fold: ignoreCase, bm: bm}
	if ignoreCase {
		s.pattern = fold(s.pattern)
	}
	if bm {
		s.prepare()
	}
	return s
}

// prepare computes the shifts.
//
// Kernel: lib/ts_bm.c, bm_compute_prefix_tbl.
func (s *search) prepare() {
	n := len(s.pattern)
	for i := range s.bad {
		s.bad[i] = n
	}
	for i, c := range s.pattern[:n-1] {
		s.bad[c] = n - 1 - i
		if s.fold {
			s.bad[small(c)] = n - 1 - i
		}
	}
	s.good = make([]int, n)
	s.good[0] = 1
	for g := 1; g < n; g++ {
		s.good[g] = n
		i := n - g
		for j := i - 1; j >= 1-g; j-- {
			if s.recurs(i, j, g) {
				s.good[g] = n - j - g
				break
			}
		}
	}
}

// recurs tells whether the end of length g that begins at i stands at j too, behind
// another byte or at the pattern's beginning.
//
// Kernel: lib/ts_bm.c, subpattern.
func (s *search) recurs(i, j, g int) bool {
	for x, y := i+g-1, j+g-1; s.pattern[x] == s.pattern[y]; {
		x, y, g = x-1, y-1, g-1
		if y < 0 {
			return true
		}
		if g == 0 {
			return s.pattern[i-1] != s.pattern[j-1]
		}
	}
	return false
}

// in returns the first place, -1 for none.
func (s *search) in(text []byte) int {
	if s.bm {
		return s.boyerMoore(text)
	}
	if s.fold {
		text = fold(text)
	}
	return bytes.Index(text, s.pattern)
}

// boyerMoore has the kernel's flaw that a letter without a capital of its own may be
// passed over when case is ignored.
//
// Kernel: lib/ts_bm.c, bm_find.
func (s *search) boyerMoore(text []byte) int {
	n := len(s.pattern)
	for at := n - 1; at < len(text); {
		i := 0
		for i < n && s.letter(text[at-i]) == s.pattern[n-1-i] {
			i++
		}
		if i == n {
			return at - (n - 1)
		}
		at = max(at-i+s.bad[text[at-i]], at+s.good[i])
	}
	return -1
}

func (s *search) letter(c byte) byte {
	if s.fold {
		return capital(c)
	}
	return c
}

// capital and small know Latin-1 as the kernel does, which also takes 0xdf and 0xff
// for small letters.
//
// Kernel: lib/ctype.c, _ctype; include/linux/ctype.h, __toupper and __tolower.
func capital(c byte) byte {
	if c >= 'a' && c <= 'z' || c >= 0xdf && c != 0xf7 {
		return c - 0x20
	}
	return c
}

func small(c byte) byte {
	if c >= 'A' && c <= 'Z' || c >= 0xc0 && c <= 0xde && c != 0xd7 {
		return c + 0x20
	}
	return c
}

// fold returns a copy in capitals.
func fold(b []byte) []byte {
	out := make([]byte, len(b))
	for i, c := range b {
		out[i] = capital(c)
	}
	return out
}
