package cli

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// promptPattern is the host before a command, as a shell's prompt shows it:
// "web1# ip rule add ...".
var promptPattern = regexp.MustCompile(`^\s*([A-Za-z0-9_.-]+)#\s*`)

// with changes hosts by commands. Without a host before it, a command is for the one
// that the question names, or the only one.
func (l *hosts) with(commands []string, host string) error {
	changed := map[*node]bool{}
	for _, text := range commands {
		name := host
		if m := promptPattern.FindStringSubmatch(text); m != nil {
			name, text = m[1], text[len(m[0]):]
		}
		n, err := l.host(name)
		if err != nil {
			return fmt.Errorf("--with %q: %w", text, err)
		}
		n.changes = append(n.changes, text)
		changed[n] = true
	}
	for _, n := range l.nodes {
		if !changed[n] {
			continue
		}
		if err := n.build(); err != nil {
			return fmt.Errorf("--with: %w", err)
		}
	}
	return nil
}

// changed is the hosts with other commands typed on one of its hosts. It shares what did
// not change.
func (l *hosts) changed(host string, commands []string) (*hosts, error) {
	out := *l
	out.nodes = slices.Clone(l.nodes)
	for i, n := range out.nodes {
		if n.Name != host {
			continue
		}
		c := *n
		c.changes = append(slices.Clone(n.changes), commands...)
		if err := c.build(); err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(commands, "; "), err)
		}
		out.nodes[i] = &c
	}
	return &out, nil
}
