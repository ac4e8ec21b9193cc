package cli

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

func newShow(e *Env) *cobra.Command {
	var snapshots []string
	c := &cobra.Command{
		Use:   "show [-s SNAPSHOT]...",
		Short: "What was read of a host: interfaces, rules, routes, sets, services, and what stands at each hook",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := loadHosts(e, snapshots)
			if err != nil {
				return err
			}
			for i, n := range l.nodes {
				if i > 0 {
					fmt.Fprintln(e.Out)
				}
				n.show(e.Out)
			}
			return nil
		},
	}
	c.Flags().StringArrayVarP(&snapshots, "snapshot", "s", nil,
		"directory, archive or file to read (repeatable); without it, this machine")
	return c
}

// show prints what is known of a host.
func (n *node) show(w io.Writer) {
	fmt.Fprintf(w, "%s  (Linux %d.%d, %d Hz)\n", n.Name, n.Kernel.Major, n.Kernel.Minor, n.HZ)
	n.showLinks(w)
	n.showTables(w)
	n.showHooks(w)
	n.showRoutes(w)
	n.showServices(w)
	c := n.Config()
	fmt.Fprintf(w, "memory       %d connections, %d sets, %d sockets; connections are tracked: %s\n",
		len(c.Flows), len(c.Sets), len(c.Sockets), yesNo(n.Tracks()))
	for _, f := range c.Foreign {
		at := ""
		if f.Hook != "" {
			at = " at " + f.Hook
		}
		fmt.Fprintf(w, "not run      %s%s\n", f.What, at)
	}
	for _, dev := range slices.Sorted(maps.Keys(c.Cables)) {
		for _, p := range c.Cables[dev] {
			fmt.Fprintf(w, "cable        %s to %s:%s\n", dev, p.Host, p.Dev)
		}
	}
	for _, a := range n.assumed {
		fmt.Fprintf(w, "assumed      %s\n", a)
	}
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (n *node) showLinks(w io.Writer) {
	for i := range n.Links.All() {
		l := &n.Links.All()[i]
		fmt.Fprintf(w, "interface    %d %s", l.Index, l.Name)
		if l.Kind != "" {
			fmt.Fprintf(w, " %s", l.Kind)
		}
		fmt.Fprintf(w, " mtu %d", l.MTU)
		for _, a := range n.Links.Addrs(l.Index) {
			fmt.Fprintf(w, " %s/%d", a.Local, a.PrefixLen)
		}
		fmt.Fprintln(w)
	}
}

// showHooks lists what stands at each hook, with its priority.
func (n *node) showHooks(w io.Writer) {
	for hook := trace.Prerouting; hook <= trace.Postrouting; hook++ {
		var names []string
		for _, s := range n.Stages(hook) {
			if s.Name != "confirm" { // the end of conntrack's work, behind all others
				names = append(names, fmt.Sprintf("%s %d", s.Name, s.Priority))
			}
		}
		if len(names) > 0 {
			fmt.Fprintf(w, "hook         %-11s %s\n", hook, strings.Join(names, ", "))
		}
	}
}

func (n *node) showTables(w io.Writer) {
	for _, p := range n.Programs() {
		rules, chains := 0, len(p.Source.Chains)
		for _, c := range p.Source.Chains {
			rules += len(c.Rules)
		}
		fmt.Fprintf(w, "table        %s %s (%s): %d chains, %s\n", p.Family, p.Name, p.Backend,
			chains, plural(rules, "rule", "rules"))
		fmt.Fprintf(w, "             %s\n", usage(p.Source))
	}
}

// usage counts the matches and targets of a table, the most frequent first.
func usage(t *xtables.Table) string {
	count := map[string]int{}
	for _, c := range t.Chains {
		for i := range c.Rules {
			r := &c.Rules[i]
			for _, m := range r.Matches {
				count["-m "+m.Ext.Name]++
			}
			if r.Ext != nil {
				count["-j "+r.Ext.Name]++
			}
		}
	}
	var keys []string
	for k := range count {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool {
		if count[keys[i]] != count[keys[j]] {
			return count[keys[i]] > count[keys[j]]
		}
		return keys[i] < keys[j]
	})
	text := ""
	for _, k := range keys {
		text += fmt.Sprintf("%s %d  ", k, count[k])
	}
	if text == "" {
		return "no extensions"
	}
	return text
}

func (n *node) showRoutes(w io.Writer) {
	f := n.Routes
	for i := range f.Rules() {
		fmt.Fprintf(w, "ip rule      %d: %s\n", f.Rule(i).Priority, f.RuleText(i))
	}
	local := 0
	for i := range f.Routes() {
		r := f.Route(i)
		if r.Kind == trace.Local || r.Kind == trace.BroadcastRoute {
			local++
			continue
		}
		fmt.Fprintf(w, "route        %s\n", f.RouteText(i))
	}
	fmt.Fprintf(w, "             and %d local and broadcast routes\n", local)
}
