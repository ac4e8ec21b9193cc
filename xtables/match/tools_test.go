package match_test

import (
	"bytes"
	_ "embed"
	"os"
	"os/exec"
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

// loadScript puts each rule to the machine and prints what it makes of it.
const loadScript = `
while IFS= read -r line; do
	case "$line" in
	"*"*) set -- ${line#"*"}; echo; continue ;;
	"#"*) echo; continue ;;
	esac
	iptables-legacy -t $1 -F $2
	if printf '*%s\n-A %s %s\nCOMMIT\n' $1 $2 "$line" | iptables-legacy-restore -n >/dev/null 2>&1
	then iptables-legacy-save -t $1 | sed -n "s/^-A $2 //p"
	else echo refused
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
		switch {
		case rule[0] == '*':
			where = rule[1:]
			continue
		case rule[0] == '#' || knownDiffers[rule] != "":
			continue
		}
		if got := loadHere(t, where, rule, version); got != want[i] {
			t.Errorf("%s: %s\n got %s\nwant %s", where, rule, got, want[i])
		}
	}
}

func loadHere(t *testing.T, where, rule string, v xtables.Version) string {
	table, chain, _ := strings.Cut(where, " ")
	text := "*" + table + "\n-A " + chain + " " + rule + "\nCOMMIT\n"
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
