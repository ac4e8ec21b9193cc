package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

func newRules(e *Env) *cobra.Command {
	var snapshots []string
	var six, counters, check bool
	var table string
	c := &cobra.Command{
		Use:   "rules [-s SNAPSHOT]... [FILE]...",
		Short: "Read iptables-save text and print it as iptables-save would",
		Long: `rules reads the rules of snapshots or of files with the output of iptables-save, and prints
them as iptables-save does: normalized, so that two files can be compared. What is not
understood is an error that names file, line and option.`,
		RunE: func(_ *cobra.Command, args []string) error {
			family := trace.IPv4
			if six {
				family = trace.IPv6
			}
			all, err := readRules(append(snapshots, args...), family)
			if err != nil || check {
				return err
			}
			for _, rs := range all {
				if err := printRules(e, rs, table, counters); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringArrayVarP(&snapshots, "snapshot", "s", nil, "snapshot to read (repeatable)")
	c.Flags().BoolVarP(&six, "ipv6", "6", false, "the rules of ip6tables")
	c.Flags().BoolVarP(&counters, "counters", "c", false, "print counters")
	c.Flags().BoolVar(&check, "check", false, "only read; print nothing but errors")
	c.Flags().StringVarP(&table, "table", "t", "", "only this table")
	return c
}

func readRules(paths []string, f trace.Family) ([]*xtables.Ruleset, error) {
	var dirs []*snapshot.Dir
	for _, p := range paths {
		ds, err := readSnapshot(p)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, ds...)
	}
	if len(paths) == 0 {
		d, err := snapshot.Live()
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, d)
	}
	var out []*xtables.Ruleset
	for _, d := range dirs {
		rs, _, err := d.Rulesets(f)
		if err != nil {
			return nil, err
		}
		out = append(out, rs...)
	}
	return out, nil
}

func printRules(e *Env, rs *xtables.Ruleset, table string, counters bool) error {
	if table != "" {
		t := rs.Table(table)
		if t == nil {
			return fmt.Errorf("%s has no table %q", rs.File, table)
		}
		only := *rs
		only.Tables = []*xtables.Table{t}
		rs = &only
	}
	_, err := e.Out.Write(xtables.Append(nil, rs, counters))
	return err
}
