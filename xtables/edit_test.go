package xtables_test

import (
	"strings"
	"testing"

	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// TestFirstUse: the first command of a legacy table brings all its chains, one of nft those
// that it needs. TestLabs holds both against kernels.
func TestFirstUse(t *testing.T) {
	for backend, want := range map[xtables.Backend]string{
		xtables.Legacy: "PREROUTING INPUT OUTPUT POSTROUTING", xtables.NFT: "POSTROUTING"} {
		rs := xtables.NewRuleset(trace.IPv4, backend)
		table, chain, err := rs.Edit("-t nat -A POSTROUTING -o eth0 -j MASQUERADE", snapshot.Catalog(trace.IPv4))
		if err != nil || table != "nat" || chain != "POSTROUTING" {
			t.Fatal(table, chain, err)
		}
		var names []string
		for _, c := range rs.Table("nat").Chains {
			names = append(names, c.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: chains %s, want %s", backend, got, want)
		}
	}
}
