package match

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// hashlimit is limit with a bucket for each source, destination or port. Rules that
// give the same name share the table, whose numbers are those of the rule loaded
// first.
//
// Kernel: net/netfilter/xt_hashlimit.c, hashlimit_mt, revision 3.
type hashlimit struct {
	Rate             hashRate
	Above            bool
	Burst            hashBurst
	Mode             xtables.Bits
	Name             xtables.Text
	Size, Max        xtables.Uint
	GC               xtables.Uint
	Expire           number
	SrcMask, DstMask prefixLen
	RateMatch        bool
	Interval         number
	notUpto, notOver bool
}

// Bits of --hashlimit-mode, in the order of printing.
const (
	hashSrc = 1 << iota
	hashSrcPort
	hashDst
	hashDstPort
)

var hashModes = []xtables.Bit{{Word: "srcip", N: hashSrc}, {Word: "srcport", N: hashSrcPort},
	{Word: "dstip", N: hashDst}, {Word: "dstport", N: hashDstPort}}

// The defaults of libxt_hashlimit, in packets and milliseconds.
const (
	hashScale       = 1000000
	hashBurstUsual  = 5
	hashBurstMost   = 1000000
	hashGC          = 1000
	hashExpireByte  = 15
	hashExpireBurst = 60
)

func newHashlimit() xtables.Match {
	return &hashlimit{Rate: hashRate{Rate: xtables.Rate{Scale: hashScale}},
		Mode: xtables.Bits{Words: hashModes}, Name: xtables.Text{Max: 254},
		GC: xtables.Uint{N: hashGC}, Interval: number{Min: 1, Max: 1<<31 - 1}}
}

// Options implements xtables.Match.
func (m *hashlimit) Options(s *xtables.Spec) {
	s.Var("hashlimit-upto", &m.Rate).Not(&m.notUpto).Alias("hashlimit").PrintAs(m.printRate)
	s.Var("hashlimit-above", &hashAbove{&m.Rate, &m.Above}).Not(&m.notOver).Hidden()
	s.Var("hashlimit-burst", &m.Burst).PrintAs(m.printBurst)
	s.Var("hashlimit-mode", &m.Mode)
	s.Var("hashlimit-name", &bare{&m.Name}).Required()
	s.Var("hashlimit-htable-size", &m.Size)
	s.Var("hashlimit-htable-max", &m.Max)
	s.Var("hashlimit-htable-gcinterval", &defaulted{&m.GC, hashGC})
	s.Var("hashlimit-htable-expire", &m.Expire).PrintAs(m.printExpire)
	s.Var("hashlimit-srcmask", &m.SrcMask)
	s.Var("hashlimit-dstmask", &m.DstMask)
	s.Flag("hashlimit-rate-match", &m.RateMatch)
	s.Var("hashlimit-rate-interval", &m.Interval).PrintAs(m.printInterval)
	s.ExactlyOne("hashlimit-upto", "hashlimit-above")
	s.Check(m.check)
}

// check mirrors hashlimit_mt_check of libxt_hashlimit, which derives numbers.
func (m *hashlimit) check(c *xtables.Context) error {
	if m.notUpto || m.notOver {
		m.Above = !m.Above
		m.notUpto, m.notOver = false, false
	}
	if m.Name.S == "" || strings.Contains(m.Name.S, "/") {
		return fmt.Errorf("--hashlimit-name %q can't be the name of a table", m.Name.S)
	}
	if err := m.checkBurst(); err != nil {
		return err
	}
	if !m.Expire.given {
		m.Expire.n = m.defaultExpire()
	}
	if !m.RateMatch {
		return nil
	}
	if !m.Rate.bytes {
		if m.Rate.Period /= m.Rate.Unit; m.Rate.Period == 0 {
			return fmt.Errorf("the rate is too fast for --hashlimit-rate-match")
		}
	}
	if m.Interval.n == 0 {
		m.Interval.n = 1
		if !m.Rate.bytes {
			m.Interval.n = m.Rate.Unit
		}
	}
	return nil
}

func (m *hashlimit) checkBurst() error {
	if !m.Rate.bytes {
		if m.Burst.n > hashBurstMost {
			return fmt.Errorf("--hashlimit-burst is out of range (1-%d)", hashBurstMost)
		}
		return nil
	}
	if !m.Burst.given {
		return nil
	}
	each := costToBytes(m.Rate.cost)
	if each == 0 || m.Burst.n < each {
		return fmt.Errorf("--hashlimit-burst can't be smaller than %db", each)
	}
	m.Burst.n = (m.Burst.n + each - 1) / each
	return nil
}

// burst is the kernel's number: packets, or times the rate.
func (m *hashlimit) burst() uint64 {
	if !m.Burst.given && !m.Rate.bytes {
		return hashBurstUsual
	}
	return m.Burst.n
}

// defaultExpire is what --hashlimit-htable-expire is without the option.
func (m *hashlimit) defaultExpire() uint64 {
	switch {
	case m.Rate.bytes && m.Burst.given:
		return hashExpireBurst * 1000
	case m.Rate.bytes:
		return hashExpireByte * 1000
	}
	return m.Rate.Unit * 1000
}

// printedExpire is what the printer takes for the default.
func (m *hashlimit) printedExpire() uint64 {
	if m.Rate.bytes {
		return m.defaultExpire()
	}
	return m.Rate.PrintedUnit() * 1000
}

func (m *hashlimit) printRate(b []byte) []byte {
	b = append(b, " --hashlimit-"...)
	if m.Above {
		b = append(b, "above "...)
	} else {
		b = append(b, "upto "...)
	}
	return m.Rate.Append(b, 0)
}

func (m *hashlimit) printBurst(b []byte) []byte {
	switch {
	case !m.Rate.bytes:
		return strconv.AppendUint(append(b, " --hashlimit-burst "...), m.burst(), 10)
	case m.Burst.n == 0:
		return b
	}
	n, unit := m.Burst.n*costToBytes(m.Rate.cost), ""
	switch {
	case n >= 1<<20:
		n, unit = n>>20, "m"
	case n >= 1<<10:
		n, unit = n>>10, "k"
	}
	b = strconv.AppendUint(append(b, " --hashlimit-burst "...), n, 10)
	return append(append(b, unit...), 'b')
}

func (m *hashlimit) printExpire(b []byte) []byte {
	if m.Expire.n == m.printedExpire() {
		return b
	}
	return strconv.AppendUint(append(b, " --hashlimit-htable-expire "...), m.Expire.n, 10)
}

func (m *hashlimit) printInterval(b []byte) []byte {
	if !m.RateMatch || m.Interval.n == 1 {
		return b
	}
	return strconv.AppendUint(append(b, " --hashlimit-rate-interval "...), m.Interval.n, 10)
}

// Pred implements xtables.Match.
func (m *hashlimit) Pred(b *xtables.Build) field.Pred {
	t := m.table(b)
	return call(func(e *xtables.Env) field.Result { return t.test(e, m) }, m.reads()...)
}

func (m *hashlimit) reads() []field.ID {
	var ids []field.ID
	for i, id := range [...]field.ID{field.Src, field.SrcPort, field.Dst, field.DstPort} {
		if m.Mode.N>>i&1 != 0 {
			ids = append(ids, id)
		}
	}
	if m.Mode.N&(hashSrcPort|hashDstPort) != 0 {
		ids = append(ids, field.Proto)
	}
	if m.Rate.bytes {
		ids = append(ids, field.Len)
	}
	return ids
}

// hashRate is a rate of packets, or of bytes as a cost: 2^32 less a sixteenth of the
// bytes in a second.
type hashRate struct {
	xtables.Rate
	bytes bool
	cost  uint64
}

// hashByteShift is XT_HASHLIMIT_BYTE_SHIFT: bytes are counted by sixteens.
const hashByteShift = 4

func costToBytes(cost uint64) uint64 {
	r := uint64(1<<32 - 1)
	if cost != 0 {
		r /= cost
	}
	return (r - 1) << hashByteShift
}

func bytesToCost(n uint64) uint64 {
	return (1<<32 - 1) / uint64(uint32(n>>hashByteShift)+1)
}

// Parse implements xtables.Value.
func (v *hashRate) Parse(a *xtables.Args) error {
	if !strings.Contains(a.Word, "b/s") {
		return v.Rate.Parse(a)
	}
	text, ok := strings.CutSuffix(a.Word, "b/s")
	n, err := scaled(text)
	if !ok || err != nil || n == 0 {
		return fmt.Errorf("%q is not a rate of bytes: NUMBER[k|m]b/s", a.Word)
	}
	if n>>hashByteShift+1 > 1<<32-1 {
		return fmt.Errorf("rate %q is too high", a.Word)
	}
	v.bytes, v.Given, v.Unit, v.cost = true, true, hashExpireByte, bytesToCost(n)
	return nil
}

// scaled reads a number with k or m behind it.
func scaled(s string) (uint64, error) {
	shift := 0
	switch {
	case strings.HasSuffix(s, "k"):
		s, shift = s[:len(s)-1], 10
	case strings.HasSuffix(s, "m"):
		s, shift = s[:len(s)-1], 20
	}
	n, err := strconv.ParseUint(s, 10, 40)
	return n << shift, err
}

// Append implements xtables.Value.
func (v *hashRate) Append(b []byte, f trace.Family) []byte {
	if !v.bytes {
		return v.Rate.Append(b, f)
	}
	n, unit := costToBytes(v.cost), ""
	switch {
	case n == 0:
		n = 1 // iptables prints 0, which it does not read
	case n >= 1<<20 && bytesToCost(n&^(1<<20-1)) == v.cost:
		n, unit = n>>20, "m"
	case n >= 1<<10 && bytesToCost(n&^(1<<10-1)) == v.cost:
		n, unit = n>>10, "k"
	}
	return append(append(strconv.AppendUint(b, n, 10), unit...), "b/s"...)
}

// hashAbove is --hashlimit-above: the same rate, asked the other way round.
type hashAbove struct {
	rate  *hashRate
	above *bool
}

// Parse implements xtables.Value.
func (v *hashAbove) Parse(a *xtables.Args) error {
	*v.above = true
	return v.rate.Parse(a)
}

// Append implements xtables.Value.
func (v *hashAbove) Append(b []byte, f trace.Family) []byte { return v.rate.Append(b, f) }

// Unset implements xtables.Value.
func (v *hashAbove) Unset() bool { return true }

// hashBurst is a number of packets, or of bytes with b, kb or mb behind it.
type hashBurst struct {
	n     uint64
	given bool
}

// Parse implements xtables.Value.
func (v *hashBurst) Parse(a *xtables.Args) (err error) {
	v.n, err = scaled(strings.TrimSuffix(a.Word, "b"))
	if err != nil || v.n == 0 {
		return fmt.Errorf("%q is not a burst: 1 to %d packets, or NUMBER[k|m]b", a.Word,
			hashBurstMost)
	}
	v.given = true
	return nil
}

// Append implements xtables.Value.
func (v *hashBurst) Append(b []byte, _ trace.Family) []byte {
	return strconv.AppendUint(b, v.n, 10)
}

// Unset implements xtables.Value.
func (v *hashBurst) Unset() bool { return !v.given }

// prefixLen is the length of a prefix; without the option it is the whole address.
type prefixLen struct {
	n     uint8
	given bool
}

// Parse implements xtables.Value.
func (v *prefixLen) Parse(a *xtables.Args) error {
	width := uint64(128)
	if a.Family == trace.IPv4 {
		width = 32
	}
	n, err := xtables.ParseUint(a.Word, width)
	if err != nil {
		return fmt.Errorf("%q is not a prefix length (0-%d)", a.Word, width)
	}
	v.n, v.given = uint8(n), n != width
	return nil
}

// Append implements xtables.Value.
func (v *prefixLen) Append(b []byte, _ trace.Family) []byte {
	return strconv.AppendUint(b, uint64(v.n), 10)
}

// Unset implements xtables.Value.
func (v *prefixLen) Unset() bool { return !v.given }
