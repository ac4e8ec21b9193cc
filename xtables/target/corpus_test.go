package target_test

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
)

// line is one line of an extension test file: a rule, what it is printed as ("=":
// as it stands), and whether iptables takes it.
type line struct {
	chain, table, rule, want string
	ok                       bool
}

func corpus(t *testing.T) string {
	dir := os.Getenv("HOOKPATH_CORPUS")
	if dir == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("HOOKPATH_CORPUS is not set, and CI must not skip")
		}
		t.Skip("SKIPPED: HOOKPATH_CORPUS is not set")
	}
	return dir
}

func readLines(t *testing.T, file string) []line {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []line
	chains, table := []string{"INPUT"}, "filter"
	for s := bufio.NewScanner(f); s.Scan(); {
		text := s.Text()
		switch {
		case text == "" || text[0] == '#' || text[0] == '%' || text[0] == '@':
		case text[0] == ':':
			chains, table = strings.Split(text[1:], ","), "filter"
		case text[0] == '*':
			table = text[1:]
		default:
			f := strings.Split(text, ";")
			if len(f) < 3 {
				continue
			}
			want := f[1]
			if want == "=" {
				want = f[0]
			}
			for _, c := range chains {
				out = append(out, line{c, table, f[0], want, f[2] == "OK"})
			}
		}
	}
	return out
}

// notOurs are files whose extension is not among the targets of this list.
var notOurs = map[string]string{
	"libxt_SET.t": "needs sets; see the tests of SET",
}

// targetFile are the files of targets: their names are in capital letters.
var targetFile = regexp.MustCompile(`^lib(xt|ipt|ip6t)_[A-Z0-9]+\.t$`)

// familiesOf are the families that a file's lines are for.
func familiesOf(file string) []trace.Family {
	switch {
	case strings.HasPrefix(file, "libipt_"):
		return []trace.Family{trace.IPv4}
	case strings.HasPrefix(file, "libip6t_"):
		return []trace.Family{trace.IPv6}
	}
	return []trace.Family{trace.IPv4, trace.IPv6}
}

// TestCorpus reads the extension tests of iptables 1.8.11 for all targets.
func TestCorpus(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(corpus(t), "ext", "*.t"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no extension tests: %v", err)
	}
	n := 0
	for _, path := range files {
		file := filepath.Base(path)
		if !targetFile.MatchString(file) || notOurs[file] != "" {
			continue
		}
		for _, family := range familiesOf(file) {
			cat := xtables.NewCatalog(family, match.All(), target.All())
			for _, l := range readLines(t, path) {
				n++
				checkLine(t, cat, file, l)
			}
		}
	}
	t.Logf("%d lines", n)
}

func checkLine(t *testing.T, cat *xtables.Catalog, file string, l line) {
	got, err := reprint(cat, l)
	switch {
	case l.ok && err != nil:
		t.Errorf("%s: %s %s: refused: %v", file, l.chain, l.rule, err)
	case l.ok && got != l.want:
		t.Errorf("%s: %s %s: printed %q, want %q", file, l.chain, l.rule, got, l.want)
	case !l.ok && err == nil:
		t.Errorf("%s: %s %s: accepted, printed %q", file, l.chain, l.rule, got)
	}
}

// reprint reads a rule and prints it.
func reprint(cat *xtables.Catalog, l line) (string, error) {
	rs, err := xtables.Parse("*"+l.table+"\n:"+l.chain+" ACCEPT [0:0]\n-A "+l.chain+" "+l.rule+
		"\nCOMMIT\n", xtables.ParseOptions{File: "t", Catalog: cat, Version: xtables.V1811, Force: true})
	if err != nil {
		return "", err
	}
	out := ""
	for i := range rs.Tables[0].Chains[0].Rules {
		out += string(xtables.AppendRule(nil, cat.Family(), &rs.Tables[0].Chains[0].Rules[i]))
	}
	return strings.TrimPrefix(out, " "), nil
}
