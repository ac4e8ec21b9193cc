package hookpath_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// house is the list of rooms: a folder may import only folders above it. From
// top to bottom it is also the packet's way. A folder inside a room that is not
// named here has the room's place and may import the room itself.
var house = []string{
	"packet",
	"field",
	"world",
	"trace",
	"link",
	"route",
	"socket",
	"conntrack",
	"nat",
	"ipset",
	"ipvs",
	"xtables",
	"xtables/match",
	"xtables/target",
	"xtables/ebt",
	"xtables/arpt",
	"bridge",
	"walk",
	"explore",
	"lab",
	"snapshot",
	"kube",
	"report",
	"prove",
	"dataplane",
	"web",
	"demos",
	"internal/bench",
	"internal/kernel",
	"internal/kernel/uml",
	"internal/kernel/gen",
	"internal/kernel/compare",
	"internal/cli",
	"cmd",
}

// outdoors are the only rooms that touch the operating system.
var outdoors = []string{"snapshot", "dataplane", "web", "demos", "internal/bench",
	"internal/kernel",
	"internal/kernel/uml",
	"internal/kernel/compare",
	"internal/cli", "cmd"}

// system are imports by which a room would reach the operating system.
var system = []string{"os", "os/exec", "net", "syscall", "golang.org/x/sys/unix",
	"github.com/vishvananda/netlink", "github.com/vishvananda/netns"}

const module = "github.com/hookpath/hookpath"

// pkg is what is needed of go list's answer. Tests are not looked at: they may
// hold a room against any other.
type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
	GoFiles    []string
}

// TestHouse holds every package against the house.
func TestHouse(t *testing.T) {
	for _, complaint := range inspect(list(t)) {
		t.Error(complaint)
	}
}

// TestHouseFails sees that each rule of the house can be broken.
func TestHouseFails(t *testing.T) {
	good := pkg{module + "/route", "Package route.", []string{"fmt", module + "/link"},
		[]string{"fib.go"}}
	tests := []struct {
		name   string
		change func(*pkg)
		want   string // part of the complaint, empty for none
	}{
		{"as it should be", func(*pkg) {}, ""},
		{"a folder inside a room", func(p *pkg) { p.ImportPath += "/inner" }, ""},
		{"inside a room, the room", func(p *pkg) {
			p.ImportPath, p.Imports = module+"/route/inner", []string{module + "/route"}
		}, ""},
		{"a room, what is inside it", func(p *pkg) {
			p.Imports = []string{module + "/route/inner"}
		}, "may not import"},
		{"an import from below", func(p *pkg) { p.Imports = []string{module + "/nat"} },
			"route may not import nat"},
		{"an import of a folder below", func(p *pkg) {
			p.Imports = []string{module + "/xtables/match"}
		}, "route may not import xtables/match"},
		{"an unknown folder", func(p *pkg) { p.ImportPath = module + "/util" },
			"util is not in the house"},
		{"an import of an unknown folder", func(p *pkg) {
			p.Imports = []string{module + "/util"}
		}, "route imports util, which is not in the house"},
		{"a name that only begins like a room", func(p *pkg) {
			p.ImportPath = module + "/routes"
		}, "routes is not in the house"},
		{"no doc comment", func(p *pkg) { p.Doc = "" }, "no doc comment"},
		{"the operating system", func(p *pkg) { p.Imports = []string{"os/exec"} },
			"touches the operating system"},
		{"the operating system, where one may", func(p *pkg) {
			p.ImportPath, p.Imports = module+"/internal/cli", []string{"os/exec"}
		}, ""},
	}
	for _, tt := range tests {
		p := good
		tt.change(&p)
		got := strings.Join(inspect([]pkg{p}), "; ")
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// list asks the go command for all packages of the module. What does not compile
// is for others to complain about.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Doc,Imports,GoFiles", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 { // else it holds nothing but tests
			all = append(all, p)
		}
	}
	if len(all) == 0 {
		t.Fatal("go list names no package")
	}
	return all
}

// inspect returns what is wrong with the packages.
func inspect(pkgs []pkg) []string {
	var out []string
	for _, p := range pkgs {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		if p.Doc == "" {
			out = append(out, fmt.Sprintf("%s has no doc comment", name))
		}
		if room(name) == "" {
			out = append(out, fmt.Sprintf("%s is not in the house", name))
			continue
		}
		for _, imp := range p.Imports {
			if c := complain(name, imp); c != "" {
				out = append(out, c)
			}
		}
	}
	return out
}

// complain says what is wrong with one import, empty for nothing.
func complain(name, imp string) string {
	if slices.Contains(system, imp) && !slices.Contains(outdoors, room(name)) {
		return fmt.Sprintf("%s touches the operating system by %s", name, imp)
	}
	imp, ours := strings.CutPrefix(imp, module+"/")
	switch {
	case !ours:
		return ""
	case room(imp) == "":
		return fmt.Sprintf("%s imports %s, which is not in the house", name, imp)
	case !above(imp, name):
		return fmt.Sprintf("%s may not import %s, which does not stand above it", name, imp)
	}
	return ""
}

// room is the nearest folder in the house that holds a package, empty for none.
func room(name string) string {
	for ; name != "."; name = path.Dir(name) {
		if slices.Contains(house, name) {
			return name
		}
	}
	return ""
}

// above tells whether package a stands above package b.
func above(a, b string) bool {
	ra, rb := slices.Index(house, room(a)), slices.Index(house, room(b))
	if ra == rb {
		return strings.HasPrefix(b, a+"/")
	}
	return ra < rb
}
