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

// test asks for a whole header and for the ports.
func (p *ports) test() field.Pred {
	return field.And(l4(), p.Src.Test(field.SrcPort, p.NotSrc), p.Dst.Test(field.DstPort, p.NotDst))
}
