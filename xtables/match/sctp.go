package match

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// sctp matches ports and chunks of SCTP. Later fragments never match; a cut header,
// or a chunk without length, drops the packet. (Where --chunk-types is negated the
// kernel counts the rule and does what its target says before it drops the packet.)
//
// Kernel: net/netfilter/xt_sctp.c, sctp_mt.
type sctp struct {
	ports
	Chunks    sctpChunks
	NotChunks bool
}

func newSCTP() xtables.Match {
	p := xtables.PortSpan(packet.SCTP)
	p.Strict = true
	return &sctp{ports: ports{Src: p, Dst: p}}
}

// Options implements xtables.Match.
func (m *sctp) Options(s *xtables.Spec) {
	m.ports.Options(s)
	s.Var("chunk-types", &m.Chunks).Not(&m.NotChunks)
}

// Pred implements xtables.Match.
func (m *sctp) Pred(*xtables.Build) field.Pred {
	if m.Chunks.how == 0 {
		return m.test()
	}
	return field.And(m.test(), derived(func(e *xtables.Env) field.Result {
		yes, ok := m.Chunks.match(e.Packet.L4())
		if !ok {
			return field.Drop
		}
		return result(yes != m.NotChunks)
	}, field.Len, field.Bytes))
}

// sctpHow says how many of the chunks must be there.
type sctpHow uint8

const (
	sctpAny sctpHow = iota + 1
	sctpAll
	sctpOnly
)

var sctpHows = [...]string{sctpAny: "any", sctpAll: "all", sctpOnly: "only"}

// sctpChunks are types of chunks, some with flags.
type sctpChunks struct {
	how   sctpHow
	types [256]bool
	flags []sctpFlags
}

type sctpFlags struct{ typ, mask, want uint8 }

// sctpFlagsMost is XT_NUM_SCTP_FLAGS.
const sctpFlagsMost = 4

// sctpNames are the names of chunks, and the letters of their flags from bit 7 down.
var sctpNames = [...]struct {
	name  string
	typ   uint8
	flags string
}{
	{"DATA", 0, "----IUBE"}, {"INIT", 1, ""}, {"INIT_ACK", 2, ""}, {"SACK", 3, ""},
	{"HEARTBEAT", 4, ""}, {"HEARTBEAT_ACK", 5, ""}, {"ABORT", 6, "-------T"},
	{"SHUTDOWN", 7, ""}, {"SHUTDOWN_ACK", 8, ""}, {"ERROR", 9, ""},
	{"COOKIE_ECHO", 10, ""}, {"COOKIE_ACK", 11, ""},
	{"ECN_ECNE", 12, ""}, {"ECN_CWR", 13, ""}, {"SHUTDOWN_COMPLETE", 14, "-------T"},
	{"I_DATA", 64, "----IUBE"}, {"ASCONF_ACK", 128, ""}, {"RE_CONFIG", 130, ""},
	{"PAD", 132, ""}, {"FORWARD_TSN", 192, ""}, {"ASCONF", 193, ""}, {"I_FORWARD_TSN", 194, ""},
}

// Parse implements xtables.Value.
func (v *sctpChunks) Parse(a *xtables.Args) error {
	list, ok := a.Next()
	if !ok {
		return fmt.Errorf("the option needs two arguments: all, any or only, and chunk types")
	}
	for how, word := range sctpHows {
		if word != "" && strings.EqualFold(word, a.Word) {
			v.how = sctpHow(how)
		}
	}
	if v.how == 0 {
		return fmt.Errorf("%q is none of all, any, only", a.Word)
	}
	switch {
	case strings.EqualFold(list, "NONE"):
		return nil
	case strings.EqualFold(list, "ALL"):
		for i := range v.types {
			v.types[i] = true
		}
		return nil
	}
	for _, word := range strings.Split(list, ",") {
		if err := v.add(word); err != nil {
			return err
		}
	}
	return nil
}

func (v *sctpChunks) add(word string) error {
	name, flags, _ := strings.Cut(word, ":")
	for i := range sctpNames {
		n := &sctpNames[i]
		if !strings.EqualFold(n.name, name) {
			continue
		}
		v.types[n.typ] = true
		for _, c := range flags {
			if err := v.flag(n.typ, n.flags, byte(c)); err != nil {
				return fmt.Errorf("%q: %w", word, err)
			}
		}
		return nil
	}
	return fmt.Errorf("%q is not the name of an SCTP chunk", name)
}

// flag adds a flag by its letter: a capital must be set, a small one clear.
func (v *sctpChunks) flag(typ uint8, letters string, c byte) error {
	at := strings.IndexByte(letters, c&^0x20)
	if at < 0 || c&^0x20 < 'A' {
		return fmt.Errorf("the chunk has no flag %q", c)
	}
	bit := uint8(1) << (7 - at)
	for i := range v.flags {
		if v.flags[i].typ == typ {
			v.flags[i].set(bit, c)
			return nil
		}
	}
	if len(v.flags) == sctpFlagsMost {
		return fmt.Errorf("more than %d chunks with flags", sctpFlagsMost)
	}
	v.flags = append(v.flags, sctpFlags{typ: typ})
	v.flags[len(v.flags)-1].set(bit, c)
	return nil
}

func (f *sctpFlags) set(bit uint8, c byte) {
	f.mask |= bit
	if c&0x20 == 0 {
		f.want |= bit
	}
}

// Append implements xtables.Value.
func (v *sctpChunks) Append(b []byte, _ trace.Family) []byte {
	b = append(append(b, sctpHows[v.how]...), ' ')
	switch v.count() {
	case 0:
		return append(b, "NONE"...)
	case len(v.types):
		return append(b, "ALL"...)
	}
	first := true
	for i := range sctpNames {
		n := &sctpNames[i]
		if !v.types[n.typ] {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = v.appendFlags(append(b, n.name...), n.typ, n.flags)
	}
	return b
}

func (v *sctpChunks) count() (n int) {
	for _, set := range v.types {
		if set {
			n++
		}
	}
	return n
}

func (v *sctpChunks) appendFlags(b []byte, typ uint8, letters string) []byte {
	for _, f := range v.flags {
		if f.typ != typ {
			continue
		}
		b = append(b, ':')
		for i := range 8 {
			switch bit := uint8(0x80) >> i; {
			case f.mask&bit == 0:
			case f.want&bit != 0:
				b = append(b, letters[i])
			default:
				b = append(b, letters[i]|0x20)
			}
		}
	}
	return b
}

// Unset implements xtables.Value.
func (v *sctpChunks) Unset() bool { return v.how == 0 }

// match walks the chunks; it is false for a packet that is to be dropped.
//
// Kernel: net/netfilter/xt_sctp.c, match_packet.
func (v *sctpChunks) match(l4 []byte) (yes, ok bool) {
	left := v.types
	for off := 12; ; {
		if off+4 > len(l4) {
			return false, false
		}
		typ, flags, n := l4[off], l4[off+1], int(binary.BigEndian.Uint16(l4[off+2:]))
		if n == 0 {
			return false, false
		}
		off += (n + 3) &^ 3
		hit := v.types[typ] && v.flagged(typ, flags)
		switch {
		case v.how == sctpAny && hit:
			return true, true
		case v.how == sctpOnly && !hit:
			return false, true
		case hit:
			left[typ] = false
		}
		if off >= len(l4) {
			break
		}
	}
	return v.how == sctpOnly || v.how == sctpAll && left == [256]bool{}, true
}

func (v *sctpChunks) flagged(typ, flags uint8) bool {
	for _, f := range v.flags {
		if f.typ == typ {
			return flags&f.mask == f.want
		}
	}
	return true
}
