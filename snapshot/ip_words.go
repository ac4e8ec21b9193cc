package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
)

// place is a line of a file, for errors.
type place struct {
	file string
	line int
}

// errorf makes an error that names the place. Long words are cut.
func (p place) errorf(format string, args ...any) error {
	for i, a := range args {
		if s, ok := a.(string); ok && len(s) > maxQuoted {
			args[i] = s[:maxQuoted] + "..."
		}
	}
	return fmt.Errorf("%s:%d: %w", p.file, p.line, fmt.Errorf(format, args...))
}

// unsupported makes an error for what is known and not modelled.
func (p place) unsupported(what, why string) error {
	return &link.UnsupportedError{File: p.file, Line: p.line, What: what, Why: why}
}

// wordList reads the words of one line from left to right.
type wordList struct {
	place
	words []string
}

func (w *wordList) empty() bool { return len(w.words) == 0 }

// peek is the next word, empty at the end.
func (w *wordList) peek() string {
	if w.empty() {
		return ""
	}
	return w.words[0]
}

// next takes the next word, empty at the end.
func (w *wordList) next() string {
	s := w.peek()
	if !w.empty() {
		w.words = w.words[1:]
	}
	return s
}

// accept takes the next word where it is s.
func (w *wordList) accept(s string) bool {
	if w.empty() || w.words[0] != s {
		return false
	}
	w.words = w.words[1:]
	return true
}

// value takes the value of an option.
func (w *wordList) value(option string) (string, error) {
	if w.empty() {
		return "", w.errorf("%s: value is missing", option)
	}
	return w.next(), nil
}

// number takes the value of an option as a number of at most bits bits.
func (w *wordList) number(option string, bits int) (uint64, error) {
	s, err := w.value(option)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 0, bits)
	if err != nil {
		return 0, w.errorf("%s: %q is not a number", option, s)
	}
	return n, nil
}

// addr takes the value of an option as an address.
func (w *wordList) addr(option string) (packet.Addr, error) {
	s, err := w.value(option)
	if err != nil {
		return packet.Addr{}, err
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return packet.Addr{}, w.errorf("%s: %q is not an address", option, s)
	}
	return packet.AddrFrom(a), nil
}

// parsePrefix reads a prefix as iproute2 writes it: a host has no length, and
// old tools leave out trailing zeros (10/8).
func parsePrefix(s string) (netip.Prefix, bool) {
	host, bits, found := strings.Cut(s, "/")
	for found && !strings.Contains(host, ":") && strings.Count(host, ".") < 3 {
		host += ".0"
	}
	a, err := netip.ParseAddr(host)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return netip.Prefix{}, false
	}
	if !found {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	n, err := strconv.Atoi(bits)
	if err != nil || n < 0 || n > a.BitLen() {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, n), true
}

// isJSON tells the JSON form of a tool's output from its text.
func isJSON(data []byte) bool {
	data = bytes.TrimLeft(data, " \t\r\n")
	return len(data) > 0 && (data[0] == '[' || data[0] == '{')
}

// object is one JSON object with the line on which it begins.
type object struct {
	place
	keys map[string]json.RawMessage
}

// jsonObjects reads an array of objects. Empty objects, which ip prints for what
// a filter hides, are left out.
func jsonObjects(file string, data []byte) ([]object, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	line, counted := 1, 0
	at := func() place {
		off := min(max(int(d.InputOffset()), counted), len(data))
		line, counted = line+bytes.Count(data[counted:off], []byte{'\n'}), off
		return place{file, line}
	}
	tok, err := d.Token()
	if err != nil {
		return nil, at().errorf("%w", err)
	}
	if tok != json.Delim('[') {
		return nil, at().errorf("an array of objects is expected")
	}
	var out []object
	for d.More() {
		p := at()
		var keys map[string]json.RawMessage
		if err := d.Decode(&keys); err != nil {
			return nil, p.errorf("object %d: %w", len(out)+1, cutShort(err))
		}
		if len(keys) > 0 {
			out = append(out, object{p, keys})
		}
	}
	if _, err := d.Token(); err != nil {
		return nil, at().errorf("%w", cutShort(err))
	}
	return out, nil
}

// cutShort says the end of the file in words.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("the file ends in the middle: it is cut short")
	}
	return err
}

// has tells whether a key is there.
func (o *object) has(key string) bool { _, ok := o.keys[key]; return ok }

// str is a key as text: a string, or the digits of a number.
func (o *object) str(key string) string {
	raw := o.keys[key]
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	return strings.Trim(string(raw), `"`)
}

// num reads a key that is a number, or a string that holds one.
func (o *object) num(key string, bits int, into *uint64) error {
	if !o.has(key) {
		return nil
	}
	n, err := strconv.ParseUint(o.str(key), 0, bits)
	if err != nil {
		return o.errorf("%s: %s is not a number of %d bits", key, o.keys[key], bits)
	}
	*into = n
	return nil
}

// get reads a key into a Go value; a missing one is left alone.
func (o *object) get(key string, into any) error {
	if !o.has(key) {
		return nil
	}
	if err := json.Unmarshal(o.keys[key], into); err != nil {
		return o.errorf("%s: %w", key, err)
	}
	return nil
}

// known refuses the first key, in the order of the alphabet, that is neither in
// a list of those that are read nor in one of those that may be passed over.
func (o *object) known(lists ...map[string]string) error {
	bad := ""
	for key := range o.keys {
		found := false
		for _, l := range lists {
			if _, ok := l[key]; ok {
				found = true
			}
		}
		if !found && (bad == "" || key < bad) {
			bad = key
		}
	}
	if bad == "" {
		return nil
	}
	return o.unsupported(fmt.Sprintf("attribute %q", bad), "it is not known what it does")
}

// maxQuoted bounds what an error quotes of a file.
const maxQuoted = 200

// maxLine is the longest line of a text that is read.
const maxLine = 1 << 20

// eachLine hands the lines of a text that are not blank to f, without their ends,
// counted from 1.
func eachLine(file string, data []byte, f func(p place, line string) error) error {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if line = bytes.TrimRightFunc(line, unicode.IsSpace); len(line) == 0 {
			continue
		}
		p := place{file, n}
		if len(line) > maxLine {
			return p.errorf("the line has %d bytes, more than %d", len(line), maxLine)
		}
		if err := f(p, string(line)); err != nil {
			return err
		}
	}
	return nil
}

// textLines is eachLine for what ip prints: a line of `ip -o` is cut at its
// backslashes.
func textLines(file string, data []byte, f func(p place, line string) error) error {
	return eachLine(file, data, func(p place, line string) error {
		for i, part := range strings.Split(line, `\`) {
			if i > 0 && !strings.HasPrefix(part, "\t") && !strings.HasPrefix(part, " ") {
				part = " " + part // what follows a backslash belongs to the line
			}
			if strings.TrimSpace(part) == "" {
				continue
			}
			if err := f(p, part); err != nil {
				return err
			}
		}
		return nil
	})
}

// indented tells a line that belongs to the one before.
func indented(line string) bool { return line[0] == ' ' || line[0] == '\t' }
