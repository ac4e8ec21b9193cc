package kernel

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// setup does what the host's commands say. Commands of one kind that stand together go to one
// run of a tool, since a start costs much in user-mode-linux.
func (h *host) setup(ctx context.Context) error {
	for rest := h.Setup; len(rest) > 0; {
		name, _, _ := strings.Cut(rest[0], " ")
		n := slices.IndexFunc(rest, func(c string) bool { return !strings.HasPrefix(c, name+" ") })
		if n < 0 {
			n = len(rest)
		}
		args := make([]string, n)
		for i, c := range rest[:n] {
			args[i] = strings.TrimPrefix(c, name+" ")
		}
		if err := h.typed(ctx, name, args); err != nil {
			return fmt.Errorf("%s: %s: %w", h.Name, name, err)
		}
		rest = rest[n:]
	}
	return nil
}

// typed runs commands of one kind.
func (h *host) typed(ctx context.Context, name string, args []string) error {
	text := strings.Join(args, "\n") + "\n"
	switch name {
	case "ip":
		_, err := tool(ctx, text, "ip", "-batch", "-")
		return explainBatch(err, text)
	case "sysctl":
		all, err := parseSysctl(strings.ReplaceAll(text, "-w ", ""))
		if err != nil {
			return err
		}
		return writeSysctls(all)
	case "iptables", "iptables-legacy", "iptables-nft":
		program := "iptables-legacy-restore"
		if h.backend == NFT {
			program = "iptables-nft-restore"
		}
		_, err := tool(ctx, byTable(args), program, "--noflush")
		return err
	}
	return fmt.Errorf("not one of ip, sysctl, iptables")
}

// byTable has iptables-restore do commands of iptables. Tables know nothing of each other.
func byTable(commands []string) string {
	lines := map[string]string{}
	var order []string
	for _, c := range commands {
		table := "filter"
		if rest, ok := strings.CutPrefix(c, "-t "); ok {
			table, c, _ = strings.Cut(rest, " ")
		}
		if lines[table] == "" {
			order = append(order, table)
		}
		lines[table] += c + "\n"
	}
	text := ""
	for _, t := range order {
		text += "*" + t + "\n" + lines[t] + "COMMIT\n"
	}
	return text
}

// tablesMade are the tables that files and commands made, without those that only our own
// rules did.
func (h *host) tablesMade(saved string) map[string]bool {
	all := tablesOf(saved)
	for _, p := range plainProbes() {
		all[p.table] = h.tables[p.table]
		for _, c := range h.Setup {
			all[p.table] = all[p.table] || strings.Contains(c, "-t "+p.table+" ")
		}
	}
	return all
}
