package target

import (
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// clusterip shares an address among the nodes of a cluster. It is read and printed
// alone: Linux took it away in 6.3.
//
// Kernel (6.1): net/ipv4/netfilter/ipt_CLUSTERIP.c, clusterip_tg.
type clusterip struct {
	New         bool
	Mode        xtables.Enum
	MAC         xtables.MAC
	Total, Node xtables.Number
	Init        xtables.Number
}

func newCLUSTERIP() xtables.Target {
	node := xtables.Number{Max: 16}
	return &clusterip{Mode: xtables.Enum{Words: []string{"sourceip", "sourceip-sourceport",
		"sourceip-sourceport-destport"}}, Total: node, Node: node}
}

// Options implements xtables.Target.
func (t *clusterip) Options(s *xtables.Spec) {
	all := []string{"hashmode", "clustermac", "total-nodes", "local-node"}
	s.Flag("new", &t.New).Needs(all...)
	s.Var("hashmode", &t.Mode).Needs("new")
	s.Var("clustermac", &t.MAC).Needs("new")
	s.Var("total-nodes", &t.Total).Needs("new")
	s.Var("local-node", &t.Node).Needs("new")
	s.Var("hash-init", &t.Init).Needs("new")
	s.Check(func(*xtables.Context) error {
		if t.MAC.Given && !t.MAC.Addr.IsMulticast() {
			return fmt.Errorf("--clustermac: it must be a multicast address")
		}
		return nil
	})
}

// Effects implements xtables.Target.
func (t *clusterip) Effects() []field.Effect { return nil }

// Validate implements xtables.Validator.
func (t *clusterip) Validate(*xtables.Build) error {
	return unsupported("-j CLUSTERIP", "Linux has none since 6.3: use -m cluster")
}

// Do implements xtables.Target. It is never reached.
func (t *clusterip) Do(*xtables.Env) trace.Verdict { return trace.DropIt }
