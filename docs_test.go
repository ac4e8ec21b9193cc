package hookpath_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hookpath/hookpath/internal/cli"
)

// docCommand is a command of a guide with what it must do: the exit status, and a
// part of what it prints.
var docCommand = regexp.MustCompile(`^hookpath (.*?) +# ([0-9]): (.+)$`)

// TestQuestions runs the commands of the guides in docs/questions.
func TestQuestions(t *testing.T) {
	pages, err := filepath.Glob("docs/questions/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no guides: %v", err)
	}
	ran := 0
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range strings.Split(string(text), "\n") {
			if !strings.HasPrefix(line, "hookpath ") {
				continue
			}
			ran++
			if err := runDoc(line); err != nil {
				t.Errorf("%s:%d: %v", page, n+1, err)
			}
		}
	}
	if ran == 0 {
		t.Error("the guides have no command")
	}
}

// TestRunDocFails sees that a guide can be wrong.
func TestRunDocFails(t *testing.T) {
	const ask = "hookpath trace -s demo:broken-goto tcp 10.30.1.15 to 203.0.113.80:443 in lan0"
	for _, line := range []string{ask, ask + " # 0: FORWARD", ask + " # 1: no such words",
		"hookpath frobnicate # 0: x"} {
		if runDoc(line) == nil {
			t.Errorf("%q: no error", line)
		}
	}
}

// runDoc runs one line of a guide. Printed lines are taken as one, since the width of
// a page is not what the guide is about.
func runDoc(line string) error {
	m := docCommand.FindStringSubmatch(line)
	if m == nil {
		return fmt.Errorf("%q does not say what comes out (# STATUS: WORDS)", line)
	}
	var out, errs bytes.Buffer
	e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &errs, Now: time.Now, Width: 100}
	if got := strconv.Itoa(cli.Run(e, words(m[1]))); got != m[2] {
		return fmt.Errorf("%s: status %s, want %s\n%s%s", m[1], got, m[2], &out, &errs)
	}
	said := strings.Join(strings.Fields(out.String()), " ")
	if !strings.Contains(said, m[3]) {
		return fmt.Errorf("%s: %q is not printed\n%s", m[1], m[3], &out)
	}
	return nil
}

// TestREADME runs what the READMEs show behind a dollar sign: it must print just that.
func TestREADME(t *testing.T) {
	for _, page := range []string{"README.md", "README.zh.md"} {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		blocks := strings.Split(string(text), "```console\n$ hookpath ")[1:]
		if len(blocks) == 0 {
			t.Errorf("%s shows no command", page)
		}
		for _, b := range blocks {
			b, _, _ = strings.Cut(b, "\n```")
			command, want, _ := strings.Cut(b, "\n")
			if got := shown(command); !strings.Contains(got, want) {
				t.Errorf("%s: hookpath %s: got\n%swant\n%s", page, command, got, want)
			}
		}
	}
}

// shown is what a command prints on a page of 100 columns.
func shown(command string) string {
	var out bytes.Buffer
	e := &cli.Env{In: strings.NewReader(""), Out: &out, Err: &out, Now: time.Now, Width: 100}
	cli.Run(e, words(command))
	return out.String()
}

// words takes a command apart as a shell does, with single quotes.
func words(command string) []string {
	var args []string
	for i, part := range strings.Split(command, "'") {
		if i%2 == 1 { // quoted
			args = append(args, part)
			continue
		}
		args = append(args, strings.Fields(part)...)
	}
	return args
}
