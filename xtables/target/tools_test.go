package target_test

import (
	"bytes"
	_ "embed"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
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
		t.Skipf("SKIPPED: %s is missing: the machine's iptables is not asked", missing)
	}
}

// loadScript puts each rule to the machine and prints what it makes of it.
const loadScript = `
while IFS= read -r line; do
	case "$line" in
	"*"*) set -- ${line#"*"}; echo; continue ;;
	esac
	if printf '*%s\n-A %s %s\nCOMMIT\n' $1 $2 "$line" | iptables-legacy-restore >/dev/null 2>&1
	then iptables-legacy-save -t $1 | sed -n "s/^-A $2 //p"
	else echo refused
	fi
done`

// knownDiffers are rules where this package departs from the tool on purpose.
var knownDiffers = map[string]string{
	"-p tcp -j SYNPROXY --wscale 256":       "the tool takes it for 0",
	"-p tcp -j SYNPROXY --mss 65536":        "the tool takes it for 0",
	"-p tcp -j CT --helper ftp --timeout x": "timeout policies are not known here",
	"-j CONNMARK --set-mark 1 --ctmask 0xf": "the tool has one place for this mask and that of the mark",

	"-j HMARK --hmark-src-prefix 33 --hmark-mod 7 --hmark-rnd 7": "the tool takes 33 for 32",
	"-p tcp -j TPROXY --on-port 65536":                           "the tool takes it for port 0",
	"-p tcp -j CT --timeout x":                                   "timeout policies are not known here",
	"-j NETMAP --to 10.0.0.0/255.0.255.0":                        "the tool prints another mask than it has loaded",
	"-p tcp -j SNAT --to-source 10.0.0.1:80-90/100":              "the tool takes a base port and prints 0",
}

// TestGrammarAgainstTools holds parser, checks and printer against iptables-legacy.
func TestGrammarAgainstTools(t *testing.T) {
	needTools(t, "unshare", "iptables-legacy", "iptables-legacy-restore")
	cmd := exec.Command("unshare", "-n", "sh", "-c", loadScript)
	cmd.Stdin = strings.NewReader(grammar)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	version := xtables.V189
	if v, _ := exec.Command("iptables-legacy", "-V").Output(); !bytes.Contains(v, []byte("v1.8.9")) {
		version = xtables.V1811
	}
	want := strings.Split(string(out), "\n")
	var where string
	for i, rule := range strings.Split(strings.TrimSpace(grammar), "\n") {
		if rule[0] == '*' {
			where = rule[1:]
			continue
		}
		if knownDiffers[rule] != "" {
			continue
		}
		if got := loadHere(t, where, rule, version); got != want[i] {
			t.Errorf("%s: %s\n got %s\nwant %s", where, rule, got, want[i])
		}
	}
}

// loadHere reads, compiles and prints a rule.
func loadHere(t *testing.T, where, rule string, v xtables.Version) string {
	table, chain, _ := strings.Cut(where, " ")
	text := "*" + table + "\n-A " + chain + " " + rule + "\nCOMMIT\n"
	rs, err := xtables.Parse(text, xtables.ParseOptions{File: "f", Force: true, Version: v,
		Catalog: xtables.NewCatalog(trace.IPv4, match.All(), target.All())})
	if err != nil {
		return "refused"
	}
	if err := compile(t, rs); err != nil && !strings.Contains(err.Error(), "is not supported") {
		return "refused"
	}
	b := xtables.AppendRule(nil, trace.IPv4, &rs.Tables[0].Chains[0].Rules[0])
	return strings.TrimPrefix(string(b), " ")
}

// compile compiles rules on a host without anything.
func compile(t *testing.T, rs *xtables.Ruleset) error {
	t.Helper()
	var schema world.Schema
	rooms := xtables.Rooms{Kernel: xtables.Kernel{Major: 6, Minor: 18}}
	var err error
	if rooms.Links, err = link.New(link.Config{Schema: &schema}); err != nil {
		t.Fatal(err)
	}
	rooms.Conntrack = conntrack.New(&schema, conntrack.Config{})
	c := xtables.Compiler{Build: xtables.Build{Rooms: &rooms, Schema: &schema, HZ: 250}}
	c.Counters = world.Add(&schema, func() *world.Array[xtables.Counters] {
		return world.NewArray[xtables.Counters](c.Next)
	})
	_, err = c.Compile(rs, rs.Tables[0], 0)
	return err
}
