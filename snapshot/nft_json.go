package snapshot

import (
	"encoding/json"
	"fmt"
	"strings"
)

// nftRules is what `nft -j list ruleset` says of base chains and flowtables; the
// rules themselves are read from iptables-save.
type nftRules struct {
	base       []nftChain
	flowtables []string
	// filled are the chains that have rules, by family, table and chain.
	filled map[[3]string]bool
}

// nftChain is a base chain.
type nftChain struct {
	Family string          `json:"family"`
	Table  string          `json:"table"`
	Name   string          `json:"name"`
	Type   string          `json:"type"`
	Hook   string          `json:"hook"`
	Prio   json.RawMessage `json:"prio"`
	Policy string          `json:"policy"`
	empty  bool
}

// onIPv4 tells whether an IPv4 packet passes the chain and could be changed there:
// an empty chain that accepts does nothing.
func (c *nftChain) onIPv4() bool {
	switch c.Family {
	case "ip", "inet", "netdev":
		return !c.empty || c.Policy == "drop"
	}
	return false
}

func (c *nftChain) what() string {
	return fmt.Sprintf("nft base chain %s %s/%s", c.Family, c.Table, c.Name)
}

// hook is the word of trace.Hook, or that of nft for the hooks of devices.
func (c *nftChain) hook() string {
	switch c.Hook {
	case "prerouting", "input", "forward", "output", "postrouting":
		return strings.ToUpper(c.Hook)
	}
	return c.Hook
}

// parseNFT reads `nft -j list ruleset`.
func parseNFT(file string, data []byte) (*nftRules, error) {
	var doc struct {
		Objects []map[string]json.RawMessage `json:"nftables"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, place{file, 1}.errorf("%w", err)
	}
	n := &nftRules{filled: map[[3]string]bool{}}
	for i, o := range doc.Objects {
		if err := n.object(o); err != nil {
			return nil, place{file, 1}.errorf("object %d: %w", i, err)
		}
	}
	for i := range n.base {
		c := &n.base[i]
		c.empty = !n.filled[[3]string{c.Family, c.Table, c.Name}]
	}
	return n, nil
}

func (n *nftRules) object(o map[string]json.RawMessage) error {
	for kind, raw := range o {
		switch kind {
		case "chain":
			var c nftChain
			if err := json.Unmarshal(raw, &c); err != nil {
				return err
			}
			if c.Hook != "" {
				n.base = append(n.base, c)
			}
		case "rule":
			var r struct{ Family, Table, Chain string }
			if err := json.Unmarshal(raw, &r); err != nil {
				return err
			}
			n.filled[[3]string{r.Family, r.Table, r.Chain}] = true
		case "flowtable":
			var f struct{ Family, Table, Name string }
			if err := json.Unmarshal(raw, &f); err != nil {
				return err
			}
			n.flowtables = append(n.flowtables, f.Family+" "+f.Table+"/"+f.Name)
		}
	}
	return nil
}
