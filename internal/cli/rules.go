package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// rulesFlags are the options of rules.
type rulesFlags struct {
	snapshots       []string
	family, version string
	table           string
	counters, check bool
}

func newRules(e *Env) *cobra.Command {
	var o rulesFlags
	c := &cobra.Command{
		Use:   "rules [-s SNAPSHOT]... [FILE|-]...",
		Short: "Read iptables-save text and print it as iptables-save would",
		Long: `rules reads the rules of snapshots or of files with the output of iptables-save ("-" is
standard input), and prints them as iptables-save does: normalized, so that two files can be
compared. What is not understood is an error that names file, line and option. Warnings go to
standard error.`,
		Example: `  hookpath rules /etc/iptables/rules.v4
  hookpath rules --family ip6 rules.v6
  ssh router iptables-save | hookpath rules -t nat -`,
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := o.read(e, args)
			if err != nil || o.check {
				return err
			}
			for _, rs := range all {
				if err := printRules(e, rs, o.table, o.counters); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringArrayVarP(&o.snapshots, "snapshot", "s", nil, "snapshot to read (repeatable)")
	c.Flags().StringVar(&o.family, "family", "",
		"ip or ip6 (default: ip6 where a file's first line says so, else ip)")
	c.Flags().StringVar(&o.version, "iptables", "",
		"accept what this iptables does: 1.8.9 or 1.8.11 (default: by the first line)")
	c.Flags().BoolVarP(&o.counters, "counters", "c", false, "print counters")
	c.Flags().BoolVar(&o.check, "check", false, "only read; print nothing but errors")
	c.Flags().StringVarP(&o.table, "table", "t", "", "only this table")
	return c
}

// families and versions are the values of --family and --iptables.
var (
	families = map[string]trace.Family{"": trace.IPv4, "ip": trace.IPv4, "ip6": trace.IPv6}
	versions = map[string]xtables.Version{"": 0, "1.8.9": xtables.V189, "1.8.11": xtables.V1811}
)

// read reads what is asked for; nothing named is the live machine.
func (o *rulesFlags) read(e *Env, files []string) ([]*xtables.Ruleset, error) {
	if _, ok := families[o.family]; !ok {
		return nil, fmt.Errorf("--family: %q is neither ip nor ip6", o.family)
	}
	if _, ok := versions[o.version]; !ok {
		return nil, fmt.Errorf("--iptables: %q is neither 1.8.9 nor 1.8.11", o.version)
	}
	var out []*xtables.Ruleset
	for _, p := range o.snapshots {
		dirs, err := readSnapshot(p)
		if err != nil {
			return nil, err
		}
		if out, err = o.add(e, out, dirs...); err != nil {
			return nil, err
		}
	}
	for _, p := range files {
		d, err := o.file(e, p)
		if err != nil {
			return nil, err
		}
		if out, err = o.add(e, out, d); err != nil {
			return nil, err
		}
	}
	if len(o.snapshots)+len(files) > 0 {
		return out, nil
	}
	d, err := snapshot.Live()
	if err != nil {
		return nil, err
	}
	return o.add(e, out, d)
}

// file reads one file of rules, "-" from standard input.
func (o *rulesFlags) file(e *Env, name string) (*snapshot.Dir, error) {
	r := e.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	return snapshot.ReadRules(name, r, o.family)
}

// add reads the rules of snapshots. A file's own family is that of the file.
func (o *rulesFlags) add(e *Env, out []*xtables.Ruleset, dirs ...*snapshot.Dir) (
	[]*xtables.Ruleset, error) {
	for _, d := range dirs {
		if o.version != "" {
			v := versions[o.version]
			d.Version = &v
		}
		family := families[o.family]
		if _, six := d.Files["ip6tables-save"]; six && d.Single != "" {
			family = trace.IPv6
		}
		rs, _, err := d.Rulesets(family)
		if err != nil {
			return nil, err
		}
		for _, r := range rs {
			for _, w := range r.Warnings {
				fmt.Fprintf(e.Err, "hookpath: warning: %s\n", w)
			}
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
