package xtables

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/trace"
)

// SetRef is SETNAME DIR[,DIR...] of -m set and -j SET, where each DIR is src or dst.
//
// iptables: extensions/libxt_set.h, parse_dirs.
type SetRef struct {
	Name  string
	Dims  uint8
	Src   uint8 // bit i: the word of dimension i is src
	Given bool
}

// maxDims is IPSET_DIM_MAX.
const maxDims = 6

// Parse implements Value.
func (r *SetRef) Parse(a *Args) error {
	if a.Word == "" || len(a.Word) > ipset.MaxName {
		return fmt.Errorf("%q is not the name of a set", cut(a.Word))
	}
	dirs, ok := a.Next()
	if !ok {
		return fmt.Errorf("the words src and dst behind the set's name are missing")
	}
	*r = SetRef{Name: a.Word, Given: true}
	for dir := range strings.SplitSeq(dirs, ",") {
		switch {
		case r.Dims == maxDims:
			return fmt.Errorf("%q has more than %d words", cut(dirs), maxDims)
		case dir == "src":
			r.Src |= 1 << r.Dims
		case dir != "dst":
			return fmt.Errorf("%q is neither src nor dst", cut(dir))
		}
		r.Dims++
	}
	return nil
}

// Append implements Value.
func (r *SetRef) Append(b []byte, _ trace.Family) []byte {
	b = append(b, r.Name...)
	for i := range r.Dims {
		b = append(b, " ,"[min(i, 1)])
		if r.Src>>i&1 != 0 {
			b = append(b, "src"...)
		} else {
			b = append(b, "dst"...)
		}
	}
	return b
}

// Unset implements Value.
func (r *SetRef) Unset() bool { return !r.Given }

// Check refuses a set that is not there, or of the other family, as iptables does.
// Where nothing is known of the sets it notes that.
func (r *SetRef) Check(b *Build) error {
	if !r.Given {
		return nil
	}
	if b.Sets.Open() {
		_, first := Shared(b, "set", r.Name, func() bool { return true })
		if first && b.Assume != nil {
			b.Assume(fmt.Sprintf("nothing is known of the set %s", r.Name))
		}
		return nil
	}
	i, ok := b.Sets.ByName(r.Name)
	if !ok {
		return fmt.Errorf("there is no set %q", r.Name)
	}
	want := ipset.Inet
	if b.Family == trace.IPv6 {
		want = ipset.Inet6
	}
	if f := b.Sets.Set(i).Family; f != ipset.Unspec && f != want {
		return fmt.Errorf("set %q is of family %s", r.Name, f)
	}
	return nil
}

// Query is the question that the rule asks of the set. It may be used where Check
// has passed and the sets are known.
func (r *SetRef) Query(b *Build) ipset.Query {
	i, _ := b.Sets.ByName(r.Name)
	return ipset.Query{Set: i, Dims: r.Dims, Src: r.Src, Timeout: ipset.NoTimeout}
}

// SetPlace is where the packet is, for a set.
func (e *Env) SetPlace() ipset.Place {
	at := ipset.Place{Links: e.Links, Deps: e.Deps()}
	switch e.Hook {
	case trace.Postrouting:
		at.Dev = e.Packet.Out
	case trace.Output:
	default:
		at.Dev = e.Packet.In
	}
	return at
}
