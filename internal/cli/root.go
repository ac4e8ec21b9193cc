// Package cli is the command line: one file a subcommand. It reads snapshots, asks
// the walk, and prints reports; nothing is decided here.
package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookpath/hookpath/world"
)

// Exit statuses.
const (
	exitOK      = 0
	exitDropped = 1
	exitUsage   = 2
	exitDepends = 3
)

// Env is what a command gets from outside.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	Now      func() time.Time
	// Width is that of the terminal; zero is 100 columns.
	Width int
	// Colour tells whether Out is a terminal that shows colours.
	Colour bool
	// Progress tells whether Err is a terminal that can show what is going on.
	Progress bool
}

// instant is the present moment.
func (e *Env) instant() world.Instant { return world.Instant(e.Now().UnixNano()) }

// exitError ends a command with a status and without a message.
type exitError int

// Error implements error.
func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// Main runs the command line and returns the exit status.
func Main(args []string) int {
	return Run(&Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Now: time.Now,
		Width: termWidth(), Colour: isTerminal(os.Stdout), Progress: isTerminal(os.Stderr)}, args)
}

// Run runs a command with its arguments, without the program's name.
func Run(e *Env, args []string) int {
	root := newRoot(e)
	root.SetArgs(args)
	err := root.Execute()
	var exit exitError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &exit):
		return int(exit)
	}
	fmt.Fprintf(e.Err, "hookpath: %s\n", shortened(err.Error()))
	return exitUsage
}

// maxMessage bounds an error's text: what it quotes came from outside.
const maxMessage = 4000

func shortened(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return strings.ToValidUTF8(s[:maxMessage], "") + " ..."
}

func newRoot(e *Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "hookpath",
		Short: "Where a packet goes in a Linux host, and why",
		Long: `hookpath takes a packet through a host's iptables rules, ip rules and routes exactly as
the kernel would, and says where it goes and why. It reads a snapshot of raw tool output (-s), or
the live machine, and changes nothing.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetIn(e.In)
	root.SetOut(e.Out)
	root.SetErr(e.Err)
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(newTrace(e), newVerify(e), newShow(e), newRules(e), newDemos(e),
		newLab(e), newSnapshot(e))
	return root
}
