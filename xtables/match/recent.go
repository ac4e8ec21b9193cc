package match

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// recent keeps and asks a named list of addresses with the times at which they were
// seen. Rules that give the same name share the list; the mask is that of the rule
// loaded first.
//
// Kernel: net/netfilter/xt_recent.c, recent_mt, revision 1.
type recent struct {
	Set, Check, Update, Remove bool
	Seconds                    number
	Hits                       xtables.Uint
	Reap, TTL                  bool
	Name                       xtables.Text
	Mask                       recentMask
	Source, Dest               bool
	Not                        bool
}

// maxRecentName is XT_RECENT_NAME_LEN less its NUL.
const maxRecentName = 199

func newRecent() xtables.Match {
	return &recent{Seconds: number{Min: 1},
		Name: xtables.Text{S: "DEFAULT", Max: maxRecentName}}
}

// Options implements xtables.Match.
func (m *recent) Options(s *xtables.Spec) {
	s.Flag("set", &m.Set).Not(&m.Not)
	s.Flag("rcheck", &m.Check).Not(&m.Not)
	s.Flag("update", &m.Update).Not(&m.Not)
	s.Flag("remove", &m.Remove).Not(&m.Not)
	s.Var("seconds", &m.Seconds)
	s.Flag("reap", &m.Reap).Needs("seconds")
	s.Var("hitcount", &m.Hits)
	s.Flag("rttl", &m.TTL)
	s.Var("name", &bare{&m.Name}).Always()
	s.Var("mask", &m.Mask).Always()
	s.Flag("rsource", &m.Source).PrintAs(m.side)
	s.Flag("rdest", &m.Dest).PrintAs(func(b []byte) []byte { return b })
	s.ExactlyOne("set", "rcheck", "update", "remove")
	s.Check(m.check)
}

// side prints the last of the options; without one the source counts, and given both
// the destination.
func (m *recent) side(b []byte) []byte {
	if m.Dest {
		return append(b, " --rdest"...)
	}
	return append(b, " --rsource"...)
}

func (m *recent) check(*xtables.Context) error {
	name := m.Name.S
	switch {
	case (m.Set || m.Remove) && (m.Seconds.given || m.Hits.N > 0 || m.TTL || m.Reap):
		return fmt.Errorf("--seconds, --hitcount, --rttl and --reap need --rcheck or --update")
	case name == "" || name == "." || name == ".." || strings.Contains(name, "/"):
		return fmt.Errorf("--name %q can't be the name of a list", name)
	}
	return nil
}

// Validate implements xtables.Validator.
func (m *recent) Validate(b *xtables.Build) error {
	most := uint64(65535)
	if b.Kernel.Before(6, 11) {
		most = 255
	}
	if m.Hits.N > most {
		return fmt.Errorf("--hitcount %d is more than %d", m.Hits.N, most)
	}
	return nil
}

// recentList is a list that rules share.
type recentList struct {
	mask    packet.Addr
	stamps  uint32 // how many times are kept of an address, a power of two
	entries world.Slot[*world.Table[packet.Addr, seen]]
	clock   world.Slot[*world.Var[uint64]] // numbers the uses, for the oldest
}

// seen is an address of a list. Its stamps are replaced, never changed, since frozen
// memory shares them.
type seen struct {
	ttl    uint8
	index  uint32
	used   uint64
	stamps []int64
}

// recentMost is the module's ip_list_tot: how many addresses a list holds.
const recentMost = 100

// Pred implements xtables.Match.
func (m *recent) Pred(b *xtables.Build) field.Pred {
	list, made := xtables.Shared(b, "recent", m.Name.S, func() *recentList {
		return &recentList{mask: m.Mask.addr(b.Family),
			entries: world.Add(b.Schema, world.NewTable[packet.Addr, seen]),
			clock:   xtables.Slot(b, uint64(0))}
	})
	if made {
		assume(b, "list %q of -m recent counts as empty", m.Name.S)
	}
	list.stamps = max(list.stamps, m.kept())
	return call(func(e *xtables.Env) field.Result { return m.test(e, list) }, m.reads()...)
}

func (m *recent) reads() []field.ID {
	if m.TTL {
		return []field.ID{m.asked(), field.TTL}
	}
	return []field.ID{m.asked()}
}

// asked is the field that the list is asked about.
func (m *recent) asked() field.ID {
	if m.Dest {
		return field.Dst
	}
	return field.Src
}

// kept is how many times a list must keep for this rule.
func (m *recent) kept() uint32 {
	const usual = 32
	if m.Hits.N == 0 {
		return usual
	}
	return 1 << bits.Len32(uint32(m.Hits.N)-1)
}

// use is one packet at a list.
type use struct {
	m    *recent
	list *recentList
	w    *world.World
	t    *world.Table[packet.Addr, seen]
	key  packet.Addr
	ttl  uint8
	now  int64
}

func (m *recent) test(e *xtables.Env, list *recentList) field.Result {
	v, _ := e.Field(m.asked())
	ttl := e.Packet.TTL()
	if e.Packet.Out != 0 && e.Packet.Socket == 0 {
		ttl++ // as it was before forwarding
	}
	u := use{m, list, e.World, list.entries.In(e.World.State), masked(v.Addr(), list.mask), ttl,
		e.World.Now.Jiffies(e.World.HZ)}
	return result(u.run() != m.Not)
}

// run mirrors recent_mt behind the choice of the address.
func (u *use) run() bool {
	s, ok := u.t.Get(u.key)
	if ok && u.m.TTL && s.ttl != u.ttl && u.ttl != 0 && s.ttl != 0 {
		ok = false
	}
	switch {
	case !ok && u.m.Set:
		u.add()
		return true
	case !ok:
		return false
	case u.m.Set:
		u.stamp(s)
		return true
	case u.m.Remove:
		u.t.Delete(u.key)
		return true
	}
	return u.check(s)
}

// check counts the times that are young enough. A match that --update negates is no
// match: it is the rule's answer that decides whether the address is updated.
func (u *use) check(s seen) bool {
	since := int64(uint64(u.now) - uint64(uint32(u.m.Seconds.n)*uint32(u.w.HZ)))
	found, hits := false, uint64(0)
	for _, t := range s.stamps {
		if u.m.Seconds.given && t < since {
			continue
		}
		if hits++; hits >= u.m.Hits.N {
			found = true
			break
		}
	}
	update := u.m.Update && found != u.m.Not
	if u.m.Reap {
		u.reap(since, update)
	}
	if update {
		u.stamp(s)
	}
	return found
}

// reap forgets the address that was used longest ago, when it is too old.
func (u *use) reap(since int64, update bool) {
	key, s := u.oldest()
	if key == u.key && update {
		return
	}
	if s.stamps[s.index-1] < since {
		u.t.Delete(key)
	}
}

func (u *use) oldest() (key packet.Addr, s seen) {
	first := true
	for k, v := range u.t.All {
		if first || v.used < s.used {
			key, s, first = k, v, false
		}
	}
	return key, s
}

func (u *use) tick() uint64 {
	c := &u.list.clock.In(u.w.State).V
	*c++
	return *c
}

// add mirrors recent_entry_init.
func (u *use) add() {
	if u.t.Len() >= recentMost {
		key, _ := u.oldest()
		u.t.Delete(key)
	}
	u.t.Put(u.key, seen{ttl: u.ttl, index: 1, used: u.tick(), stamps: []int64{u.now}})
}

// stamp mirrors recent_entry_update.
func (u *use) stamp(s seen) {
	s.index &= u.list.stamps - 1
	if int(s.index) == len(s.stamps) {
		s.stamps = append(slices.Clip(s.stamps), u.now)
	} else {
		s.stamps = slices.Clone(s.stamps)
		s.stamps[s.index] = u.now
	}
	s.index++
	s.used, s.ttl = u.tick(), u.ttl
	u.t.Put(u.key, s)
}

// masked clears the bits of a outside of a mask.
func masked(a, mask packet.Addr) packet.Addr {
	if a.Is4() {
		return packet.V4(a.Uint32() & mask.Uint32())
	}
	for i := range a {
		a[i] &= mask[i]
	}
	return a
}

// recentMask is the mask that addresses are kept under, all ones unless given.
type recentMask struct {
	mask  packet.Addr
	given bool
}

func (v *recentMask) addr(f trace.Family) packet.Addr {
	switch {
	case v.given:
		return v.mask
	case f == trace.IPv4:
		return xtables.MaskOf(32, f)
	}
	return xtables.MaskOf(128, f)
}

// Parse implements xtables.Value.
func (v *recentMask) Parse(a *xtables.Args) (err error) {
	v.mask, err = xtables.ParseAddr(a.Word, a.Family)
	v.given = true
	return err
}

// Append implements xtables.Value.
func (v *recentMask) Append(b []byte, f trace.Family) []byte {
	full := recentMask{}
	return (&xtables.Host{Addr: v.addr(f), Mask: full.addr(f)}).Append(b, f)
}

// Unset implements xtables.Value.
func (v *recentMask) Unset() bool { return !v.given }

// bare is a text that iptables prints without quotes, whatever is in it. Here it has
// them where it could not be read again.
type bare struct{ *xtables.Text }

// Append implements xtables.Value.
func (v *bare) Append(b []byte, f trace.Family) []byte {
	if v.S == "" || strings.ContainsAny(v.S, " \t\"\\'!-") {
		return v.Text.Append(b, f)
	}
	return append(b, v.S...)
}
