package target_test

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
)

// extCase is one line of an extension test file for one chain and family: a rule,
// what iptables-save prints of it, and whether iptables takes it.
type extCase struct {
	place, table, chain string // "libxt_mark.t:7"
	rule, want          string // want is empty where the file does not say
	ok                  bool
	family              trace.Family
	variant             string // a back end that has a result of its own
}

func corpus(t *testing.T) string {
	dir := os.Getenv("HOOKPATH_CORPUS")
	if dir == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("HOOKPATH_CORPUS is not set, and CI must not skip")
		}
		t.Skip("SKIPPED: HOOKPATH_CORPUS is not set: the extension tests of iptables are not run")
	}
	return filepath.Join(dir, "ext")
}

// extFile are the files of iptables and ip6tables; ebtables and arptables have theirs.
var extFile = regexp.MustCompile(`^(iptables|lib(xt|ipt|ip6t)_.*)\.t$`)

func extCases(t *testing.T) (out []extCase) {
	entries, err := os.ReadDir(corpus(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !extFile.MatchString(e.Name()) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(corpus(t), e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, readExt(e.Name(), string(data))...)
	}
	return out
}

// familiesOf are the families that a file's lines are for.
func familiesOf(file string) []trace.Family {
	switch {
	case strings.HasPrefix(file, "libip6t_"):
		return []trace.Family{trace.IPv6}
	case strings.HasPrefix(file, "libxt_"):
		return []trace.Family{trace.IPv4, trace.IPv6}
	}
	return []trace.Family{trace.IPv4}
}

func readExt(file, data string) (out []extCase) {
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
		f := append(strings.Split(line, ";"), "")
		if f[1] == "=" {
			f[1] = f[0]
		}
		for _, chain := range chains {
			for _, family := range familiesOf(file) {
				out = append(out, extCase{file + ":" + strconv.Itoa(i+1), table, chain, f[0],
					strings.TrimSpace(f[1]), f[2] == "OK", family, f[3]})
			}
		}
	}
	return out
}

// of is the line for a back end. Where the result is that of legacy, nft has another:
// it does not print what the file says, or takes what legacy refuses.
func (c extCase) of(b xtables.Backend) extCase {
	if c.variant == "LEGACY" && b == xtables.NFT {
		c.ok, c.want = true, ""
	}
	return c
}

// objects are lines that ask for an object that other tools make.
var objects = map[string]string{
	"-m nfacct --nfacct-name wrong": "accounting objects are not in a snapshot",
}

// TestExtensions1811 reads the extension tests of iptables 1.8.11.
func TestExtensions1811(t *testing.T) {
	r := extRig(t)
	n := map[bool]int{}
	for _, c := range extCases(t) {
		for _, b := range []xtables.Backend{xtables.Legacy, xtables.NFT} {
			if objects[c.rule] != "" {
				continue
			}
			c := c.of(b)
			n[c.ok]++
			c.check(t, r, b, xtables.V1811)
		}
	}
	t.Logf("%d rules taken, %d refused", n[true], n[false])
}

// TestExtensions189 reads the same as iptables 1.8.9 did.
func TestExtensions189(t *testing.T) {
	r, oracle := extRig(t), readOracle(t)
	n := map[bool]int{}
	for _, c := range extCases(t) {
		for _, b := range []xtables.Backend{xtables.Legacy, xtables.NFT} {
			c := c
			if objects[c.rule] != "" || !c.learn(oracle, b) {
				continue
			}
			n[c.ok]++
			c.check(t, r, b, xtables.V189)
		}
	}
	t.Logf("%d rules taken, %d refused", n[true], n[false])
}

// verdict is what a real iptables made of a line.
type verdict struct{ result, detail string }

func readOracle(t *testing.T) map[string]verdict {
	data, err := os.ReadFile(filepath.Join(corpus(t), "ORACLE.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]verdict{}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if len(f) == 8 {
			out[f[0]+":"+strings.Join(f[1:5], " ")] = verdict{f[6], f[7]}
		}
	}
	return out
}

// lacking are messages of a kernel that does not have the extension.
var lacking = regexp.MustCompile(`missing kernel module|No chain/target/match by that name|` +
	`No such file or directory|Invalid argument`)

// learn takes what the oracle says in place of the file's word; false where it says
// nothing about the rule.
func (c *extCase) learn(oracle map[string]verdict, b xtables.Backend) bool {
	tool := "iptables"
	if c.family == trace.IPv6 {
		tool = "ip6tables"
	}
	file, line, _ := strings.Cut(c.place, ":")
	v, ok := oracle[file+":"+strings.Join([]string{line, tool, b.String(), c.chain}, " ")]
	switch {
	case !ok, v.result == "FAIL" && c.ok && lacking.MatchString(v.detail):
		return false
	case v.result == "DIFF" && !c.ok:
		c.want = ""
	case v.result == "DIFF":
		if c.want = strings.TrimSpace(v.detail); c.want == "" {
			c.want = " " // nothing is printed of the rule
		}
	}
	c.ok = v.result != "FAIL"
	return true
}

func extRig(t *testing.T) *rig {
	r := &rig{t: t}
	if err := r.build(); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.rooms.Sets, err = ipset.New(&r.schema, readSets(t)); err != nil {
		t.Fatal(err)
	}
	return r
}

// check holds what the line says against what is made of it here.
func (c *extCase) check(t *testing.T, r *rig, b xtables.Backend, v xtables.Version) {
	t.Helper()
	got, err := c.load(r, c.rule, b, v)
	where := c.place + ": " + c.family.String() + " " + b.String() + " " + c.chain + " " + c.rule
	switch {
	case !c.ok && err == nil:
		t.Errorf("%s: taken, should be refused; printed %q", where, got)
	case c.ok && err != nil:
		t.Errorf("%s: %v", where, err)
	case c.ok && c.want != "" && got != strings.TrimSpace(c.want):
		t.Errorf("%s: printed %q, want %q", where, got, c.want)
	case c.ok:
		if again, err := c.load(r, got, b, v); err != nil || again != got {
			t.Errorf("%s: printed %q, and read again %q, %v", where, got, again, err)
		}
	}
}

// load parses, compiles and prints a rule.
func (c *extCase) load(r *rig, rule string, b xtables.Backend, v xtables.Version) (string, error) {
	head := "# Generated by iptables-save v1.8.9\n"
	if b == xtables.NFT {
		head = "# Generated by iptables-save v1.8.9 (nf_tables)\n"
	}
	rs, err := xtables.Parse(head+"*"+c.table+"\n-A "+c.chain+" "+rule+"\nCOMMIT\n",
		xtables.ParseOptions{File: "t", Force: true, Version: v,
			Catalog: xtables.NewCatalog(c.family, match.All(), target.All())})
	if err != nil {
		return "", err
	}
	compiler := xtables.Compiler{Build: xtables.Build{Rooms: &r.rooms, Schema: &r.schema, HZ: 250}}
	_, err = compiler.Compile(rs, rs.Tables[0], 0)
	var un *link.UnsupportedError
	if errors.As(err, &un) || err != nil && strings.Contains(err.Error(), "is not supported") {
		err = nil // read and printed, never run
	}
	rules := rs.Tables[0].Chain(c.chain).Rules
	return strings.TrimPrefix(string(xtables.AppendRule(nil, c.family, &rules[0])), " "), err
}
