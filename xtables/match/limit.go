package match

import (
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// limit matches while a token bucket has credit. The bucket belongs to the rule.
//
// Kernel: net/netfilter/xt_limit.c, limit_mt.
type limit struct {
	Rate  xtables.Rate
	Burst xtables.Uint
}

// limitScale is XT_LIMIT_SCALE, the units of a period in a second.
const limitScale = 10000

func newLimit() xtables.Match {
	const hour = 3600
	return &limit{Rate: xtables.Rate{Period: limitScale * hour / 3, Scale: limitScale, Unit: hour},
		Burst: xtables.Uint{N: 5, Max: 10000}}
}

// Options implements xtables.Match.
func (m *limit) Options(s *xtables.Spec) {
	s.Var("limit", &m.Rate).Always()
	s.Var("limit-burst", &defaulted{Uint: &m.Burst, def: 5})
}

// bucket is how the kernel keeps the bucket: credits of which each jiffy brings
// some, all in 32 bits that wrap.
type bucket struct {
	prev   int64
	credit uint32
}

// limitCosts are the numbers that the kernel derives from rate and burst at load.
type limitCosts struct{ perJiffy, cost, full uint32 }

// costs mirrors limit_mt_check.
func (m *limit) costs(hz int) limitCosts {
	const maxCredit = 0xffffffff
	c := limitCosts{perJiffy: pow2Below(maxCredit / uint32(hz*86400))}
	credits := func(user uint32) uint32 {
		jiffy := uint32(hz) * c.perJiffy
		if user > maxCredit/jiffy {
			return user / limitScale * jiffy
		}
		return user * jiffy / limitScale
	}
	avg := uint32(m.Rate.Period)
	c.cost, c.full = credits(avg), credits(avg*uint32(m.Burst.N))
	return c
}

// pow2Below is the kernel's POW2_BELOW32: the greatest power of two that is not
// greater than n.
func pow2Below(n uint32) uint32 {
	p := uint32(1)
	for n >>= 1; n > 0; n >>= 1 {
		p <<= 1
	}
	return p
}

// Validate implements xtables.Validator.
func (m *limit) Validate(b *xtables.Build) error {
	if b.Backend == xtables.NFT {
		return nil
	}
	if c := m.costs(b.HZ); m.Burst.N == 0 || c.full < c.cost {
		return fmt.Errorf("the kernel refuses this rate and burst: numbers overflow")
	}
	return nil
}

// Pred implements xtables.Match.
func (m *limit) Pred(b *xtables.Build) field.Pred {
	if b.Backend == xtables.NFT {
		return m.native(b)
	}
	c := m.costs(b.HZ)
	slot := xtables.Slot(b, bucket{b.Now.Jiffies(b.HZ), c.full})
	assume(b, "-m limit counts as just loaded, its bucket full")
	return xtables.Call(func(e *xtables.Env) bool {
		return take(&slot.In(e.World.State).V, e.World, &c)
	})
}

// tokens is how nftables keeps a bucket: nanoseconds of time that were not used up.
type tokens struct {
	last world.Instant
	left uint64
}

// native is the limit of nftables, which iptables-nft makes of the match.
//
// Kernel: net/netfilter/nft_limit.c, nft_limit_eval.
func (m *limit) native(b *xtables.Build) field.Pred {
	unit := m.Rate.PrintedUnit()
	cost := unit * uint64(world.Second) / (unit * limitScale / m.Rate.Period)
	burst := m.Burst.N
	if burst == 0 {
		burst = 5
	}
	slot := xtables.Slot(b, tokens{b.Now, cost * burst})
	assume(b, "-m limit counts as just loaded, its bucket full")
	return xtables.Call(func(e *xtables.Env) bool {
		t, now := &slot.In(e.World.State).V, e.World.Now
		t.left, t.last = min(t.left+uint64(now-t.last), cost*burst), now
		if t.left < cost {
			return false
		}
		t.left -= cost
		return true
	})
}

// take mirrors limit_mt.
func take(k *bucket, w *world.World, c *limitCosts) bool {
	now := w.Now.Jiffies(w.HZ)
	credit := k.credit + uint32(now-k.prev)*c.perJiffy
	k.prev = now
	credit = min(credit, c.full)
	if k.credit = credit; credit < c.cost {
		return false
	}
	k.credit -= c.cost
	return true
}
