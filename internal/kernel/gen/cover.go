package gen

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/internal/kernel"
)

// Cover counts how often each extension's rules matched and did not. The zero
// Cover counts nothing yet.
type Cover struct {
	counts map[string]*[2]int // [0] matched, [1] did not
}

// rules is the text of a host's rules by chain.
type rules map[string][][]string

func readRules(text string) rules {
	out := rules{}
	table := ""
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case strings.HasPrefix(f[0], "*"):
			table = f[0][1:]
		case strings.HasPrefix(f[0], ":"):
			out[table+" "+f[0][1:]] = nil
		case f[0] == "-A":
			key := table + " " + f[1]
			out[key] = append(out[key], f[2:])
		}
	}
	return out
}

// Add counts the steps of one answer, whose rules are the iptables-save text. A
// rule that was passed over on the way to a later step of its chain did not
// match.
func (c *Cover) Add(save string, steps []kernel.Step) {
	if c.counts == nil {
		c.counts = map[string]*[2]int{}
	}
	all := readRules(save)
	next := map[string]int{} // by chain, the first rule not yet looked at
	for _, s := range steps {
		key := s.Table + " " + s.Chain
		list := all[key]
		if s.Kind != "rule" || s.N < next[key] {
			next[key] = 0
		}
		for n := max(next[key], 1); n < s.N && n <= len(list); n++ {
			c.count(list[n-1], 1)
		}
		next[key] = s.N + 1
		if s.Kind == "rule" && s.N >= 1 && s.N <= len(list) {
			c.count(list[s.N-1], 0)
		}
		if s.Kind == "policy" || s.Kind == "return" || final(s.Verdict) {
			clear(next)
		}
	}
}

func final(verdict string) bool { return verdict == "ACCEPT" || verdict == "DROP" }

func (c *Cover) count(words []string, how int) {
	for _, name := range names(words) {
		if c.counts[name] == nil {
			c.counts[name] = new([2]int)
		}
		c.counts[name][how]++
	}
}

// names are the extensions and plain options of a rule.
func names(words []string) []string {
	out := []string{}
	for i, w := range words {
		arg := ""
		if i+1 < len(words) {
			arg = words[i+1]
		}
		switch w {
		case "-m", "-j":
			out = append(out, w+" "+arg)
		case "-s", "-d", "-i", "-o", "-f", "-g":
			out = append(out, w)
		case "-p":
			out = append(out, "-p "+arg)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Print writes a line for each name: matched, not matched.
func (c *Cover) Print(w io.Writer) {
	var all []string
	for name := range c.counts {
		all = append(all, name)
	}
	slices.Sort(all)
	for _, name := range all {
		n := c.counts[name]
		fmt.Fprintf(w, "%-24s %8d matched %8d not\n", name, n[0], n[1])
	}
}

// Missing are the names of extensions that the generator draws and that never
// matched (how 0) or never failed to match (how 1).
func (c *Cover) Missing(how int) []string {
	var out []string
	for _, m := range matches() {
		if n := c.counts["-m "+m.name]; n == nil || n[how] == 0 {
			out = append(out, m.name)
		}
	}
	return out
}
