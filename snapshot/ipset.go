package snapshot

import (
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// parseIPSet reads `ipset save` (create and add lines) or `ipset list`. The seconds
// that entries have left count from now. A file without sets gives an empty list,
// which is not nil.
func parseIPSet(file string, data []byte, now world.Instant) ([]ipset.Set, error) {
	r := setReader{now: now, byName: map[string]*ipset.Set{},
		text: ipset.Reader{Proto: xtables.ParseProto, Port: xtables.ParsePort}}
	err := eachLine(file, data, r.line)
	if err != nil {
		return nil, err
	}
	if err := r.endList(); err != nil {
		return nil, err
	}
	sets := make([]ipset.Set, len(r.sets))
	for i, s := range r.sets {
		sets[i] = *s
	}
	return sets, nil
}

// setReader reads the lines of one file.
type setReader struct {
	place
	text   ipset.Reader
	now    world.Instant
	words  []string
	sets   []*ipset.Set
	byName map[string]*ipset.Set
	list   listing
}

// listing is the set that `ipset list` is telling of.
type listing struct {
	name, typ, header string
	at                place
	entries           int // as the file says
	set               *ipset.Set
	lines             int
}

func (r *setReader) line(p place, line string) (err error) {
	if len(line) > maxSetLine {
		return p.errorf("the line is longer than %d bytes", maxSetLine)
	}
	r.place, line = p, strings.TrimSpace(line)
	if r.isListing(line) {
		return r.listLine(line)
	}
	if line[0] == '#' || line == "COMMIT" || line == "quit" {
		return nil
	}
	if r.words, err = ipset.Words(line, r.words[:0]); err != nil {
		return r.errorf("%w", err)
	}
	return r.command()
}

// maxSetLine is the longest line of a file of sets.
const maxSetLine = 1 << 12

// command reads a line of `ipset save`.
func (r *setReader) command() error {
	exist := false
	for len(r.words) > 0 && (r.words[0] == "-exist" || r.words[0] == "-!") {
		exist, r.words = true, r.words[1:]
	}
	if len(r.words) < 2 {
		return r.errorf("expected create NAME TYPE ... or add NAME ELEMENT ...")
	}
	switch word := r.words[0]; word {
	case "create", "new", "n", "-N", "--create":
		s, err := r.text.Create(r.words[1:])
		if err != nil {
			return r.errorf("create %s: %w", r.words[1], err)
		}
		return r.create(s)
	case "add", "a", "-A", "--add":
		s := r.byName[r.words[1]]
		if s == nil {
			return r.errorf("add: there is no set %q", r.words[1])
		}
		return r.add(s, r.words[2:], exist)
	default:
		return r.errorf("%q is neither create nor add: only the output of ipset save is read", word)
	}
}

func (r *setReader) create(s *ipset.Set) error {
	if r.byName[s.Name] != nil {
		return r.errorf("create %s: there is a set of this name already", s.Name)
	}
	s.Line, s.ProtoName = r.place.line, xtables.ProtoName
	r.sets = append(r.sets, s)
	r.byName[s.Name] = s
	return nil
}

func (r *setReader) add(s *ipset.Set, words []string, exist bool) error {
	e, more, err := r.text.Entry(s, words)
	if err == nil {
		err = r.member(s, &e)
	}
	if err == nil {
		err = s.Add(&e, exist || more, r.now)
	}
	if err != nil {
		return r.errorf("add %s %s: %w", s.Name, first(words), err)
	}
	return nil
}

func first(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

// member checks an entry of a list: the set must be there already. `ipset save` and
// `ipset list` print lists last.
func (r *setReader) member(s *ipset.Set, e *ipset.Entry) error {
	if s.Type != "list:set" {
		return nil
	}
	switch m := r.byName[e.Set]; {
	case m == nil:
		return r.errorIn("there is no set %q", e.Set)
	case m.Type == "list:set":
		return r.errorIn("%q is a list itself", e.Set)
	}
	return nil
}

func (r *setReader) errorIn(format string, name string) error {
	return &ipset.Error{Msg: strings.Replace(format, "%q", strconv.Quote(name), 1)}
}

// isListing tells whether a line belongs to what `ipset list` prints.
func (r *setReader) isListing(line string) bool {
	return r.list.name != "" || strings.HasPrefix(line, "Name: ")
}

// listLine reads a line of `ipset list`.
func (r *setReader) listLine(line string) (err error) {
	l := &r.list
	if l.set != nil && !strings.HasPrefix(line, "Name: ") {
		l.lines++
		if r.words, err = ipset.Words(line, r.words[:0]); err != nil {
			return r.errorf("%w", err)
		}
		return r.add(l.set, r.words, false)
	}
	key, value, _ := strings.Cut(line, ":")
	value = strings.TrimSpace(value)
	switch key {
	case "Name":
		if err := r.endList(); err != nil {
			return err
		}
		r.list = listing{name: value, at: r.place}
		if value == "" {
			return r.errorf("the name of the set is missing")
		}
	case "Type":
		l.typ = value
	case "Header":
		l.header = value
	case "Number of entries":
		if l.entries, err = strconv.Atoi(value); err != nil {
			return r.errorf("%q is not a number of entries", value)
		}
	case "Members":
		return r.startMembers()
	case "Revision", "Size in memory", "References", "Default":
	default:
		return r.errorf("unknown line of a listing: %q", key)
	}
	return nil
}

func (r *setReader) startMembers() (err error) {
	l := &r.list
	if r.words, err = ipset.Words(l.header, r.words[:0]); err != nil {
		return r.errorf("%w", err)
	}
	if l.set, err = r.text.Header(l.name, l.typ, r.words); err != nil {
		return r.errorf("set %s: %w", l.name, err)
	}
	return r.create(l.set)
}

// endList checks that a set was told of as a whole.
func (r *setReader) endList() error {
	l := &r.list
	switch {
	case l.name == "":
		return nil
	case l.set == nil:
		return l.at.errorf("set %s has no members in this listing: `ipset list` is needed, "+
			"without -t or -n", l.name)
	case l.lines < l.entries && !l.set.HasTimeout:
		return l.at.errorf("set %s has %d entries, but %d are listed: the file is cut short",
			l.name, l.entries, l.lines)
	}
	return nil
}
