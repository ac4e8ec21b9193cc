package match

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/xtables"
)

// ports are the options that the matches of protocols with ports begin with.
type ports struct {
	Src, Dst       xtables.Span
	NotSrc, NotDst bool
}

func (p *ports) Options(s *xtables.Spec) {
	s.Var("sport", &p.Src).Not(&p.NotSrc).Alias("source-port")
	s.Var("dport", &p.Dst).Not(&p.NotDst).Alias("destination-port")
}

// native asks for the ports as nftables does itself, from what iptables-nft made of
// them. Before 1.8.11 it made one test of two ports that are both negated, which fails
// only where both are met, and none of a negated range that holds every port.
//
// iptables: iptables/nft.c, add_nft_tcpudp.
func (p *ports) native(b *xtables.Build) field.Pred {
	old := b.Version < xtables.V1811
	single := func(s *xtables.Span) bool { return s.Given && s.Lo == s.Hi && s.Lo != 0 }
	if old && p.NotSrc && p.NotDst && single(&p.Src) && single(&p.Dst) {
		return soft(field.Not(field.And(p.Src.Test(field.SrcPort, false),
			p.Dst.Test(field.DstPort, false))))
	}
	test := func(s *xtables.Span, id field.ID, not bool) field.Pred {
		return s.Test(id, not && !(old && s.Unset()))
	}
	return soft(field.And(test(&p.Src, field.SrcPort, p.NotSrc),
		test(&p.Dst, field.DstPort, p.NotDst)))
}

// gone tells whether iptables-nft made nothing of the ports: before 1.8.11, of a negated
// range that holds every port.
func (p *ports) gone(c *xtables.Context) bool {
	whole := func(s *xtables.Span, not bool) bool { return s.Unset() && (not || !s.Given) }
	return c.Backend == xtables.NFT && c.Version < xtables.V1811 && !p.empty() &&
		whole(&p.Src, p.NotSrc) && whole(&p.Dst, p.NotDst)
}

// empty tells whether nothing is asked, so that the match is the kernel's own also
// with iptables-nft.
func (p *ports) empty() bool {
	return p.Src.Unset() && p.Dst.Unset() && !p.NotSrc && !p.NotDst
}

// soft makes all tests of a predicate such that a cut header does not match.
func soft(p field.Pred) field.Pred {
	p.Soft = p.Op == field.OpIn
	kids := make([]field.Pred, len(p.Kids))
	for i := range p.Kids {
		kids[i] = soft(p.Kids[i])
	}
	p.Kids = kids
	return p
}

// test asks for a whole header and for the ports.
func (p *ports) test() field.Pred {
	return field.And(l4(), p.Src.Test(field.SrcPort, p.NotSrc), p.Dst.Test(field.DstPort, p.NotDst))
}
