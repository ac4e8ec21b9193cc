package cli

import (
	"encoding/json"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/hookpath/hookpath/demos"
	"github.com/hookpath/hookpath/report"
)

// demoPrefix names a demo in place of a snapshot's path: -s demo:docker-host.
const demoPrefix = "demo:"

// demo is what demo.json says.
type demo struct {
	Title  string `json:"title"`
	Packet string `json:"packet"`
	About  string `json:"about"`
}

func newDemos(e *Env) *cobra.Command {
	return &cobra.Command{
		Use:   "demos [NAME]",
		Short: "Hosts to try hookpath on: list them, or trace one's packet",
		Long: `demos lists the snapshots that are part of the program. With a name it traces the packet
that shows what the demo is about. Use one like any snapshot:
hookpath trace -s demo:NAME PACKET`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listDemos(e)
			}
			d, err := readDemo(args[0])
			if err != nil {
				return err
			}
			fmt.Fprintf(e.Out, "%s\n%s\n$ hookpath trace -s %s%s %s\n\n", d.Title,
				report.Wrap(d.About, e.Width), demoPrefix, args[0], d.Packet)
			f := traceFlags{snapshots: []string{demoPrefix + args[0]}, format: "text", colour: "auto"}
			return f.run(e, []string{d.Packet})
		},
	}
}

func listDemos(e *Env) error {
	for _, name := range demos.List() {
		d, err := readDemo(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(e.Out, "%-20s %s\n", name, d.Title)
	}
	return nil
}

func demoFS(name string) (fs.FS, error) {
	for _, n := range demos.List() {
		if n == name {
			return demos.FS(name)
		}
	}
	if fsys, err := demos.Lab(name); err == nil {
		return fsys, nil
	}
	return nil, fmt.Errorf("no demo %q: hookpath demos and hookpath lab demo list them", name)
}

func readDemo(name string) (demo, error) {
	var d demo
	fsys, err := demos.FS(name)
	if err != nil {
		return d, fmt.Errorf("no demo %q: hookpath demos lists them", name)
	}
	b, err := fs.ReadFile(fsys, "demo.json")
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(b, &d)
}
