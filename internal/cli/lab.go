package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/hookpath/hookpath/demos"
	"github.com/hookpath/hookpath/report"
	"github.com/hookpath/hookpath/snapshot"
)

func newLab(e *Env) *cobra.Command {
	c := &cobra.Command{
		Use:   "lab",
		Short: "Several hosts and what lies between them: try one, write one, build one",
		Long: `A lab is a directory with a lab.yaml: hosts (by their addresses and commands, or by
snapshots beside it), links, switches. Ask it as you ask a snapshot:

  hookpath trace -s DIR client# tcp 192.168.2.254:40000 to 192.168.2.110:80 out`,
		Example: `  hookpath lab demo lvs-nat-broken
  hookpath lab new mine
  hookpath lab up mine`,
	}
	c.AddCommand(newLabDemo(e), newLabNew(e), newLabUp(e), newLabDown(e))
	return c
}

func newLabDemo(e *Env) *cobra.Command {
	var f traceFlags
	c := &cobra.Command{
		Use:   "demo [NAME]",
		Short: "The labs that are part of the program: list them, or walk one's packet",
		Example: `  hookpath lab demo
  hookpath lab demo lvs-dr-arp
  hookpath trace -s demo:lvs-dr-arp icmp echo 192.168.2.254 to 192.168.2.110`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listLabs(e)
			}
			l, err := embeddedLab(args[0])
			if err != nil {
				return err
			}
			if !f.json && !f.quiet {
				fmt.Fprintf(e.Out, "%s\n%s\n$ hookpath trace -s %s%s '%s'\n\n", l.Title,
					report.Wrap(l.About, e.Width), demoPrefix, args[0], l.Ask)
			}
			f.snapshots = []string{demoPrefix + args[0]}
			return f.run(e, []string{l.Ask})
		},
	}
	f.shape(c.Flags())
	return c
}

func listLabs(e *Env) error {
	for _, name := range demos.Labs() {
		l, err := embeddedLab(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(e.Out, "%-16s %s\n", name, l.Title)
	}
	return nil
}

// embeddedLab reads the lab.yaml of a demo.
func embeddedLab(name string) (*snapshot.Lab, error) {
	fsys, err := demos.Lab(name)
	if err != nil {
		return nil, err
	}
	b, err := fs.ReadFile(fsys, snapshot.LabFile)
	if err != nil {
		return nil, err
	}
	return snapshot.ParseLab(name+"/"+snapshot.LabFile, b)
}

// readLab reads the lab.yaml of a directory.
func readLab(dir string) (*snapshot.Lab, error) {
	file := filepath.Join(dir, snapshot.LabFile)
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return snapshot.ParseLab(file, b)
}

func newLabNew(e *Env) *cobra.Command {
	from := ""
	c := &cobra.Command{
		Use:   "new NAME",
		Short: "Write a lab.yaml to start from",
		Example: `  hookpath lab new mine
  hookpath lab new mine --from lvs-nat`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			text := []byte(firstLab)
			if from != "" {
				fsys, err := demos.Lab(from)
				if err != nil {
					return fmt.Errorf("--from: %w", err)
				}
				if text, err = fs.ReadFile(fsys, snapshot.LabFile); err != nil {
					return err
				}
			}
			return writeLab(e, args[0], text)
		},
	}
	c.Flags().StringVar(&from, "from", "", "a lab of hookpath lab demo to copy")
	return c
}

func writeLab(e *Env, dir string, text []byte) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, snapshot.LabFile)
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s is there already; nothing was written", file)
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	fmt.Fprintf(e.Out, "wrote %s; hookpath trace -s %s walks its packet\n", file, dir)
	return nil
}

// firstLab is what lab new writes.
const firstLab = `# Hosts and what lies between them. hookpath trace -s DIR walks "ask".
title: "A client, a router and a server"
ask: client# tcp 10.0.1.2:40000 to 10.0.2.2:80 out
kernel: "6.18"

hosts:
  client:
    addresses: {eth0: 10.0.1.2/24}
    commands: [ip route add default via 10.0.1.1]
  router:
    addresses:
      eth0: 10.0.1.1/24
      eth1: 10.0.2.1/24
    commands:
      - sysctl -w net.ipv4.ip_forward=1
      - iptables -A FORWARD -p tcp --dport 80 -j ACCEPT
  server:
    # snapshot: server          a directory of hookpath snapshot, in place of what follows
    addresses: {eth0: 10.0.2.2/24}
    listen: [tcp 0.0.0.0:80]
    commands: [ip route add default via 10.0.2.1]

# A link joins two interfaces, a switch several; outside are interfaces whose cable leaves
# the lab.
links:
  - [client:eth0, router:eth0]
switches:
  lan: [router:eth1, server:eth0]
outside: []
`
