package xtables

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
)

// Match is one -m of a rule: a declaration of options and a predicate.
type Match interface {
	Options(*Spec)
	Pred(*Build) field.Pred
}

// Vanisher is implemented by matches of which iptables-nft may make nothing: what is
// gone is not in the kernel, and not printed.
type Vanisher interface{ Gone(*Context) bool }

// Target is what a rule does with a packet that matched.
type Target interface {
	Options(*Spec)
	// Effects declares what Do does to fields; the bytes that Do writes are held
	// against it by a property test.
	Effects() []field.Effect
	// Do acts on the packet and says what becomes of it: Continue goes to the next
	// rule, Accept and DropIt end the chain.
	Do(*Env) trace.Verdict
}

// Families is a set of trace.Family.
type Families uint8

// The usual sets.
const (
	IPv4Only Families = 1 << trace.IPv4
	IPv6Only Families = 1 << trace.IPv6
	Both     Families = IPv4Only | IPv6Only
	Arp      Families = 1 << trace.ARP
	Ebt      Families = 1 << trace.Bridge
)

// Has tells whether f is in the set.
func (fs Families) Has(f trace.Family) bool { return fs>>f&1 != 0 }

// Hooks is a set of trace.Hook; zero stands for all.
type Hooks uint8

// HookSet returns the set of the given hooks.
func HookSet(hs ...trace.Hook) Hooks {
	var s Hooks
	for _, h := range hs {
		s |= 1 << h
	}
	return s
}

// Limits are where the kernel admits an extension (struct xt_match and xt_target:
// table, hooks, proto). The zero Limits admit it everywhere.
type Limits struct {
	Tables []string
	Hooks  Hooks
	Protos []uint8 // one of these must be the rule's -p, without !
}

// MatchExt is an entry of the list of matches.
type MatchExt struct {
	Name     string
	Families Families
	New      func() Match
	Limits   Limits
	// For is the protocol whose -p loads the match when an unknown option follows
	// (-p tcp --dport 80). Zero is none.
	For uint8
	// Alias is the name that is printed in place of Name; empty for Name.
	Alias string
}

// TargetExt is an entry of the list of targets.
type TargetExt struct {
	Name     string
	Families Families
	New      func() Target
	Limits   Limits
	Alias    string
}

// Catalog is the extensions by name, for one family.
type Catalog struct {
	family  trace.Family
	matches map[string]*MatchExt
	targets map[string]*TargetExt
	byProto map[uint8]*MatchExt
}

// NewCatalog makes the catalog of a family from the literal lists. An entry later
// in a list replaces an earlier one of the same name.
func NewCatalog(f trace.Family, matches []MatchExt, targets []TargetExt) *Catalog {
	c := &Catalog{f, map[string]*MatchExt{}, map[string]*TargetExt{}, map[uint8]*MatchExt{}}
	for i := range matches {
		m := &matches[i]
		if !m.Families.Has(f) {
			continue
		}
		c.matches[m.Name] = m
		if m.For != 0 {
			c.byProto[m.For] = m
		}
	}
	for i := range targets {
		if targets[i].Families.Has(f) {
			c.targets[targets[i].Name] = &targets[i]
		}
	}
	return c
}

// Family is the family that the catalog serves.
func (c *Catalog) Family() trace.Family { return c.family }

// Context is what a check sees of the rule around it.
type Context struct {
	Family  trace.Family
	Version Version
	Backend Backend
	Table   string
	Rule    *Rule
	Spec    *Spec
}

// Proto is the rule's protocol when it is given without !, else zero.
func (c *Context) Proto() uint8 {
	if c.Rule.IP.Not&NotProto != 0 {
		return 0
	}
	return c.Rule.IP.Proto
}
