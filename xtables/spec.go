package xtables

import (
	"fmt"
)

// Spec collects the options of one extension. The extension declares them in the
// order in which iptables-save prints them; four visitors read the declaration:
// the parser, the printer, the help and the generator.
type Spec struct {
	opts   []Option
	checks []func(*Context) error
	groups []group
}

// Option is one declared option.
type Option struct {
	Name  string
	value Value
	flag  *bool
	not   *bool
	alias []string
	needs []string
	print func(b []byte) []byte
	bits  optBits
	given bool
}

type optBits uint8

const (
	required optBits = 1 << iota
	always
	multi
	hidden
	noArg
)

type group struct {
	names    []string
	required bool
}

// Var declares an option with an argument.
func (s *Spec) Var(name string, v Value) *Option {
	s.opts = append(s.opts, Option{Name: name, value: v})
	return &s.opts[len(s.opts)-1]
}

// Flag declares an option without argument.
func (s *Spec) Flag(name string, set *bool) *Option {
	s.opts = append(s.opts, Option{Name: name, flag: set, bits: noArg})
	return &s.opts[len(s.opts)-1]
}

// OneOf says that at most one of the options may be given.
func (s *Spec) OneOf(names ...string) *Spec {
	s.groups = append(s.groups, group{names: names})
	return s
}

// ExactlyOne says that one of the options must be given, and only one.
func (s *Spec) ExactlyOne(names ...string) *Spec {
	s.groups = append(s.groups, group{names: names, required: true})
	return s
}

// Check adds a test that runs when the rule's line ends, and sees the whole rule.
func (s *Spec) Check(f func(*Context) error) { s.checks = append(s.checks, f) }

// Required says that the option must be given; it is then always printed.
func (o *Option) Required() *Option { o.bits |= required | always; return o }

// Always says that the option is printed even when its value is the default.
func (o *Option) Always() *Option { o.bits |= always; return o }

// Multi says that the option may be given more than once; the value's Parse adds.
func (o *Option) Multi() *Option { o.bits |= multi; return o }

// Hidden says that the option is read and never printed: another one prints what
// it meant.
func (o *Option) Hidden() *Option { o.bits |= hidden; return o }

// Not says that a ! may stand before the option, and where that is kept.
func (o *Option) Not(inv *bool) *Option { o.not = inv; return o }

// Alias gives the option another name that is read and not printed.
func (o *Option) Alias(names ...string) *Option { o.alias = append(o.alias, names...); return o }

// Needs says which options must be given with this one.
func (o *Option) Needs(names ...string) *Option { o.needs = append(o.needs, names...); return o }

// TakesNothing says that the option has no argument though a value keeps what it
// says; the value's Parse sees an empty word and may take words by Next.
func (o *Option) TakesNothing() *Option { o.bits |= noArg; return o }

// PrintAs prints the whole option, name included, in its own way; it prints
// nothing by returning b.
func (o *Option) PrintAs(f func(b []byte) []byte) *Option { o.print = f; return o }

// Given tells whether the option stood on the line, for Checks.
func (s *Spec) Given(name string) bool {
	for i := range s.opts {
		if s.opts[i].Name == name {
			return s.opts[i].given
		}
	}
	return false
}

func (s *Spec) reset() {
	clear(s.opts)
	s.opts, s.checks, s.groups = s.opts[:0], s.checks[:0], s.groups[:0]
}

// find returns the option of exactly that name.
func (s *Spec) find(name string) int {
	for i := range s.opts {
		if s.opts[i].Name == name {
			return i
		}
		for _, a := range s.opts[i].alias {
			if a == name {
				return i
			}
		}
	}
	return -1
}

// finish runs the checks of a whole line.
func (s *Spec) finish(c *Context) error {
	for i := range s.opts {
		o := &s.opts[i]
		if o.bits&required != 0 && !o.given {
			return fmt.Errorf("option --%s is missing", o.Name)
		}
		for _, n := range o.needs {
			if o.given && !s.Given(n) {
				return fmt.Errorf("option --%s needs --%s", o.Name, n)
			}
		}
	}
	for _, g := range s.groups {
		if err := s.checkGroup(g); err != nil {
			return err
		}
	}
	for _, f := range s.checks {
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spec) checkGroup(g group) error {
	first := ""
	for _, n := range g.names {
		if !s.Given(n) {
			continue
		}
		if first != "" {
			return fmt.Errorf("options --%s and --%s exclude each other", first, n)
		}
		first = n
	}
	if first == "" && g.required {
		return fmt.Errorf("one of the options --%s is missing", joinOptions(g.names))
	}
	return nil
}

func joinOptions(names []string) string {
	s := ""
	for i, n := range names {
		if i > 0 {
			s += ", --"
		}
		s += n
	}
	return s
}
