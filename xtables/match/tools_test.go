package match_test

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
)

//go:embed testdata/grammar.txt
var grammar string

// needTools skips a test where it can't ask the machine's iptables.
func needTools(t *testing.T, tools ...string) {
	t.Helper()
	missing := ""
	if os.Getuid() != 0 {
		missing = "root"
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing = tool
		}
	}
	switch {
	case missing != "" && os.Getenv("CI") == "true":
		t.Fatalf("%s is missing", missing)
	case missing != "":
		t.Skipf("%s is missing: the machine's iptables is not asked", missing)
	}
}

// loadScript loads each save file that its input names and says whether it loaded and,
// if so, what is saved of it.
const loadScript = `
while read -r file table; do
	if iptables-legacy-restore $file >/dev/null 2>&1
	then iptables-legacy-save -t $table | grep ^-A; echo .
	else echo refused; echo .
	fi
done`

// knownDiffers are rules where this package departs from the tool on purpose.
var knownDiffers = map[string]string{
	"-p udp --sport 65536":      "the tool takes it for port 0",
	"-p udp --sport 0x50:010":   "the tool reads such ports as names, here they are numbers",
	"-p icmp --icmp-type 8/1:3": "the tool prints less than it has loaded",
	"-m conntrack --ctorigsrc 10.0.0.5/255.0.255.0 ! --ctrepldst 1.2.3.4 --ctdir REPLY": "the tool " +
		"prints less than it has loaded",
	"-m recent --rcheck --seconds 4294967295":                    "the tool prints -1",
	"-m connlimit --connlimit-above 3 --connlimit-mask 33":       "the tool takes 32",
	"-m hashlimit --hashlimit-above 1gb/s --hashlimit-name b7":   "the tool takes 1b/s, prints 0b/s",
	"-m hashlimit --hashlimit-above 1b/s --hashlimit-name a8":    "the tool prints 0b/s",
	"-m hashlimit --hashlimit-above 15b/s --hashlimit-name a9":   "the tool prints 0b/s",
	`-m recent --set --name "a b"`:                               "the tool prints no quotes",
	`-m hashlimit --hashlimit-upto 5/sec --hashlimit-name "a b"`: "the tool prints no quotes",
	"-m nfacct --nfacct-name test":                               "there is no such object there",
}

// placed is a rule of the grammar with its table and chain.
type placed struct{ table, chain, rule string }

func grammarRules() (out []placed) {
	var p placed
	for _, line := range strings.Split(strings.TrimSpace(grammar), "\n") {
		switch {
		case line[0] == '*':
			p.table, p.chain, _ = strings.Cut(line[1:], " ")
		case line[0] != '#' && knownDiffers[line] == "":
			p.rule = line
			out = append(out, p)
		}
	}
	return out
}

// TestGrammarAgainstTools holds parser, checks and printer against iptables-legacy:
// what is accepted here loads there and is saved the same, what is refused here is
// refused there.
func TestGrammarAgainstTools(t *testing.T) {
	needTools(t, "unshare", "iptables-legacy-restore", "iptables-legacy-save")
	version := xtables.V189
	if v, _ := exec.Command("iptables-legacy", "-V").Output(); !bytes.Contains(v, []byte("v1.8.9")) {
		version = xtables.V1811
	}
	accepted := map[string][]string{} // rules by table, as lines
	want := map[string][]string{}
	var files []loadFile
	for _, p := range grammarRules() {
		line := "-A " + p.chain + " " + p.rule
		got := loadHere(t, p, version)
		if got == "refused" {
			files = append(files, loadFile{p.table, []string{line}, []string{"refused"}})
			continue
		}
		accepted[p.table] = append(accepted[p.table], line)
		want[p.table] = append(want[p.table], strings.TrimSpace("-A "+p.chain+" "+got))
	}
	for table, lines := range accepted {
		files = append(files, loadFile{table, lines, want[table]})
	}
	for i, got := range loadThere(t, files) {
		files[i].compare(t, got)
	}
}

// loadFile is a save file of one table, and what is expected of it.
type loadFile struct {
	table       string
	lines, want []string
}

// loadThere puts files to the machine in a namespace of their own.
func loadThere(t *testing.T, files []loadFile) [][]string {
	dir := t.TempDir()
	var list strings.Builder
	for i, f := range files {
		name := filepath.Join(dir, strconv.Itoa(i))
		text := "*" + f.table + "\n" + strings.Join(f.lines, "\n") + "\nCOMMIT\n"
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&list, name, f.table)
	}
	cmd := exec.Command("unshare", "-n", "sh", "-c", loadScript)
	cmd.Stdin = strings.NewReader(list.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var all [][]string
	for _, part := range strings.Split(strings.TrimSuffix(string(out), "\n.\n"), "\n.\n") {
		all = append(all, strings.Split(part, "\n"))
	}
	if len(all) != len(files) {
		t.Fatalf("%d answers to %d files", len(all), len(files))
	}
	return all
}

// compare holds an answer against what is expected. Chains are saved one after
// another, so lines are compared chain by chain.
func (f *loadFile) compare(t *testing.T, got []string) {
	slices.SortStableFunc(f.want, byChain)
	slices.SortStableFunc(got, byChain)
	if len(got) != len(f.want) {
		t.Errorf("table %s: %d rules, want %d: %s", f.table, len(got), len(f.want),
			strings.Join(f.lines, "; "))
		return
	}
	for i := range got {
		if got[i] != f.want[i] {
			t.Errorf("table %s: %s\n got %s\nwant %s", f.table, f.lines[min(i, len(f.lines)-1)],
				f.want[i], got[i])
		}
	}
}

func byChain(a, b string) int { return strings.Compare(chainOf(a), chainOf(b)) }

func chainOf(line string) string {
	chain, _, _ := strings.Cut(strings.TrimPrefix(line, "-A "), " ")
	return chain
}

// loadHere returns what is printed of a rule, or that it is refused.
func loadHere(t *testing.T, p placed, v xtables.Version) string {
	table, chain := p.table, p.chain
	text := "*" + table + "\n-A " + chain + " " + p.rule + "\nCOMMIT\n"
	rs, err := xtables.Parse(text, xtables.ParseOptions{File: "f", Force: true, Version: v,
		Catalog: xtables.NewCatalog(trace.IPv4, match.All(), nil)})
	if err != nil {
		return "refused"
	}
	r := &rig{t: t, table: table}
	if err := r.build([]string{"-A " + chain + " -j ACCEPT"}); err != nil {
		t.Fatal(err)
	}
	if err := r.compileSet(rs); err != nil && !strings.Contains(err.Error(), "is not supported") {
		return "refused"
	}
	b := xtables.AppendRule(nil, trace.IPv4, &rs.Tables[0].Chains[0].Rules[0])
	return strings.TrimPrefix(string(b), " ")
}
