package target_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
)

// commandSeeds have the commands that the corpus is short of.
const commandSeeds = `*filter
:INPUT DROP [1:2]
:a - [0:0]
[3:4] -A a -s 10.0.0.1,10.0.0.2 -m comment --comment "x \"y\" z" -j DROP
-I a 2 -p udp -j RETURN
-A INPUT -g a
-D a -s 10.0.0.2 -m comment --comment "x \"y\" z" -j DROP
-C a -p udp -j RETURN
-R a 1 -j ACCEPT
-N b
-E b c
-X c
-Z
-P FORWARD DROP
-F a
COMMIT
*filter
:a - [0:0]
-6 -A INPUT -s ::1
COMMIT
`

// saveSeeds adds the rulesets of the corpus that are not long.
func saveSeeds(f *testing.F) {
	const most = 8 << 10
	f.Add(commandSeeds)
	root := os.Getenv("HOOKPATH_CORPUS")
	if root == "" {
		return // the seeds above do
	}
	for _, dir := range []string{"rulesets", "generators"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(p, ".save") {
				return err
			}
			data, err := os.ReadFile(p)
			if err == nil && len(data) < most {
				f.Add(string(data))
			}
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
	}
}

// unquoted are options whose names iptables-save prints without quotes, so that some
// are not read again.
var unquoted = []string{"--led-trigger-id", "--selctx", "--ulog-prefix", "--label", "--oif",
	"--rateest", "--helper", "--timeout"}

// FuzzSave reads save files that anybody may have written: what is printed of one that
// is accepted is accepted, and prints the same.
func FuzzSave(f *testing.F) {
	saveSeeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		for _, name := range unquoted {
			if strings.Contains(text, name) {
				return
			}
		}
		for _, family := range []trace.Family{trace.IPv4, trace.IPv6} {
			once, err := printed(text, family)
			if err != nil {
				continue
			}
			twice, err := printed(once, family)
			if err != nil || twice != once {
				t.Errorf("%s: printed\n%s\nand read again\n%s\n%v", family, once, twice, err)
			}
		}
	})
}

// printed reads a save file and prints it, with its counters.
func printed(text string, family trace.Family) (string, error) {
	rs, err := xtables.Parse(text, xtables.ParseOptions{File: "t",
		Catalog: xtables.NewCatalog(family, match.All(), target.All())})
	if err != nil {
		return "", err
	}
	return string(xtables.Append(nil, rs, true)), nil
}
