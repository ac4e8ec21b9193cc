package match_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// corpus returns the path of the real inputs, and skips without them.
func corpus(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("HOOKPATH_CORPUS")
	if dir == "" {
		t.Skip("HOOKPATH_CORPUS is not set: the extension tests of iptables are not run")
	}
	return dir
}

// extCase is one line of a .t file: a rule, what is printed of it, and whether it is
// accepted.
type extCase struct {
	file, table, chain string
	line               int
	rule, printed      string
	ok                 bool
	family             trace.Family
}

// matchFile are the .t files of matches: their names are in small letters.
var matchFile = regexp.MustCompile(`^lib(xt|ipt|ip6t)_[a-z0-9]+\.t$`)

func extCases(t *testing.T) []extCase {
	files, err := filepath.Glob(filepath.Join(corpus(t), "ext", "*.t"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no extension tests: %v", err)
	}
	var out []extCase
	for _, f := range files {
		if !matchFile.MatchString(filepath.Base(f)) {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, readExt(filepath.Base(f), string(data))...)
	}
	return out
}

func readExt(file, data string) (out []extCase) {
	families := []trace.Family{trace.IPv4, trace.IPv6}
	switch {
	case strings.HasPrefix(file, "libipt_"):
		families = families[:1]
	case strings.HasPrefix(file, "libip6t_"):
		families = families[1:]
	}
	table, chains := "filter", []string(nil)
	for i, line := range strings.Split(data, "\n") {
		switch {
		case line == "" || strings.ContainsAny(line[:1], "#@%"):
			continue
		case line[0] == ':':
			chains, table = strings.Split(line[1:], ","), "filter"
			continue
		case line[0] == '*':
			table = line[1:]
			continue
		}
		f := strings.Split(line, ";")
		if f[1] == "=" {
			f[1] = f[0]
		}
		for _, chain := range chains {
			for _, family := range families {
				out = append(out, extCase{file: file, table: table, chain: chain, line: i + 1,
					rule: f[0], printed: f[1], ok: f[2] == "OK", family: family})
			}
		}
	}
	return out
}

// notHere are the files of extensions that are not among the matches of this list.
var notHere = map[string]bool{"libxt_set.t": true, "libxt_standard.t": true,
	"libipt_standard.t": true, "libip6t_standard.t": true}

// excused are lines that the kernel of the machine decides, not the rule.
var excused = map[string]string{
	"-m nfacct --nfacct-name wrong": "objects are not known here",
}

// TestExtensionFiles reads the extension tests of iptables 1.8.11: each line is
// accepted or refused and printed as they say.
func TestExtensionFiles(t *testing.T) {
	n := 0
	for _, c := range extCases(t) {
		if notHere[c.file] || excused[c.rule] != "" {
			continue
		}
		n++
		got, err := c.load(t)
		switch {
		case !c.ok && err == nil:
			t.Errorf("%s:%d: %s %s: accepted, should be refused", c.file, c.line, c.chain, c.rule)
		case c.ok && err != nil:
			t.Errorf("%s:%d: %s %s: %v", c.file, c.line, c.chain, c.rule, err)
		case c.ok && got != strings.TrimSpace(c.printed):
			t.Errorf("%s:%d: %s %s: printed %q, want %q", c.file, c.line, c.chain, c.rule, got,
				c.printed)
		}
	}
	t.Logf("%d rules", n)
}

// load parses, compiles and prints a rule.
func (c *extCase) load(t *testing.T) (string, error) {
	text := "*" + c.table + "\n-A " + c.chain + " " + c.rule + "\nCOMMIT\n"
	rs, err := parse(text, c.family)
	if err != nil {
		return "", err
	}
	rule := &rs.Tables[0].Chains[0].Rules[0]
	printed := strings.TrimPrefix(string(xtables.AppendRule(nil, c.family, rule)), " ")
	if again, err := parse("*"+c.table+"\n-A "+c.chain+" "+printed+"\nCOMMIT\n", c.family); err != nil {
		t.Errorf("%s:%d: printed %q, which is refused: %v", c.file, c.line, printed, err)
	} else if twice := xtables.AppendRule(nil, c.family, &again.Tables[0].Chains[0].Rules[0]); strings.TrimPrefix(string(twice), " ") != printed {
		t.Errorf("%s:%d: printed %q, and read again %q", c.file, c.line, printed, twice)
	}
	r := &rig{t: t, table: c.table}
	if err := r.build([]string{"-A " + c.chain + " -j ACCEPT"}); err != nil {
		t.Fatal(err)
	}
	err = r.compileSet(rs)
	var un *link.UnsupportedError
	if errors.As(err, &un) || err != nil && strings.Contains(err.Error(), "is not supported") {
		err = nil // read and printed, never run
	}
	return printed, err
}
