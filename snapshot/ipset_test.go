package snapshot

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

const setNow = world.Instant(1735732800) * world.Second

// printSets prints sets as `ipset save` does, entries sorted.
func printSets(t *testing.T, sets []ipset.Set) string {
	t.Helper()
	var schema world.Schema
	live, err := ipset.New(&schema, sets)
	if err != nil {
		t.Fatal(err)
	}
	w := &world.World{State: schema.NewState(), Now: setNow, HZ: 250}
	var b strings.Builder
	for i := range sets {
		fmt.Fprintf(&b, "%s %s\n", sets[i].Name, sets[i].Type)
		var lines []string
		live.Entries(w, i, func(e *ipset.Entry) bool {
			lines = append(lines, string(sets[i].AppendEntry(nil, e)))
			return true
		})
		slices.Sort(lines)
		for _, l := range lines {
			b.WriteString("  " + l + "\n")
		}
	}
	return b.String()
}

// setFiles are the two forms of the same sets.
var setFiles = []string{`create ports bitmap:port range 0-1024 comment
add ports 80 comment "the web"
create nets hash:net family inet hashsize 1024 maxelem 65536 timeout 600 counters bucketsize 12 initval 0x634e9a4e
add nets 10.0.0.0/8 timeout 7 nomatch packets 4 bytes 10
create six hash:ip,port family inet6 hashsize 1024 maxelem 65536 bucketsize 12 initval 0x00000001
add six fe80::1,ipv6-icmp:echo-request
create all list:set size 8
add all nets
add all ports
`, `Name: ports
Type: bitmap:port
Revision: 3
Header: range 0-1024 comment
Size in memory: 80
References: 1
Number of entries: 1
Members:
80 comment "the web"

Name: nets
Type: hash:net
Revision: 7
Header: family inet hashsize 1024 maxelem 65536 timeout 600 counters bucketsize 12 initval 0x634e9a4e
Size in memory: 908
References: 1
Number of entries: 1
Members:
10.0.0.0/8 timeout 7 nomatch packets 4 bytes 10

Name: six
Type: hash:ip,port
Revision: 6
Header: family inet6 hashsize 1024 maxelem 65536 bucketsize 12 initval 0x00000001
Size in memory: 216
References: 0
Number of entries: 1
Members:
fe80::1,ipv6-icmp:echo-request

Name: all
Type: list:set
Revision: 3
Header: size 8
Size in memory: 176
References: 0
Number of entries: 2
Members:
nets
ports
`}

const wantSets = `ports bitmap:port
  80 comment "the web"
nets hash:net
  10.0.0.0/8 timeout 7 nomatch packets 4 bytes 10
six hash:ip,port
  fe80::1,ipv6-icmp:echo-request
all list:set
  nets
  ports
`

func TestReadSets(t *testing.T) {
	for _, text := range setFiles {
		sets, err := parseIPSet("ipset-save", []byte(text), setNow)
		if err != nil {
			t.Fatal(err)
		}
		if got := printSets(t, sets); got != wantSets {
			t.Errorf("got\n%s\nwant\n%s", got, wantSets)
		}
	}
}

// TestNoSets: a file without sets is not the same as no file.
func TestNoSets(t *testing.T) {
	sets, err := parseIPSet("ipset-save", []byte("\n# nothing\n"), setNow)
	if err != nil || sets == nil || len(sets) != 0 {
		t.Errorf("%v, %v", sets, err)
	}
}

var setErrors = []struct{ text, want string }{
	{"create s hash:ip\nadd s 0.0.0.0", "ipset-save:2: add s 0.0.0.0: an element with address zero"},
	{"create s hash:ip\n\nadd t 1.1.1.1", `ipset-save:3: add: there is no set "t"`},
	{"create s hash:ip\ncreate s hash:ip", "ipset-save:2: create s: there is a set of this name"},
	{"create s hash:ip forcead", `ipset-save:1: create s: hash:ip: unknown option "forcead"`},
	{"create s hash:ip\nflush s", `ipset-save:2: "flush" is neither create nor add`},
	{"create s hash:ip\nadd s", "ipset-save:2: add s : add needs an element"},
	{"add", "ipset-save:1: expected create"},
	{"create l list:set\nadd l x", `ipset-save:2: add l x: there is no set "x"`},
	{"create l list:set\ncreate m list:set\nadd m l", `ipset-save:3: add m l: "l" is a list itself`},
	{"Name: s\nType: hash:ip\nHeader: family inet\nNumber of entries: 2\n", "ipset-save:1: set s has no members"},
	{"Name: s\nType: hash:ip\nHeader: family inet\nNumber of entries: 2\nMembers:\n1.1.1.1\n",
		"ipset-save:1: set s has 2 entries, but 1 are listed"},
	{"Name: s\nType: hash:what\nHeader:\nMembers:\n", "ipset-save:4: set s: unknown set type"},
	{"Name: s\nColour: red\n", "ipset-save:2: unknown line"},
	{"create s hash:ip comment\nadd s 1.1.1.1 comment \"x", "ipset-save:2: a quoted text does not end"},
	{"create s hash:ip\nadd s " + strings.Repeat("1", 5000), "ipset-save:2: the line is longer"},
}

func TestSetErrors(t *testing.T) {
	for _, c := range setErrors {
		_, err := parseIPSet("ipset-save", []byte(c.text), setNow)
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.60q: %v, want %s", c.text, err, c.want)
		}
	}
}

// setCorpus are the files of ipset's own tests.
func setCorpus(t *testing.T, pattern string) []string {
	t.Helper()
	dir := os.Getenv("HOOKPATH_CORPUS")
	if dir == "" {
		t.Skip("HOOKPATH_CORPUS is not set: the tests of ipset are not run")
	}
	files, err := filepath.Glob(filepath.Join(dir, "ipset", "ipset-tests", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return files
}

// TestSetListings reads the listings that ipset's tests expect, and prints the same
// members.
func TestSetListings(t *testing.T) {
	n := 0
	for _, f := range setCorpus(t, "*.list*") {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.ReplaceAll(string(data), "timeout x", "timeout 3")
		sets, err := parseIPSet(filepath.Base(f), []byte(text), setNow)
		if err != nil {
			t.Error(err)
			continue
		}
		if len(sets) > 1 {
			continue
		}
		_, got, _ := strings.Cut(printSets(t, sets), "\n")
		_, rest, _ := strings.Cut(text, "Members:\n")
		want := strings.Split(strings.TrimSpace(rest), "\n")
		slices.Sort(want)
		n += len(want)
		if strings.Join(strings.Split(strings.TrimSpace(got), "\n  "), "\n") != strings.Join(want, "\n") {
			t.Errorf("%s:\n%s\nwant\n%s", filepath.Base(f), got, strings.Join(want, "\n"))
		}
	}
	t.Logf("%d members", n)
}

// setScript runs the lines of ipset's tests that make sets, add and test, as far as one
// can without a shell. After a deletion a set is not known any more.
type setScript struct {
	t     *testing.T
	sets  map[string]*ipset.Set
	dirty map[string]bool
	now   world.Instant
	ran   int
	// create and adds make a set once more: looking at one freezes it.
	create map[string][]string
	adds   map[string][]scriptAdd
}

type scriptAdd struct {
	e     ipset.Entry
	exist bool
	now   world.Instant
}

var setCommands = map[string]string{"n": "create", "-N": "create", "new": "create",
	"create": "create", "a": "add", "-A": "add", "add": "add", "t": "test", "-T": "test",
	"test": "test", "d": "del", "-D": "del", "del": "del", "x": "destroy", "-X": "destroy",
	"destroy": "destroy", "f": "flush", "-F": "flush", "flush": "flush"}

func (s *setScript) run(file string, n int, line string) {
	status, cmd, ok := strings.Cut(line, " ")
	if sec := ""; ok && strings.HasPrefix(cmd, "sleep ") {
		_, sec, _ = strings.Cut(cmd, " ")
		var d int
		_, _ = fmt.Sscan(strings.TrimSuffix(sec, "s"), &d)
		s.now += world.Instant(d)*world.Second + world.Second/2
		for name := range s.sets {
			s.dirty[name+" add"] = true
		}
		return
	}
	if !ok || !strings.HasPrefix(cmd, "ipset ") || strings.HasPrefix(line, "#") {
		return
	}
	if strings.ContainsAny(cmd, "|&;$`()<>") {
		clear(s.sets)
		return
	}
	words, err := ipset.Words(strings.NewReplacer("'", "", " -! ", " ", " -exist", "").Replace(cmd[6:]), nil)
	if err != nil || len(words) < 2 {
		return
	}
	exist := strings.Contains(cmd, "-!") || strings.Contains(cmd, "-exist")
	if what := setCommands[words[0]]; what != "" {
		s.command(what, words[1:], exist, func(got bool, why error) {
			s.ran++
			if want := status == "0"; got != want {
				s.t.Errorf("%s:%d: %s: %v (%v)", file, n, line, got, why)
			}
		})
	}
}

func (s *setScript) command(what string, w []string, exist bool, check func(bool, error)) {
	rd := ipset.Reader{Proto: xtables.ParseProto}
	name := w[0]
	set := s.sets[name]
	switch {
	case what == "create":
		if slices.ContainsFunc(w, func(x string) bool { return strings.HasPrefix(x, "--") }) {
			return
		}
		set, err := rd.Create(w)
		check(err == nil, err)
		delete(s.dirty, name)
		delete(s.dirty, name+" add")
		s.sets[name] = set
		s.create[name], s.adds[name] = slices.Clone(w), nil
	case what == "destroy" || what == "flush":
		delete(s.sets, name)
	case set == nil || len(w) < 2:
	case what == "del":
		s.dirty[name] = true
	case s.dirty[name]:
	case what == "add" && !s.dirty[name+" add"]:
		e, _, err := rd.Entry(set, w[1:])
		if err == nil {
			err = set.Add(&e, exist, s.now)
			s.adds[name] = append(s.adds[name], scriptAdd{e, exist, s.now})
		}
		check(err == nil, err)
	case what == "test":
		s.test(w, check)
	}
}

func (s *setScript) test(w []string, check func(bool, error)) {
	rd := ipset.Reader{Proto: xtables.ParseProto}
	set, err := rd.Create(s.create[w[0]])
	if err != nil {
		s.t.Fatal(err)
	}
	for _, a := range s.adds[w[0]] {
		_ = set.Add(&a.e, a.exist, a.now) // some are refused
	}
	e, _, err := rd.Entry(set, w[1:])
	if err != nil {
		check(false, err)
		return
	}
	var schema world.Schema
	live, err := ipset.New(&schema, []ipset.Set{*set})
	if err != nil {
		check(false, err)
		return
	}
	check(live.Holds(&world.World{State: schema.NewState(), Now: s.now, HZ: 250}, 0, &e), nil)
}

// TestSetScripts holds what is accepted, refused and found against ipset's own tests.
func TestSetScripts(t *testing.T) {
	ran := map[string]int{}
	for _, f := range setCorpus(t, "*.t") {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s := setScript{t: t, sets: map[string]*ipset.Set{}, dirty: map[string]bool{}, now: setNow,
			create: map[string][]string{}, adds: map[string][]scriptAdd{}}
		for i, line := range strings.Split(string(data), "\n") {
			s.run(filepath.Base(f), i+1, line)
		}
		ran[filepath.Base(f)] = s.ran
	}
	for _, f := range slices.Sorted(maps.Keys(ran)) {
		t.Logf("%-22s %3d commands", f, ran[f])
	}
}

// FuzzIPSet reads what anybody may have written.
func FuzzIPSet(f *testing.F) {
	for _, text := range setFiles {
		f.Add(text)
	}
	for _, c := range setErrors {
		f.Add(c.text)
	}
	f.Add("create s hash:net,iface family inet6\nadd s ::/0,eth0 wildcard\ncreate b bitmap:ip range 0.0.0.0/0 netmask 16")
	f.Add("create s hash:ip,port,net\nadd s 1.1.1.1-1.1.1.9,80-90,10.0.0.0-10.0.0.9 -exist")
	f.Fuzz(func(t *testing.T, text string) {
		sets, err := parseIPSet("ipset-save", []byte(text), setNow)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "ipset-save:") {
				t.Errorf("an error without place: %v", err)
			}
			return
		}
		printSets(t, sets)
	})
}
