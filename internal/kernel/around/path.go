package around

import (
	"net/netip"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// ref is a rule by the numbers of its chain and of itself, from 0.
type ref struct{ chain, rule int }

// path is a way to a rule: the rules that jump there, the outermost first, and the
// rule itself.
type path struct {
	hook  trace.Hook
	rules []ref
}

// paths finds a way to every rule of a table that one leads to: the first by breadth.
func paths(t *xtables.Table) map[ref]path {
	index := map[string]int{}
	for i, c := range t.Chains {
		index[c.Name] = i
	}
	lead := map[int]path{} // to a chain
	var queue []int
	for i, c := range t.Chains {
		if c.Builtin {
			lead[i] = path{hook: c.Hook}
			queue = append(queue, i)
		}
	}
	out := map[ref]path{}
	for ; len(queue) > 0; queue = queue[1:] {
		i := queue[0]
		for n := range t.Chains[i].Rules {
			p := path{lead[i].hook, append(lead[i].rules[:len(lead[i].rules):len(lead[i].rules)],
				ref{i, n})}
			out[ref{i, n}] = p
			r := &t.Chains[i].Rules[n]
			j, ok := index[r.Jump]
			if _, known := lead[j]; ok && !known && r.Ext == nil {
				lead[j] = p
				queue = append(queue, j)
			}
		}
	}
	return out
}

// tests are what a way through the rules asks of addresses and devices.
type tests struct {
	hook     trace.Hook
	in, out  string
	src, dst netip.Prefix // not valid for any
}

// pathTests are those of every rule of a table.
func pathTests(t *xtables.Table) []tests {
	var out []tests
	all := paths(t)
	for i, c := range t.Chains {
		for n := range c.Rules {
			p, ok := all[ref{i, n}]
			if !ok {
				continue
			}
			x := tests{hook: p.hook}
			for _, r := range p.rules {
				x.add(&t.Chains[r.chain].Rules[r.rule].IP)
			}
			out = append(out, x)
		}
	}
	return out
}

// add takes over what one rule asks without a "!"; of several the last, narrowest.
func (x *tests) add(ip *xtables.IPTest) {
	if ip.Not&xtables.NotIn == 0 && ip.In != "" {
		x.in = ip.In
	}
	if ip.Not&xtables.NotOut == 0 && ip.Out != "" {
		x.out = ip.Out
	}
	if p, ok := prefix(ip.Src); ok && ip.Not&xtables.NotSrc == 0 {
		x.src = p
	}
	if p, ok := prefix(ip.Dst); ok && ip.Not&xtables.NotDst == 0 {
		x.dst = p
	}
}

// prefix is an IPv4 prefix; false for none, for all addresses, and for a mask with
// holes.
func prefix(p xtables.Prefix) (netip.Prefix, bool) {
	mask, addr := [4]byte(p.Mask[12:]), [4]byte(p.Addr[12:])
	bits := 0
	for bits < 32 && mask[bits/8]>>(7-bits%8)&1 == 1 {
		bits++
	}
	full := netip.PrefixFrom(netip.AddrFrom4(addr), bits)
	want := netip.PrefixFrom(netip.AddrFrom4(mask), bits).Masked().Addr().As4()
	return full, bits > 0 && want == mask
}
