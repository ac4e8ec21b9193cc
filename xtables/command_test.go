package xtables_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
)

// commandTests are the lines of a filter table with commands beside -A; print is what
// iptables-save says afterwards, without what an empty table has, and fails a part of
// the error.
var commandTests = []struct{ name, lines, print, fails string }{
	{"insert", "-A INPUT -j ACCEPT\n-I INPUT -j DROP\n-I INPUT 2 -p tcp",
		"-A INPUT -j DROP\n-A INPUT -p tcp\n-A INPUT -j ACCEPT\n", ""},
	{"insert behind the end", "-I INPUT 2 -j DROP", "", "2: -I: index 2 is beyond the end"},
	{"insert at no number", "-I INPUT first -j DROP", "", `"first" is not the number`},
	{"two addresses", "-A INPUT -s 10.0.0.1,10.0.0.2 -j DROP",
		"-A INPUT -s 10.0.0.1/32 -j DROP\n-A INPUT -s 10.0.0.2/32 -j DROP\n", ""},
	{"delete a rule", "-A INPUT -j DROP\n-A INPUT -p tcp --dport 80\n-A INPUT -j DROP\n" +
		"-D INPUT -p tcp -m tcp --dport 80:80\n-D INPUT -j DROP", "-A INPUT -j DROP\n", ""},
	{"delete two", "-A INPUT -s 10.0.0.1,10.0.0.2\n-D INPUT -s 10.0.0.2,10.0.0.1", "", ""},
	{"delete a number", "-A INPUT -j DROP\n-A INPUT -j ACCEPT\n-D INPUT 1", "-A INPUT -j ACCEPT\n", ""},
	{"delete what is not there", "-A INPUT -j DROP\n-D INPUT -j ACCEPT", "",
		`3: -D: chain "INPUT" has no such rule`},
	{"delete behind the end", "-D INPUT 1", "", "2: -D: index 1 is beyond the end"},
	{"check", "-A INPUT -j DROP\n--check INPUT -j DROP", "-A INPUT -j DROP\n", ""},
	{"check what is not there", "-A INPUT -j DROP -m mark --mark 1\n-C INPUT -j DROP -m mark --mark 2",
		"", `3: -C: chain "INPUT" has no such rule`},
	{"replace", "-A INPUT -j DROP\n-A INPUT -j ACCEPT\n-R INPUT 1 -p udp",
		"-A INPUT -p udp\n-A INPUT -j ACCEPT\n", ""},
	{"replace nothing", "-R INPUT 1 -p udp", "", "2: -R: index 1 is beyond the end"},
	{"new chain", "-N a\n-A a -j DROP", ":a - [0:0]\n-A a -j DROP\n", ""},
	{"new chain twice", "-N a\n-N a", "", `3: -N: chain "a" exists`},
	{"declared twice", ":a - [0:0]\n:a - [0:0]", "", `3: chain "a" is declared a second time`},
	{"new chain with a rule", "-N a -j DROP", "", "2: -N: the command takes no rule"},
	{"delete chain", "-N a\n-N b\n-X a", ":b - [0:0]\n", ""},
	{"delete all chains", "-N a\n-N b\n-X", "", ""},
	{"delete a chain with rules", "-N a\n-A a\n-X a", "", `4: -X: chain "a" is not empty`},
	{"delete a chain in use", "-N a\n-A INPUT -j a\n-X a", "",
		`4: -X: chain "a" is jumped to from line 3`},
	{"delete a built-in chain", "-X INPUT", "", `2: -X: chain "INPUT" is built in`},
	{"rename", "-N a\n-A a -j DROP\n-A INPUT -j a\n-E a b\n-A FORWARD -g b",
		":b - [0:0]\n-A INPUT -j b\n-A FORWARD -g b\n-A b -j DROP\n", ""},
	{"rename to one that is there", "-N a\n-N b\n-E a b", "", `4: -E: chain "b" exists`},
	{"policy", "-P FORWARD DROP", ":FORWARD DROP [0:0]\n", ""},
	{"policy of a user chain", "-N a\n-P a DROP", "", `3: -P: chain "a" is not built in`},
	{"policy RETURN", "-P INPUT RETURN", "", `2: -P: policy "RETURN" is neither`},
	{"flush", "-A INPUT\n-A FORWARD\n-F INPUT", "-A FORWARD\n", ""},
	{"flush all", "-N a\n-A a\n-A INPUT -j a\n-F", ":a - [0:0]\n", ""},
	{"zero, list", "-A INPUT\n-Z\n-Z INPUT 1\n-L\n-S INPUT", "-A INPUT\n", ""},
	{"other family", "-6 -A INPUT -s ::1\n-4 -A INPUT", "-A INPUT\n", ""},
	{"verbose", "-A INPUT -v", "-A INPUT\n", ""},
	{"help ends it", "-P INPUT DROP\n-A INPUT\n-h\nno command", "", ""},
	{"two commands", "-A INPUT -A INPUT", "", "2: -A: a line has one command"},
	{"a table", "-t nat -A INPUT", "", "2: -t: the option can't be used"},
	{"ambiguous", "--new INPUT --l", "", "--l: the option is ambiguous"},
	{"begins again", "-N a\n-P INPUT DROP\n-A INPUT\nCOMMIT\n*filter\n-A FORWARD",
		":INPUT DROP [0:0]\n-A FORWARD\n", ""},
	{"counters of a user chain", ":a - [3:4]\n[5:6] -A a", ":a - [0:0]\n-A a\n", ""},
}

// TestCommands reads each table as hookpath does.
func TestCommands(t *testing.T) {
	cat := xtables.NewCatalog(trace.IPv4, match.All(), target.All())
	for _, tt := range commandTests {
		rs, err := xtables.Parse("*filter\n"+tt.lines+"\nCOMMIT\n",
			xtables.ParseOptions{File: "f", Catalog: cat})
		switch {
		case tt.fails != "" && (err == nil || !strings.Contains(err.Error(), tt.fails)):
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.fails)
		case tt.fails == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.fails == "":
			if got := notEmpty(string(xtables.Append(nil, rs, false))); got != tt.print {
				t.Errorf("%s: got\n%swant\n%s", tt.name, got, tt.print)
			}
		}
	}
}

// TestCommandsAsIptables reads the same by iptables-legacy-restore.
func TestCommandsAsIptables(t *testing.T) {
	if os.Getuid() != 0 || exec.Command("iptables-legacy-restore", "-V").Run() != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root and iptables-legacy-restore")
		}
		t.Skip("SKIPPED: needs root and iptables-legacy-restore")
	}
	const script = `iptables-legacy-restore >/dev/null && echo loaded; iptables-legacy-save`
	lock := t.TempDir() + "/lock"
	for _, tt := range commandTests {
		cmd := exec.Command("unshare", "-n", "sh", "-c", script)
		cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+lock)
		cmd.Stdin = strings.NewReader("*filter\n" + tt.lines + "\nCOMMIT\n")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		got, ok := strings.CutPrefix(string(out), "loaded\n")
		if ok != (tt.fails == "") || ok && notEmpty(got) != tt.print {
			t.Errorf("%s: loaded %t\n%swant\n%s", tt.name, ok, got, tt.print)
		}
	}
}

// notEmpty leaves out what an empty table prints.
func notEmpty(save string) string {
	out := ""
	for line := range strings.Lines(save) {
		empty := strings.HasPrefix(line, ":") && strings.HasSuffix(line, " ACCEPT [0:0]\n")
		if !empty && line != "COMMIT\n" && !strings.ContainsAny(line[:1], "#*") {
			out += line
		}
	}
	return out
}
