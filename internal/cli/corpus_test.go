package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/target"
)

// corpusFile is a line of the corpus' INDEX.tsv: a file with rules that somebody
// else wrote, and how iptables-restore took it.
type corpusFile struct {
	path, text string
	six        bool
	load, note string
}

// corpusRules returns the save files of rulesets and generators.
func corpusRules(t *testing.T) []corpusFile {
	root := os.Getenv("HOOKPATH_CORPUS")
	if root == "" {
		missing(t, "HOOKPATH_CORPUS is not set: no corpus to read")
	}
	index, err := os.ReadFile(filepath.Join(root, "INDEX.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var out []corpusFile
	for line := range strings.Lines(string(index)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if !corpusFolder.MatchString(f[0]) || !strings.HasSuffix(f[1], "tables-save") ||
			strings.HasPrefix(f[1], "ebtables") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(root, f[0]))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, corpusFile{f[0], string(text), f[1] == "ip6tables-save", f[9], f[10]})
	}
	if len(out) == 0 {
		t.Fatal("the index of the corpus names no ruleset")
	}
	return out
}

var corpusFolder = regexp.MustCompile(`^(rulesets|generators)/`)

// missing skips a test, or fails it where nothing may be skipped.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip("SKIPPED: " + what)
}

func needRootTools(t *testing.T, tools ...string) {
	t.Helper()
	if os.Getuid() != 0 {
		missing(t, "needs root")
	}
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, tool+" is not installed")
		}
	}
}

// TestCorpusLoads holds what rules prints of every file that iptables-restore takes
// against the kernel: the kernel prints the same of it as of the original, and the
// same as hookpath did.
func TestCorpusLoads(t *testing.T) {
	needRootTools(t, "unshare", "ipset", "iptables-legacy-restore", "iptables-nft-restore")
	for _, f := range corpusRules(t) {
		if strings.HasPrefix(f.load, "ok") {
			t.Run(f.path, func(t *testing.T) {
				t.Parallel()
				f.text = f.withChains()
				f.hold(t)
			})
		}
	}
}

// refused is what is said of the files that iptables-restore does not take: the line
// is the one that it names.
var refused = map[string]string{
	"generators/antrea/route-restore-11.save": `9: unexpected word "MARK": -o took "-j" as its ` +
		`argument, so a value is missing before it`,
	"rulesets/diekmann/linux-gda-pl.save": `6: --days: unknown option`,
	"rulesets/diekmann/parser-test.save":  `12: --something-else: unknown option`,
	"rulesets/diekmann/tum-2013-10-20.save": `1154: -m mac: --mac-source: "XX:XX:XX:XX:XX:XX" is ` +
		`not a MAC address`,
	"rulesets/diekmann/tum-2014-07-25.save": `1443: -m mac: --mac-source: "XX:XX:XX:XX:XX:XX" is ` +
		`not a MAC address`,
	"rulesets/diekmann/tum-2015-05-15.save": `1684: -m mac: --mac-source: "XX:XX:XX:XX:XX:XX" is ` +
		`not a MAC address`,
	"rulesets/k8s-ipvs/cilium-ipvs-lx1036.nat.broken.save": `52: -j DNAT: --to-destination: the ` +
		`address is missing: an iptables-save that is older than what loaded the rules prints this`,
	"rulesets/k8s/aceq-k8s-node-1.save": `2: the line ends in CR LF: convert the file to Unix ` +
		`line ends`,
	"rulesets/openstack/neutron-linuxbridge-compute-2023.save": `2: the line ends in CR LF: ` +
		`convert the file to Unix line ends`,
	"rulesets/misc/insights-rhel6.save": `8: -g: chain "ACCEPT" does not exist in table "filter"`,
	// Its --test accepts the rules, the kernel does not: checkentry of the target.
	"rulesets/libvirt/kvm-host-doc-01.save": `9: -j CHECKSUM: is only for table mangle, not nat`,
}

// TestCorpusRefuses reads the files that iptables-restore does not take.
func TestCorpusRefuses(t *testing.T) {
	seen := 0
	for _, f := range corpusRules(t) {
		if strings.HasPrefix(f.load, "ok") {
			continue
		}
		seen++
		status, out, errs := f.try(t, f.text)
		want := "rules.save:" + refused[f.path] + "\n"
		if status != exitUsage || out != "" || !strings.HasSuffix(errs, want) {
			t.Errorf("%s: status %d, output %q\n got %swant %s", f.path, status, out, errs, want)
		}
	}
	if seen != len(refused) {
		t.Errorf("the index has %d files that are refused, the table %d", seen, len(refused))
	}
}

// hold compares print and kernel.
func (f *corpusFile) hold(t *testing.T) {
	print := f.rules(t, f.text)
	if again := f.rules(t, print); again != print {
		t.Errorf("read again it prints otherwise:\n%s", firstDifference(again, print))
	}
	for _, backend := range []string{"legacy", "nft"} {
		want := f.kernel(t, backend, f.text)
		ours := sortTables(backend, print)
		if ours != want {
			t.Errorf("%s: hookpath prints and the kernel prints:\n%s", backend,
				firstDifference(ours, want))
		}
		if print == comment.ReplaceAllString(f.text, "") {
			continue // the kernel would be given the same again
		}
		if got := f.kernel(t, backend, print); got != want {
			t.Errorf("%s: the kernel prints of the print and of the original:\n%s", backend,
				firstDifference(got, want))
		}
	}
}

var comment = regexp.MustCompile(`(?m)^#.*\n`)

// rules is what hookpath rules prints of a text.
func (f *corpusFile) rules(t *testing.T, text string) string {
	t.Helper()
	status, out, errs := f.try(t, text)
	if status != exitOK {
		t.Fatalf("hookpath rules: status %d: %s", status, errs)
	}
	return out
}

// try runs hookpath rules on a text.
func (f *corpusFile) try(t *testing.T, text string) (status int, stdout, stderr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "rules.save")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	e := &Env{Out: &out, Err: &errs, Now: testNow}
	args := []string{"rules", "-c", file}
	if f.six {
		args = append(args, "--family", "ip6")
	}
	status = Run(e, args)
	return status, out.String(), errs.String()
}

// kernel loads a text in a namespace of its own and returns what iptables-save says.
func (f *corpusFile) kernel(t *testing.T, backend, text string) string {
	t.Helper()
	const script = `ipset restore <sets && "$1-restore" $2 <text >log 2>&1 && "$1-save" -c`
	dir := t.TempDir()
	for name, data := range map[string]string{"text": text, "sets": f.sets()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tool := "iptables-" + backend
	if f.six {
		tool = "ip6tables-" + backend
	}
	cmd := exec.Command("unshare", "-n", "sh", "-c", script, "sh", tool,
		f.counters())
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C", "XTABLES_LOCKFILE="+filepath.Join(dir, "lock"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "log"))
		t.Errorf("%s does not take it: %v: %s%s", tool, err, &errs, log)
	}
	return sortTables(backend, out.String())
}

// counters is the option by which the counters are loaded too. Without them at every
// chain iptables-restore refuses it.
func (f *corpusFile) counters() string {
	if bareChain.MatchString(f.text) {
		return ""
	}
	return "-c"
}

var bareChain = regexp.MustCompile(`(?m)^:\S+ \S+\s*$`)

// sets is what ipset must know before the file loads: NAME/DIMENSIONS in the index.
func (f *corpusFile) sets() string {
	family := "inet"
	if f.six {
		family = "inet6"
	}
	types := map[string]string{"1": "hash:ip", "2": "hash:ip,port", "3": "hash:ip,port,ip"}
	var b strings.Builder
	for _, m := range namedSet.FindAllStringSubmatch(f.load, -1) {
		fmt.Fprintf(&b, "create %s %s family %s\n", m[1], types[m[2]], family)
	}
	return b.String()
}

var namedSet = regexp.MustCompile(`[=,]([^=,/ ]+)/([123])`)

// withChains declares the chains of a fragment that lacks them: the index notes
// stub-chains.
func (f *corpusFile) withChains() string {
	if !strings.Contains(f.load, "stub-chains") {
		return f.text
	}
	var out, table []string
	for _, line := range strings.Split(f.text, "\n") {
		table = append(table, line)
		if line == "COMMIT" {
			out, table = append(out, declare(table)...), nil
		}
	}
	return strings.Join(append(out, table...), "\n")
}

// declare adds the missing declarations to the lines of a table.
func declare(lines []string) []string {
	known := []string{"INPUT", "OUTPUT", "FORWARD", "PREROUTING", "POSTROUTING"}
	for _, line := range lines {
		if name, ok := strings.CutPrefix(line, ":"); ok {
			known = append(known, strings.Fields(name)[0])
		}
	}
	var stubs []string
	for _, line := range lines {
		for _, m := range chainName.FindAllStringSubmatch(line, -1) {
			if !slices.Contains(known, m[2]) && !isTarget(m[1], m[2]) {
				known = append(known, m[2])
				stubs = append(stubs, ":"+m[2]+" - [0:0]")
			}
		}
	}
	at := slices.IndexFunc(lines, func(s string) bool { return strings.HasPrefix(s, "*") }) + 1
	return slices.Insert(slices.Clone(lines), at, stubs...)
}

var chainName = regexp.MustCompile(`(?:^| )-([AIjg]) (\S+)`)

// isTarget tells -j TARGET from -j chain.
func isTarget(option, name string) bool {
	verdict := slices.Contains([]string{"ACCEPT", "DROP", "RETURN", "QUEUE"}, name)
	return option == "j" && (verdict || slices.ContainsFunc(target.All(),
		func(e xtables.TargetExt) bool { return e.Name == name }))
}

// sortTables leaves comments out and puts the tables in the order of their names:
// the kernel's order is that of loading. Of a table without rules and chains nft makes
// nothing, and prints nothing.
func sortTables(backend, save string) string {
	var tables []string
	table := ""
	for line := range strings.Lines(comment.ReplaceAllString(save, "")) {
		table += line
		if line != "COMMIT\n" {
			continue
		}
		if backend != "nft" || !bareTable.MatchString(table) {
			tables = append(tables, table)
		}
		table = ""
	}
	slices.Sort(tables)
	return strings.Join(tables, "") + table
}

var bareTable = regexp.MustCompile(`^\*\w+\n(:[A-Z]+ ACCEPT \[0:0\]\n)*COMMIT\n$`)

// firstDifference shows where two texts part.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := 0; i < len(g) && i < len(w); i++ {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i+1, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d and %d lines", len(g), len(w))
}
