package target_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
)

// FuzzRule reads rules that anybody may have written: nothing panics, and what is
// printed of an accepted rule is accepted and prints the same.
func FuzzRule(f *testing.F) {
	for _, line := range strings.Split(grammar, "\n") {
		if line != "" && line[0] != '*' {
			f.Add(line)
		}
	}
	f.Fuzz(func(t *testing.T, rule string) {
		if strings.ContainsAny(rule, "\n\r\x00") {
			return
		}
		for _, family := range []trace.Family{trace.IPv4, trace.IPv6} {
			for _, table := range []string{"mangle", "nat", "raw", "filter"} {
				checkTwice(t, table, rule, family)
			}
		}
	})
}

func checkTwice(t *testing.T, table, rule string, family trace.Family) {
	once, ok := accept(table, rule, family)
	if !ok || slices.ContainsFunc(unquoted, func(o string) bool { return strings.Contains(rule, o) }) {
		return
	}
	twice, ok := accept(table, once, family)
	if !ok || twice != once {
		t.Errorf("%s: %q is printed %q, and read again %q, %v", family, rule, once, twice, ok)
	}
}

// accept parses a rule and prints it.
func accept(table, rule string, family trace.Family) (string, bool) {
	rs, err := xtables.Parse("*"+table+"\n-A OUTPUT "+rule+"\nCOMMIT\n", xtables.ParseOptions{
		File: "t", Force: true, Version: xtables.V1811,
		Catalog: xtables.NewCatalog(family, match.All(), target.All())})
	if err != nil || len(rs.Tables[0].Chains) == 0 || len(rs.Tables[0].Chains[0].Rules) != 1 {
		return "", false
	}
	b := xtables.AppendRule(nil, family, &rs.Tables[0].Chains[0].Rules[0])
	return strings.TrimPrefix(string(b), " "), true
}
