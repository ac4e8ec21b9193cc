package cli

import (
	"os"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
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
