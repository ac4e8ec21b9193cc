package target_test

import (
	"bufio"
	"os"
	"path/filepath"
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

// ours are the targets whose lines are run, by file.
var ours = []struct {
	file   string
	family trace.Family
}{
	{"libxt_CHECKSUM", trace.IPv4}, {"libxt_CLASSIFY", trace.IPv4}, {"libxt_CONNMARK", trace.IPv4},
	{"libxt_CT", trace.IPv4}, {"libipt_DNAT", trace.IPv4}, {"libip6t_DNAT", trace.IPv6},
	{"libipt_LOG", trace.IPv4}, {"libxt_MARK", trace.IPv4}, {"libipt_MASQUERADE", trace.IPv4},
	{"libipt_NETMAP", trace.IPv4}, {"libxt_NFLOG", trace.IPv4}, {"libxt_NOTRACK", trace.IPv4},
	{"libxt_REDIRECT", trace.IPv4}, {"libipt_REJECT", trace.IPv4}, {"libip6t_REJECT", trace.IPv6},
	{"libipt_SNAT", trace.IPv4}, {"libip6t_SNAT", trace.IPv6}, {"libxt_TCPMSS", trace.IPv4},
	{"libxt_TOS", trace.IPv4}, {"libxt_TRACE", trace.IPv4},
	{"libipt_TPROXY", trace.IPv4}, {"libipt_TTL", trace.IPv4},
}

func TestCorpus(t *testing.T) {
	dir := corpus(t)
	for _, o := range ours {
		t.Run(o.file, func(t *testing.T) {
			cat := xtables.NewCatalog(o.family, match.All(), target.All())
			for _, l := range readLines(t, filepath.Join(dir, "ext", o.file+".t")) {
				got, err := reprint(cat, l)
				switch {
				case l.ok && err != nil:
					t.Errorf("%s: refused: %v", l.rule, err)
				case l.ok && got != l.want:
					t.Errorf("%s: printed %q, want %q", l.rule, got, l.want)
				case !l.ok && err == nil:
					t.Errorf("%s: accepted, printed %q", l.rule, got)
				}
			}
		})
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
