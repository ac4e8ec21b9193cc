package xtables_test

import (
	"strings"
	"testing"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
)

// TestParseErrors reads files with one mistake each: the error names file and line,
// what is wrong, and where that helps, what to do.
func TestParseErrors(t *testing.T) {
	cat := xtables.NewCatalog(trace.IPv4, match.All(), target.All())
	const head = "*filter\n:INPUT ACCEPT [0:0]\n:A - [0:0]\n:B - [0:0]\n"
	tests := []struct{ name, text, want string }{
		{"cut between lines", head + "-A INPUT -j ACCEPT\n", "f:5: the file ends in table \"filter\" " +
			"without COMMIT: it is cut short"},
		{"cut in a line", head + "-A INPUT -j ACCEPT\n-A", "f:6: -A: the option needs an argument; " +
			"the file ends in this line, without COMMIT: it is cut short"},
		{"unknown option", head + "-A INPUT --dprot 80\nCOMMIT\n", "f:5: --dprot: unknown option"},
		{"unknown match", head + "-A INPUT -m tpc\nCOMMIT\n", `f:5: -m: unknown match "tpc"`},
		{"missing chain", head + "-A INPUT -j C\nCOMMIT\n", `f:5: -j: there is no target and no ` +
			`chain "C" in table "filter"`},
		{"loop", head + "-A A -j B\n-A B -j A\nCOMMIT\n", `f:6: -j: jump from chain "B" to "A" ` +
			`closes a loop`},
		{"bad address", head + "-A INPUT -s 10.0.0.300\nCOMMIT\n",
			`f:5: -s: "10.0.0.300" is not an IP address`},
		{"open quote", head + "-A INPUT -m comment --comment \"x\nCOMMIT\n",
			"f:5: a double quote is not closed"},
		{"outside of a table", "-A INPUT -j ACCEPT\n", `f:1: "-A INPUT -j ACCEPT" stands outside of ` +
			`a table: expected *TABLE first`},
		{"long line", head + "-A INPUT " + strings.Repeat("x", 2<<20) + "\nCOMMIT\n",
			"f:5: the line has 2097161 bytes, more than 1048576"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := xtables.Parse(tt.text, xtables.ParseOptions{File: "f", Catalog: cat})
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}
