package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hookpath/hookpath/snapshot"
)

func newSnapshot(e *Env) *cobra.Command {
	var script bool
	c := &cobra.Command{
		Use:   "snapshot DIRECTORY",
		Short: "Write this machine's configuration into a directory, changing nothing",
		Long: `snapshot runs the usual tools (ip, iptables-save, ipset, conntrack, ss, sysctl ...) and
writes what they print into a directory, one file each. It only reads. With --script it prints the
shell script that does the same on a machine without hookpath.`,
		Args: func(_ *cobra.Command, args []string) error {
			if script == (len(args) == 0) && len(args) <= 1 {
				return nil
			}
			return fmt.Errorf("one directory is expected, or --script")
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if script {
				_, err := fmt.Fprint(e.Out, snapshot.Script())
				return err
			}
			d, err := snapshot.Live()
			if err != nil {
				return err
			}
			return d.Write(args[0])
		},
	}
	c.Flags().BoolVar(&script, "script", false, "print the script that takes a snapshot")
	return c
}
