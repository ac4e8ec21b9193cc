package cli

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/hookpath/hookpath/demos"
)

// TestMain lets the scripts run hookpath as a program.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"hookpath": func() {
			e := &Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Now: testNow, Width: 100}
			os.Exit(Run(e, os.Args[1:]))
		},
	})
}

// testNow is the time of all scripts.
func testNow() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Cmds: map[string]func(*testscript.TestScript,
		bool, []string){"status": status3}})
}

// TestDemos traces the packet of every demo, and asks the same in JSON.
func TestDemos(t *testing.T) {
	names := demos.List()
	if len(names) == 0 {
		t.Fatal("there are no demos")
	}
	for _, name := range names {
		d, err := readDemo(name)
		if err != nil || d.Title == "" || d.Packet == "" || d.About == "" {
			t.Errorf("%s: demo.json: %+v, %v", name, d, err)
			continue
		}
		var out, errs bytes.Buffer
		e := &Env{Out: &out, Err: &errs, Now: testNow, Width: 100}
		if got := Run(e, []string{"demos", name}); got == exitUsage || errs.Len() > 0 {
			t.Errorf("demos %s: status %d, %s", name, got, errs.String())
		}
		broken := strings.HasPrefix(name, "broken-")
		if strings.Contains(out.String(), "<== here") && !broken {
			t.Errorf("%s does not work:\n%s", name, out.String())
		}
	}
}

// status3 is "status N COMMAND...": the command must end with that exit status.
func status3(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = err.Error()
	}
	if want := "exit status " + args[0]; got != want && !(args[0] == "0" && got == "0") {
		ts.Fatalf("got %s, want %s", got, want)
	}
}
