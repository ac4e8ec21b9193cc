package match_test

import (
	"strings"
	"testing"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// FuzzRule reads rules that anybody may have written: nothing panics, and what is
// printed of an accepted rule is accepted and prints the same.
func FuzzRule(f *testing.F) {
	for _, line := range strings.Split(grammar, "\n") {
		if line != "" && !strings.ContainsAny(line[:1], "*#") {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, rule string) {
		if strings.ContainsAny(rule, "\n\r\x00") {
			return
		}
		for _, family := range []trace.Family{trace.IPv4, trace.IPv6} {
			once, ok := accept(rule, family)
			if !ok {
				continue
			}
			twice, ok := accept(once, family)
			if !ok || twice != once {
				t.Errorf("%s: %q is printed %q, and read again %q, %v", family, rule, once, twice, ok)
			}
		}
	})
}

// accept parses a rule and prints it.
func accept(rule string, family trace.Family) (string, bool) {
	rs, err := parse("*mangle\n-A FORWARD "+rule+"\nCOMMIT\n", family)
	if err != nil || len(rs.Tables[0].Chains) == 0 || len(rs.Tables[0].Chains[0].Rules) != 1 {
		return "", false
	}
	r := &rs.Tables[0].Chains[0].Rules[0]
	if r.IP.In != "" || r.IP.Out != "" {
		return "", false // names of interfaces are not this package's to print
	}
	b := xtables.AppendRule(nil, family, r)
	return strings.TrimPrefix(string(b), " "), true
}

// TestFuzzSeedsCompile compiles the seeds, so that no predicate panics when it is made.
func TestFuzzSeedsCompile(t *testing.T) {
	for _, rule := range strings.Split(grammar, "\n") {
		rs, err := parse("*mangle\n-A FORWARD "+rule+"\nCOMMIT\n", trace.IPv4)
		if err != nil {
			continue
		}
		r := &rig{t: t, table: "mangle"}
		if err := r.build(nil); err != nil {
			t.Fatal(err)
		}
		_ = r.compileSet(rs)
	}
}
