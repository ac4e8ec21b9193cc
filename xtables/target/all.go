// Package target has the targets of iptables: what a rule does with a packet that
// matched. It stands at the end of a rule; the walk through the chains asks it.
package target

import (
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// All is the list of targets, sorted by name.
func All() []xtables.TargetExt {
	dst := xtables.Limits{Tables: []string{"nat"},
		Hooks: xtables.HookSet(trace.Prerouting, trace.Output)}
	src := xtables.Limits{Tables: []string{"nat"},
		Hooks: xtables.HookSet(trace.Postrouting, trace.Input)}
	out := xtables.Limits{Tables: []string{"nat"}, Hooks: xtables.HookSet(trace.Postrouting)}
	both := xtables.Limits{Tables: []string{"nat"}}
	mangle := xtables.Limits{Tables: []string{"mangle"}}
	raw := xtables.Limits{Tables: []string{"raw"}}
	reject := xtables.Limits{Tables: []string{"filter"},
		Hooks: xtables.HookSet(trace.Input, trace.Forward, trace.Output)}
	mss := xtables.Limits{Hooks: xtables.HookSet(trace.Forward, trace.Output, trace.Postrouting)}
	tproxy := xtables.Limits{Tables: []string{"mangle"}, Hooks: xtables.HookSet(trace.Prerouting)}
	return []xtables.TargetExt{
		{Name: "CHECKSUM", Families: xtables.Both, New: newChecksum, Limits: mangle},
		{Name: "CLASSIFY", Families: xtables.Both, New: newClassify},
		{Name: "CONNMARK", Families: xtables.Both, New: newConnmark},
		{Name: "CT", Families: xtables.Both, New: newCT, Limits: raw},
		{Name: "DNAT", Families: xtables.Both, New: newDNAT, Limits: dst},
		{Name: "LOG", Families: xtables.Both, New: newLog},
		{Name: "MARK", Families: xtables.Both, New: newMark},
		{Name: "MASQUERADE", Families: xtables.Both, New: newMasquerade, Limits: out},
		{Name: "NETMAP", Families: xtables.Both, New: newNetmap, Limits: both},
		{Name: "NFLOG", Families: xtables.Both, New: newNflog},
		{Name: "NOTRACK", Families: xtables.Both, New: newNotrack, Limits: raw},
		{Name: "REDIRECT", Families: xtables.Both, New: newRedirect, Limits: dst},
		{Name: "REJECT", Families: xtables.IPv4Only, New: newReject, Limits: reject},
		{Name: "REJECT", Families: xtables.IPv6Only, New: newReject6, Limits: reject},
		{Name: "SET", Families: xtables.Both, New: newSET},
		{Name: "SNAT", Families: xtables.Both, New: newSNAT, Limits: src},
		{Name: "TCPMSS", Families: xtables.Both, New: newTCPMSS, Limits: mss},
		{Name: "TOS", Families: xtables.Both, New: newTOS, Limits: mangle},
		{Name: "TPROXY", Families: xtables.Both, New: newTPROXY, Limits: tproxy},
		{Name: "TRACE", Families: xtables.Both, New: newTrace, Limits: raw},
		{Name: "TTL", Families: xtables.IPv4Only, New: newTTL, Limits: mangle},
	}
}
