package cli

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hookpath/hookpath/snapshot"
)

func newLabUp(e *Env) *cobra.Command {
	yes := false
	c := &cobra.Command{
		Use:   "up DIR",
		Short: "Build a lab as network namespaces on this machine",
		Long: `up prints the commands that make a lab real: a network namespace for each host, joined by
veth pairs and bridges. Nothing is done without --yes, which needs root; what fails is undone. down
removes the namespaces again.`,
		Example: `  hookpath lab up mine
  sudo hookpath lab up mine --yes
  sudo ip netns exec hp-mine-client ping 10.0.2.2
  sudo hookpath lab down mine --yes`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := buildOf(args[0])
			if err != nil {
				return err
			}
			if !yes {
				return showBuild(e, b.Up, b.Notes)
			}
			return labUp(e, b)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do it: namespaces are made on this machine")
	return c
}

func newLabDown(e *Env) *cobra.Command {
	yes := false
	c := &cobra.Command{
		Use:   "down DIR",
		Short: "Remove the namespaces that lab up made",
		Example: `  hookpath lab down mine
  sudo hookpath lab down mine --yes`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := buildOf(args[0])
			if err != nil {
				return err
			}
			if !yes {
				return showBuild(e, b.Down, nil)
			}
			for i, s := range b.Spaces {
				if !isSpace(s) {
					continue
				}
				if err := perform(b.Down[i]); err != nil {
					return err
				}
				fmt.Fprintf(e.Out, "removed %s\n", s)
			}
			return nil
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do it: the namespaces and what is in them go")
	return c
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9]+`)

// buildOf reads a lab, walks its commands on the engine's hosts to see that they are
// understood, and lists those that build it.
func buildOf(dir string) (*snapshot.Build, error) {
	l, err := readLab(dir)
	if err != nil {
		return nil, err
	}
	dirs, err := snapshot.Read(dir)
	if err != nil {
		return nil, err
	}
	if err := (&hosts{}).add(dirs...); err != nil {
		return nil, err
	}
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	b, err := l.Build("hp-" + notInName.ReplaceAllString(filepath.Base(path), "-") + "-")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, snapshot.LabFile), err)
	}
	return b, nil
}

func showBuild(e *Env, commands [][]string, notes []string) error {
	for _, c := range commands {
		fmt.Fprintln(e.Out, shown(c))
	}
	for _, n := range notes {
		fmt.Fprintln(e.Out, "#", n)
	}
	fmt.Fprintln(e.Out, "# nothing was done: --yes does it")
	return nil
}

// shown is a command as one types it.
func shown(words []string) string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = w
		if strings.ContainsAny(w, " ;") || w == "" {
			out[i] = `"` + w + `"`
		}
	}
	return strings.Join(out, " ")
}

// spaces is where ip netns keeps the names.
const spaces = "/var/run/netns"

func isSpace(name string) bool {
	_, err := os.Stat(filepath.Join(spaces, name))
	return err == nil
}

// labUp builds a lab. What was made is removed where a step fails.
func labUp(e *Env, b *snapshot.Build) error {
	for _, s := range b.Spaces {
		if isSpace(s) {
			return fmt.Errorf("namespace %s is there already: hookpath lab down removes a lab", s)
		}
	}
	for i, c := range b.Up {
		err := perform(c)
		if err == nil {
			continue
		}
		for n := range min(i, len(b.Spaces)) {
			err = errors.Join(err, perform(b.Down[n]))
		}
		return fmt.Errorf("%w\nwhat was made is removed again", err)
	}
	for _, s := range b.Spaces {
		fmt.Fprintf(e.Out, "made %s\n", s)
	}
	for _, n := range b.Notes {
		fmt.Fprintln(e.Out, "#", n)
	}
	return nil
}

func perform(words []string) error {
	out, err := exec.Command(words[0], words[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", shown(words), err, strings.TrimSpace(string(out)))
	}
	return nil
}
