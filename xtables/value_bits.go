package xtables

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
)

// Bits is a list of words, each of which stands for bits of a number. The zero Bits
// is not given.
type Bits struct {
	N     uint64
	Given bool
	Words []Bit // in the order of printing
	// None is the word for no bits at all; empty where there is none.
	None string
	// Short says that the beginning of a word will do, in any case of letters.
	Short bool
}

// Bit is one word of a Bits.
type Bit struct {
	Word string
	N    uint64
}

// Parse implements Value.
func (v *Bits) Parse(a *Args) error {
	for rest, more := a.Word, true; more; {
		var word string
		word, rest, more = strings.Cut(rest, ",")
		n, ok := v.lookup(word)
		if !ok {
			return fmt.Errorf("%q: %q is none of %s", a.Word, word, v.list())
		}
		v.N |= n
	}
	v.Given = true
	return nil
}

func (v *Bits) lookup(word string) (uint64, bool) {
	if v.None != "" && strings.EqualFold(word, v.None) {
		return 0, true
	}
	for i := range v.Words {
		w := &v.Words[i]
		if w.Word == word || v.Short && word != "" && len(word) <= len(w.Word) &&
			strings.EqualFold(w.Word[:len(word)], word) {
			return w.N, true
		}
	}
	return 0, false
}

func (v *Bits) list() string {
	words := make([]string, 0, len(v.Words)+1)
	for _, w := range v.Words {
		words = append(words, w.Word)
	}
	if v.None != "" {
		words = append(words, v.None)
	}
	return strings.Join(words, ", ")
}

// Append implements Value.
func (v *Bits) Append(b []byte, _ trace.Family) []byte {
	if v.N == 0 {
		return append(b, v.None...)
	}
	first := true
	for i := range v.Words {
		if v.N&v.Words[i].N == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(b, v.Words[i].Word...)
	}
	return b
}

// Unset implements Value.
func (v *Bits) Unset() bool { return !v.Given }

// Any asks whether a field has at least one of the bits, or none with not; a Bits
// that is not given asks nothing.
func (v *Bits) Any(id field.ID, not bool) field.Pred {
	if !v.Given {
		return field.Pred{}
	}
	if v.N == 0 {
		return field.NotIf(not, field.Never())
	}
	return field.NotIf(!not, field.Is(id, field.Masked(field.Value{}, field.U(v.N))))
}
