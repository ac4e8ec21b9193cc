// Package xtables is the rules: tables, chains, rules, the save format, option
// values, the shape of a match and of a target, and the walk through a table's
// compiled chains. It stands between the hooks and what a rule can ask or do.
//
// Kernel: net/ipv4/netfilter/ip_tables.c; user space: iptables' libxtables.
package xtables

import (
	"fmt"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// Backend is the kernel interface that the rules were loaded by.
type Backend uint8

// The back ends.
const (
	Legacy Backend = iota
	NFT
)

// String returns "legacy" or "nft".
func (b Backend) String() string { return [...]string{"legacy", "nft"}[b] }

// Ruleset is what one save file says.
type Ruleset struct {
	File    string
	Family  trace.Family
	Backend Backend
	// Header tells whether the file said its back end.
	Header   bool
	Version  Version
	Tables   []*Table
	Warnings []string
}

// Table returns the table of a name, nil when there is none.
func (rs *Ruleset) Table(name string) *Table {
	for _, t := range rs.Tables {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// Table is one table with its chains, as declared.
type Table struct {
	Name   string
	Chains []*Chain
	byName map[string]*Chain
}

// Chain returns the chain of a name, nil when there is none.
func (t *Table) Chain(name string) *Chain { return t.byName[name] }

// Counters are packets and bytes.
type Counters struct{ Packets, Bytes uint64 }

// Chain is a list of rules.
type Chain struct {
	Name     string
	Builtin  bool
	Hook     trace.Hook    // of a built-in chain
	Policy   trace.Verdict // Accept or DropIt; Return for user chains
	Counters Counters
	Rules    []Rule
	Line     int

	place int // in its table, once all is read
}

// Not are the tests of an IPTest that are negated.
type Not uint8

// The bits of Not.
const (
	NotSrc Not = 1 << iota
	NotDst
	NotIn
	NotOut
	NotProto
	NotFrag
)

// IPTest is what a rule asks without any -m: struct ipt_ip.
type IPTest struct {
	Src, Dst Prefix
	In, Out  string // interface names, a trailing + matches any rest; empty for any
	Proto    uint8  // zero for any
	Frag     bool
	Not      Not
	ProtoSet bool // -p was given, be it all
}

// MatchUse is one -m of a rule.
type MatchUse struct {
	Ext *MatchExt
	M   Match
}

// Rule is one rule of a chain.
type Rule struct {
	IP      IPTest
	Matches []MatchUse
	// Target is the target with its extension; nil for jumps, verdicts and none.
	Target Target
	Ext    *TargetExt
	// Jump is the chain or standard verdict of -j or -g: ACCEPT, DROP, RETURN,
	// QUEUE or a user chain; empty with a Target and without any.
	Jump        string
	Goto        bool
	Counters    Counters
	HasCounters bool
	Line        int

	to *Chain // that Jump names; nil for a verdict
}

// TargetName is the word behind -j or -g, empty without one.
func (r *Rule) TargetName() string {
	if r.Ext != nil {
		return r.Ext.printName()
	}
	return r.Jump
}

func (e *TargetExt) printName() string {
	if e.Alias != "" {
		return e.Alias
	}
	return e.Name
}

func (e *MatchExt) printName() string {
	if e.Alias != "" {
		return e.Alias
	}
	return e.Name
}

// Error is what is wrong with a line of a save file.
type Error struct {
	File   string
	Line   int
	Option string // the extension or option at fault: "-m mark: --mark"; may be empty
	Msg    string
}

// Error implements error.
func (e *Error) Error() string {
	if e.Option == "" {
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
	}
	return fmt.Sprintf("%s:%d: %s: %s", e.File, e.Line, e.Option, e.Msg)
}

// builtins are the base chains of each table in hook order, and so the order in
// which iptables-save prints them.
var builtins = map[string][]trace.Hook{
	"raw":      {trace.Prerouting, trace.Output},
	"mangle":   {trace.Prerouting, trace.Input, trace.Forward, trace.Output, trace.Postrouting},
	"nat":      {trace.Prerouting, trace.Input, trace.Output, trace.Postrouting},
	"filter":   {trace.Input, trace.Forward, trace.Output},
	"security": {trace.Input, trace.Forward, trace.Output},
}

// builtinHook returns the hook of a table's built-in chain.
func builtinHook(table, chain string) (trace.Hook, bool) {
	for _, h := range builtins[table] {
		if h.String() == chain {
			return h, true
		}
	}
	return 0, false
}

// standard returns the verdict of a standard target.
func standard(name string) (trace.Verdict, bool) {
	switch name {
	case "ACCEPT":
		return trace.Accept, true
	case "DROP":
		return trace.DropIt, true
	case "RETURN":
		return trace.Return, true
	case "QUEUE":
		return trace.Queue, true
	}
	return 0, false
}

// protoNames are the names of /etc/protocols that differ from their numbers, as
// Debian's netbase has them.
var protoNames = map[uint8]string{
	1: "icmp", 2: "igmp", 3: "ggp", 4: "ipencap", 5: "st", 6: "tcp", 8: "egp", 9: "igp", 12: "pup",
	17: "udp", 20: "hmp", 22: "xns-idp", 27: "rdp", 29: "iso-tp4", 33: "dccp", 36: "xtp", 37: "ddp",
	38: "idpr-cmtp", 41: "ipv6", 43: "ipv6-route", 44: "ipv6-frag", 45: "idrp", 46: "rsvp",
	47: "gre", 50: "esp", 51: "ah", 57: "skip", 58: "ipv6-icmp", 59: "ipv6-nonxt",
	60: "ipv6-opts", 73: "rspf", 81: "vmtp", 88: "eigrp", 89: "ospf", 93: "ax.25", 94: "ipip",
	97: "etherip", 98: "encap", 103: "pim", 108: "ipcomp", 112: "vrrp", 115: "l2tp", 124: "isis",
	132: "sctp", 133: "fc", 135: "mobility-header", 136: "udplite", 137: "mpls-in-ip",
	138: "manet", 139: "shim6", 140: "wesp", 141: "rohc", 143: "ethernet", 255: "raw",
}

// protoAliases are further names that are read.
var protoAliases = map[string]uint8{
	"icmpv6": 58, "ip": 0, "all": 0, "idpr": 35, "st2": 5, "ipcomp": 108, "ipip": 94, "mh": 135,
	"ipv6-mh": 135, "mptcp": 0, "hopopt": 0, "dccp": 33,
}

// ProtoName returns the name that iptables-save prints for a protocol, or its
// number.
func ProtoName(n uint8) string {
	if s, ok := protoNames[n]; ok {
		return s
	}
	return fmt.Sprint(n)
}

// ParseProto reads a protocol by name or number; "all" is 0.
func ParseProto(s string) (uint8, error) {
	switch s {
	case "tcp":
		return packet.TCP, nil
	case "udp":
		return packet.UDP, nil
	}
	if n, err := ParseUint(s, 255); err == nil {
		return uint8(n), nil
	}
	for n, name := range protoNames {
		if name == s {
			return n, nil
		}
	}
	if n, ok := protoAliases[s]; ok {
		return n, nil
	}
	return 0, fmt.Errorf("unknown protocol %q", s)
}

// MatchesProto is packet.Addr's twin for IP tests: it tells whether proto p passes
// the rule's -p.
func (t *IPTest) MatchesProto(p uint8) bool {
	return t.Proto == 0 || (t.Proto == p) != (t.Not&NotProto != 0)
}

var _ = packet.TCP
