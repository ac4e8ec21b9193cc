// Package target has the targets of iptables: what a rule does with a packet that
// matched. It stands at the end of a rule; the walk through the chains asks it.
package target

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// The hooks that the kernel admits targets at.
const (
	atPrerouting  = xtables.Hooks(1 << trace.Prerouting)
	atInput       = xtables.Hooks(1 << trace.Input)
	atForward     = xtables.Hooks(1 << trace.Forward)
	atOutput      = xtables.Hooks(1 << trace.Output)
	atPostrouting = xtables.Hooks(1 << trace.Postrouting)

	dnatHooks   = atPrerouting | atOutput
	snatHooks   = atPostrouting | atInput
	rejectHooks = atInput | atForward | atOutput
)

// The families that a target serves.
const (
	v4   = xtables.IPv4Only
	v6   = xtables.IPv6Only
	both = xtables.Both
)

type limits = xtables.Limits

// The tables and protocols that targets are for.
var (
	filter  = []string{"filter"}
	mangle  = []string{"mangle"}
	nats    = []string{"nat"}
	raw     = []string{"raw"}
	onlyTCP = []uint8{packet.TCP}
)

// all are the targets by name.
var all = []xtables.TargetExt{
	{Name: "AUDIT", Families: both, New: newAudit},
	{Name: "CHECKSUM", Families: both, New: newChecksum, Limits: limits{Tables: mangle}},
	{Name: "CLASSIFY", Families: both, New: newClassify,
		Limits: limits{Hooks: atOutput | atForward | atPostrouting}},
	{Name: "CLUSTERIP", Families: v4, New: newCLUSTERIP},
	{Name: "CONNMARK", Families: both, New: newConnmark},
	{Name: "CONNSECMARK", Families: both, New: newConnsecmark},
	{Name: "CT", Families: both, New: newCT, Limits: limits{Tables: raw}},
	{Name: "DNAT", Families: both, New: newDNAT, Limits: limits{Tables: nats, Hooks: dnatHooks}},
	{Name: "DNPT", Families: v6, New: newDNPT, Limits: limits{Tables: mangle, Hooks: dnatHooks}},
	{Name: "DSCP", Families: both, New: newDSCP, Limits: limits{Tables: mangle}},
	{Name: "ECN", Families: v4, New: newECN, Limits: limits{Tables: mangle}},
	{Name: "HL", Families: v6, New: newHL, Limits: limits{Tables: mangle}},
	{Name: "HMARK", Families: both, New: newHMARK},
	{Name: "IDLETIMER", Families: both, New: newIdletimer},
	{Name: "LED", Families: both, New: newLED},
	{Name: "LOG", Families: both, New: newLog},
	{Name: "MARK", Families: both, New: newMark},
	{Name: "MASQUERADE", Families: both, New: newMasquerade,
		Limits: limits{Tables: nats, Hooks: atPostrouting}},
	{Name: "NETMAP", Families: both, New: newNetmap, Limits: limits{Tables: nats}},
	{Name: "NFLOG", Families: both, New: newNflog},
	{Name: "NFQUEUE", Families: both, New: newNFQUEUE},
	{Name: "NOTRACK", Families: both, New: newNotrack, Limits: limits{Tables: raw}},
	{Name: "RATEEST", Families: both, New: newRATEEST},
	{Name: "REDIRECT", Families: both, New: newRedirect,
		Limits: limits{Tables: nats, Hooks: dnatHooks}},
	{Name: "REJECT", Families: v4, New: newReject,
		Limits: limits{Tables: filter, Hooks: rejectHooks}},
	{Name: "REJECT", Families: v6, New: newReject6,
		Limits: limits{Tables: filter, Hooks: rejectHooks}},
	{Name: "SECMARK", Families: both, New: newSecmark},
	{Name: "SET", Families: both, New: newSET},
	{Name: "SNAT", Families: both, New: newSNAT, Limits: limits{Tables: nats, Hooks: snatHooks}},
	{Name: "SNPT", Families: v6, New: newSNPT, Limits: limits{Tables: mangle, Hooks: snatHooks}},
	{Name: "SYNPROXY", Families: both, New: newSYNPROXY,
		Limits: limits{Hooks: atInput | atForward}},
	{Name: "TCPMSS", Families: both, New: newTCPMSS, Limits: limits{Protos: onlyTCP}},
	{Name: "TCPOPTSTRIP", Families: both, New: newTCPOPTSTRIP,
		Limits: limits{Tables: mangle, Protos: onlyTCP}},
	{Name: "TEE", Families: both, New: newTEE},
	{Name: "TOS", Families: both, New: newTOS, Limits: limits{Tables: mangle}},
	{Name: "TPROXY", Families: both, New: newTPROXY,
		Limits: limits{Tables: mangle, Hooks: atPrerouting}},
	{Name: "TRACE", Families: both, New: newTrace, Limits: limits{Tables: raw}},
	{Name: "TTL", Families: v4, New: newTTL, Limits: limits{Tables: mangle}},
	{Name: "ULOG", Families: v4, New: newULOG},
}

// All returns the targets by name. The list must not be changed.
func All() []xtables.TargetExt { return all }
