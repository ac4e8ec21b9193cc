package xtables

import (
	"sort"
	"strconv"

	"github.com/hookpath/hookpath/trace"
)

// Append prints a ruleset as iptables-save does: tables in the order of the file,
// built-in chains in hook order, then user chains by name; rule counters only when
// asked for.
func Append(b []byte, rs *Ruleset, counters bool) []byte {
	for _, t := range rs.Tables {
		b = append(append(append(b, '*'), t.Name...), '\n')
		chains := sortedChains(t)
		for _, c := range chains {
			b = appendChain(b, c)
		}
		for _, c := range chains {
			for i := range c.Rules {
				if counters {
					b = append(appendCounters(b, c.Rules[i].Counters), ' ')
				}
				b = append(append(b, "-A "...), c.Name...)
				b = append(AppendRule(b, rs.Family, &c.Rules[i]), '\n')
			}
		}
		b = append(b, "COMMIT\n"...)
	}
	return b
}

func sortedChains(t *Table) []*Chain {
	cs := append([]*Chain(nil), t.Chains...)
	sort.SliceStable(cs, func(i, j int) bool {
		a, b := cs[i], cs[j]
		if a.Builtin != b.Builtin {
			return a.Builtin
		}
		if a.Builtin {
			return a.Hook < b.Hook
		}
		return a.Name < b.Name
	})
	return cs
}

func appendChain(b []byte, c *Chain) []byte {
	b = append(append(append(b, ':'), c.Name...), ' ')
	if c.Builtin {
		b = append(b, c.Policy.String()...)
	} else {
		b = append(b, '-')
	}
	return append(appendCounters(append(b, ' '), c.Counters), '\n')
}

func appendCounters(b []byte, c Counters) []byte {
	b = strconv.AppendUint(append(b, '['), c.Packets, 10)
	b = strconv.AppendUint(append(b, ':'), c.Bytes, 10)
	return append(b, ']')
}

// AppendRule prints what stands behind "-A CHAIN" of a rule, with a blank before
// each word.
func AppendRule(b []byte, f trace.Family, r *Rule) []byte {
	b = appendIP(b, f, &r.IP)
	var s Spec
	for _, m := range r.Matches {
		b = append(append(b, " -m "...), m.Ext.printName()...)
		s.reset()
		m.M.Options(&s)
		b = s.append(b, f)
	}
	switch {
	case r.Ext != nil:
		b = append(append(b, " -j "...), r.Ext.printName()...)
		s.reset()
		r.Target.Options(&s)
		return s.append(b, f)
	case r.Jump == "":
		return b
	case r.Goto:
		return append(append(b, " -g "...), r.Jump...)
	}
	return append(append(b, " -j "...), r.Jump...)
}

func appendIP(b []byte, f trace.Family, t *IPTest) []byte {
	b = appendPrefix(b, f, "-s ", &t.Src, t.Not&NotSrc != 0)
	b = appendPrefix(b, f, "-d ", &t.Dst, t.Not&NotDst != 0)
	b = appendWord(b, "-i ", t.In, t.Not&NotIn != 0)
	b = appendWord(b, "-o ", t.Out, t.Not&NotOut != 0)
	if t.Proto != 0 {
		b = appendWord(b, "-p ", ProtoName(t.Proto), t.Not&NotProto != 0)
	}
	if t.Frag {
		b = append(appendNot(b, t.Not&NotFrag != 0), "-f"...)
	}
	return b
}

func appendNot(b []byte, not bool) []byte {
	if not {
		return append(b, " ! "...)
	}
	return append(b, ' ')
}

func appendPrefix(b []byte, f trace.Family, opt string, p *Prefix, not bool) []byte {
	if p.Unset() && !not {
		return b
	}
	return p.Append(append(appendNot(b, not), opt...), f)
}

func appendWord(b []byte, opt, s string, not bool) []byte {
	if s == "" || s == "+" && !not {
		return b
	}
	return append(append(appendNot(b, not), opt...), s...)
}

// append prints the options of an extension that are not at their default.
func (s *Spec) append(b []byte, f trace.Family) []byte {
	for i := range s.opts {
		b = s.opts[i].append(b, f)
	}
	return b
}

// quieter is a value that is not printed though it is negated.
type quieter interface{ silent() bool }

func isSilent(v Value) bool {
	q, ok := v.(quieter)
	return ok && q.silent()
}

func (o *Option) append(b []byte, f trace.Family) []byte {
	not := o.not != nil && *o.not
	switch {
	case o.bits&hidden != 0:
		return b
	case o.print != nil:
		return o.print(b)
	case o.flag != nil:
		if !*o.flag {
			return b
		}
		return append(append(appendNot(b, not), "--"...), o.Name...)
	case o.value.Unset() && o.bits&always == 0 && !(not && !isSilent(o.value)):
		return b
	}
	b = append(append(appendNot(b, not), "--"...), o.Name...)
	if o.bits&noArg != 0 {
		return b
	}
	return o.value.Append(append(b, ' '), f)
}
