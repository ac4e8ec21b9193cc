package match

import (
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// hashTable is the table that rules of one name share: struct xt_hashlimit_htable.
type hashTable struct {
	mode             uint64
	srcMask, dstMask packet.Addr
	bytes, rateMatch bool
	avg, burst       uint64
	interval         uint64
	max              int
	expire, gc       int64 // in jiffies
	made             int64 // when, in jiffies
	perJiffy         uint64
	hz               int
	entries          world.Slot[*world.Table[hashKey, hashEntry]]
	swept            world.Slot[*world.Var[int64]]
}

// hashKey is what packets are told apart by: struct dsthash_dst.
type hashKey struct {
	src, dst     packet.Addr
	sport, dport uint16
}

// hashEntry is one bucket: struct dsthash_ent. Of the two groups of numbers only one
// is in use, as mode says.
type hashEntry struct {
	expires, prev           int64
	credit, creditCap, cost uint64
	rate, current           uint64
	burst                   int64
	full                    bool // the last interval was over the rate
}

// hashSizeUsual is the number of hash slots on a machine of a gigabyte and more.
const hashSizeUsual = 8192

// hashMost is HASHLIMIT_MAX_SIZE.
const hashMost = 1048576

// table returns the table of the rule's name.
func (m *hashlimit) table(b *xtables.Build) *hashTable {
	name := fmt.Sprint(b.Family, m.Name.S)
	t, made := xtables.Shared(b, "hashlimit", name, func() *hashTable { return m.newTable(b) })
	if made {
		assume(b, "table %q of -m hashlimit counts as empty", m.Name.S)
	}
	return t
}

func (m *hashlimit) newTable(b *xtables.Build) *hashTable {
	size := min(int(m.Size.N), hashMost)
	if size == 0 {
		size = hashSizeUsual
	}
	most := min(int(m.Max.N), hashMost)
	if most == 0 {
		most = 8 * size
	}
	hz := int64(b.HZ)
	t := &hashTable{mode: m.Mode.N, bytes: m.Rate.bytes, rateMatch: m.RateMatch,
		srcMask: m.SrcMask.mask(b.Family), dstMask: m.DstMask.mask(b.Family),
		avg: m.avg(), burst: m.burst(),
		interval: m.Interval.n, max: max(most, size), expire: msecs(m.Expire.n, hz),
		gc: msecs(m.GC.N, hz), made: b.Now.Jiffies(b.HZ), hz: b.HZ}
	t.perJiffy = creditsPerJiffy(b.HZ, t.bytes)
	t.entries = world.Add(b.Schema, world.NewTable[hashKey, hashEntry])
	t.swept = xtables.Slot(b, t.made)
	return t
}

// msecs is the kernel's msecs_to_jiffies: rounded up.
func msecs(n uint64, hz int64) int64 { return (int64(n)*hz + 999) / 1000 }

func (m *hashlimit) avg() uint64 {
	if m.Rate.bytes {
		return m.Rate.cost
	}
	return m.Rate.Period
}

// creditsPerJiffy is CREDITS_PER_JIFFY, or with bytes CREDITS_PER_JIFFY_BYTES.
func creditsPerJiffy(hz int, bytes bool) uint64 {
	if bytes {
		return uint64(pow2Below(uint32(0xffffffff / hz)))
	}
	n := ^uint64(0) / uint64(hz*86400)
	return 1 << (bits.Len64(n) - 1)
}

func (v *prefixLen) mask(f trace.Family) packet.Addr {
	n := int(v.n)
	if !v.given {
		n = 128
		if f == trace.IPv4 {
			n = 32
		}
	}
	return xtables.MaskOf(n, f)
}

// credits mirrors user2credits of revision 3.
func (t *hashTable) credits(user uint64) uint64 {
	second := uint64(t.hz) * t.perJiffy
	if hashScale >= second {
		return user / (hashScale / second)
	}
	return user * (second / hashScale)
}

// byteCost mirrors user2credits_byte.
func (t *hashTable) byteCost(user uint64) uint64 {
	return uint64(uint32(user)) * uint64(t.hz) * t.perJiffy >> 32
}

// Validate implements xtables.Validator. It mirrors hashlimit_mt_check_common.
func (m *hashlimit) Validate(b *xtables.Build) error {
	if m.Expire.n == 0 || m.GC.N == 0 {
		return fmt.Errorf("the kernel refuses intervals of zero")
	}
	t := &hashTable{hz: b.HZ, perJiffy: creditsPerJiffy(b.HZ, m.Rate.bytes)}
	avg, burst := m.avg(), m.burst()
	switch {
	case m.RateMatch && (avg == 0 || avg > 0xffffffff):
		return fmt.Errorf("the kernel refuses this rate")
	case m.RateMatch:
	case m.Rate.bytes && t.byteCost(avg) == 0:
		return fmt.Errorf("the kernel refuses this rate: it is too high")
	case !m.Rate.bytes && (burst == 0 || t.credits(avg*burst) < t.credits(avg)):
		return fmt.Errorf("the kernel refuses this rate and burst: numbers overflow")
	}
	if m.table(b).rateMatch != m.RateMatch {
		return fmt.Errorf("another rule has table %q with or without --hashlimit-rate-match, "+
			"unlike this", m.Name.S)
	}
	return nil
}

// key reads what the packet is told apart by; false drops it.
//
// Kernel: hashlimit_init_dst.
func (t *hashTable) key(p *packet.Packet) (k hashKey, ok bool) {
	if t.mode&hashDst != 0 {
		k.dst = masked(p.Dst(), t.dstMask)
	}
	if t.mode&hashSrc != 0 {
		k.src = masked(p.Src(), t.srcMask)
	}
	off, has := portsOffset(p.Protocol())
	if t.mode&(hashSrcPort|hashDstPort) == 0 || !has {
		return k, true
	}
	l4 := p.L4()
	if len(l4) < off+4 {
		return k, false
	}
	if t.mode&hashSrcPort != 0 {
		k.sport = binary.BigEndian.Uint16(l4[off:])
	}
	if t.mode&hashDstPort != 0 {
		k.dport = binary.BigEndian.Uint16(l4[off+2:])
	}
	return k, true
}

// portsOffset mirrors proto_ports_offset: AH and ESP count by their SPI.
func portsOffset(proto uint8) (int, bool) {
	switch proto {
	case packet.TCP, packet.UDP, packet.DCCP, packet.ESP, packet.SCTP, packet.UDPLite:
		return 0, true
	case packet.AH:
		return 4, true
	}
	return 0, false
}

// test mirrors hashlimit_mt_common.
func (t *hashTable) test(e *xtables.Env, m *hashlimit) field.Result {
	k, ok := t.key(e.Packet)
	if !ok {
		return field.Drop
	}
	now := e.World.Now.Jiffies(e.World.HZ)
	entries := t.entries.In(e.World.State)
	t.sweep(e.World, entries, now)
	old, found := entries.Get(k)
	if !found && entries.Len() >= t.max {
		return field.Drop
	}
	if !found {
		old = t.newEntry(now)
	}
	d, under := t.spend(old, m, e.Packet.Len(), now)
	if e.World.Dice.Oracle != nil { // a kernel is followed, which sees packets somewhat later
		for _, at := range [...]int64{now + slack, max(now-slack, old.prev)} {
			if other, would := t.spend(old, m, e.Packet.Len(), at); would != under {
				if t.late(e) {
					d, under = other, would
				}
				break
			}
		}
	}
	entries.Put(k, d)
	return result(under != m.Above)
}

// slack is by how many ticks a kernel's time between two packets may differ.
const slack = 25

// late asks whether a kernel saw the packet, or the one before, later than it was told.
func (t *hashTable) late(e *xtables.Env) bool {
	return e.World.Dice.Take(world.Choice{
		Key: world.Key{What: world.ChoiceLimit, A: uint64(e.Rule), B: uint64(e.Packet.SKB)},
		N:   2, Anew: true, Weights: []uint64{9, 1}, Values: onTimeOrLate}) == 1
}

func onTimeOrLate(i int) string { return [...]string{"at once", "some ticks later"}[i] }

// spend is the entry behind a packet, and whether it was below the limit.
func (t *hashTable) spend(d hashEntry, m *hashlimit, length int, now int64) (hashEntry, bool) {
	t.recalc(&d, now)
	d.expires = now + t.expire
	return d, d.pay(t, m, uint64(length))
}

// sweep forgets what was too old at the last run of the garbage collector. It runs
// at every interval since the table was made, as far as that can be known.
//
// Kernel: htable_gc.
func (t *hashTable) sweep(w *world.World, entries *world.Table[hashKey, hashEntry], now int64) {
	run := &t.swept.In(w.State).V
	last := t.made + (now-t.made)/t.gc*t.gc
	if last <= *run {
		return
	}
	*run = last
	for k, d := range entries.All {
		if d.expires <= last {
			entries.Delete(k)
		}
	}
}

// newEntry mirrors rateinfo_init.
func (t *hashTable) newEntry(now int64) hashEntry {
	d := hashEntry{prev: now}
	switch {
	case t.rateMatch && t.bytes:
		d.rate = costToBytes(t.avg)
		d.burst = int64(d.rate)
		if t.burst != 0 {
			d.burst = int64(t.burst * d.rate)
		}
	case t.rateMatch:
		d.rate = hashScale / t.avg
		d.burst = int64(t.burst + d.rate)
	case t.bytes:
		d.credit, d.cost, d.creditCap = t.perJiffy*uint64(t.hz), t.byteCost(t.avg), t.burst
	default:
		d.credit, d.cost = t.credits(t.avg*t.burst), t.credits(t.avg)
		d.creditCap = d.credit
	}
	return d
}

// recalc mirrors rateinfo_recalc.
func (t *hashTable) recalc(d *hashEntry, now int64) {
	delta := now - d.prev
	if delta == 0 {
		return
	}
	if t.rateMatch {
		interval := int64(t.interval) * int64(t.hz)
		if delta < interval {
			return
		}
		d.prev = now
		d.full = d.current*uint64(interval) > uint64(delta)*d.rate
		d.current = 0
		return
	}
	d.prev = now
	most, old := d.creditCap, d.credit
	d.credit += uint64(delta) * t.perJiffy
	if t.bytes {
		if most = t.perJiffy * uint64(t.hz); old >= d.credit {
			d.credit = most
			return
		}
	}
	d.credit = min(d.credit, most)
}

// pay takes the packet's cost out of the bucket; false when there is not enough.
func (d *hashEntry) pay(t *hashTable, m *hashlimit, length uint64) bool {
	if m.RateMatch {
		cost := uint64(1)
		if m.Rate.bytes {
			cost = length
		}
		d.current += cost
		return !d.full && d.current <= uint64(d.burst)
	}
	cost := d.cost
	if m.Rate.bytes {
		cost = d.bytes(t, length)
	}
	if d.credit < cost {
		return false
	}
	d.credit -= cost
	return true
}

// bytes is a packet's cost by its length; a bucket that lacks it is filled as often
// as the burst allows.
//
// Kernel: hashlimit_byte_cost.
func (d *hashEntry) bytes(t *hashTable, length uint64) uint64 {
	whole := uint64(creditsPerJiffy(t.hz, true)) * uint64(t.hz)
	cost := min((length>>hashByteShift+1)*d.cost, whole)
	if d.credit < cost && d.creditCap != 0 {
		d.creditCap--
		d.credit = whole
	}
	return uint64(uint32(cost))
}
