package xtables

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// Host is address[/mask] of an option, printed without the mask where it is that of
// one host. The zero Host is not given.
//
// iptables: libxtables/xtoptions.c, xtopt_parse_hostmask.
type Host struct {
	Addr, Mask packet.Addr
	Given      bool
}

// Parse implements Value.
func (h *Host) Parse(a *Args) error {
	text, mask, has := strings.Cut(a.Word, "/")
	addr, err := ParseAddr(text, a.Family)
	if err != nil {
		return err
	}
	h.Addr, h.Mask, h.Given = addr, fullMask(a.Family), true
	if has {
		h.Mask, err = parseMask(mask, a.Family)
	}
	return err
}

// Append implements Value.
func (h *Host) Append(b []byte, f trace.Family) []byte {
	b = AppendAddr(b, h.Addr, f)
	if h.Mask == fullMask(f) {
		return b
	}
	return appendMask(b, h.Mask, f)
}

// Unset implements Value.
func (h *Host) Unset() bool { return !h.Given }

// Test asks whether a field is one of the hosts; nothing where none is given.
func (h *Host) Test(id field.ID, not bool) field.Pred {
	if !h.Given {
		return field.Pred{}
	}
	return field.NotIf(not, field.Is(id, field.AddrMask(h.Addr, h.Mask)))
}

// AppendAddr prints an address of a family as inet_ntop does: "::" for the zero one,
// and an IPv4 address inside of an IPv6 one with dots.
func AppendAddr(b []byte, a packet.Addr, f trace.Family) []byte {
	if f == trace.IPv4 {
		n := a.Uint32()
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}).AppendTo(b)
	}
	compatible := packet.Addr{12: a[12], 13: a[13], 14: a[14], 15: a[15]} == a && (a[12]|a[13] != 0)
	switch {
	case a.Is4():
		return a.Netip().AppendTo(append(b, "::ffff:"...))
	case compatible:
		return netip.AddrFrom4([4]byte(a[12:])).AppendTo(append(b, "::"...))
	}
	return netip.AddrFrom16(a).AppendTo(b)
}

// AddrRange is first[-last]. The zero AddrRange is not given.
//
// iptables: extensions/libxt_iprange.c, iprange_parse_range.
type AddrRange struct {
	Lo, Hi packet.Addr
	Given  bool
}

// Parse implements Value.
func (r *AddrRange) Parse(a *Args) (err error) {
	lo, hi, isRange := strings.Cut(a.Word, "-")
	if r.Lo, err = ParseAddr(lo, a.Family); err != nil {
		return err
	}
	r.Given, r.Hi = true, r.Lo
	if isRange {
		if r.Hi, err = ParseAddr(hi, a.Family); err != nil {
			return err
		}
	}
	if field.AddrValue(r.Hi).Less(field.AddrValue(r.Lo)) {
		a.Warn("range %q is reversed: it matches nothing", a.Word)
	}
	return nil
}

// Append implements Value.
func (r *AddrRange) Append(b []byte, f trace.Family) []byte {
	return AppendAddr(append(AppendAddr(b, r.Lo, f), '-'), r.Hi, f)
}

// Unset implements Value.
func (r *AddrRange) Unset() bool { return !r.Given }

// Test asks whether a field lies in the range; nothing where none is given.
func (r *AddrRange) Test(id field.ID, not bool) field.Pred {
	if !r.Given {
		return field.Pred{}
	}
	return field.NotIf(not, field.Is(id, field.AddrRange(r.Lo, r.Hi)))
}

// MAC is an Ethernet address, printed with two digits an octet.
//
// iptables: libxtables/xtoptions.c, xtopt_parse_ethermac.
type MAC struct {
	Addr  packet.MAC
	Given bool
}

// Parse implements Value.
func (m *MAC) Parse(a *Args) error {
	octets := strings.Split(a.Word, ":")
	if len(octets) != len(m.Addr) {
		return fmt.Errorf("%q is not a MAC address", a.Word)
	}
	for i, s := range octets {
		n, ok := parseHex(s, 0xff)
		if !ok {
			return fmt.Errorf("%q is not a MAC address", a.Word)
		}
		m.Addr[i] = byte(n)
	}
	m.Given = true
	return nil
}

// parseHex reads hexadecimal digits, with or without 0x.
func parseHex(s string, max uint64) (uint64, bool) {
	s = strings.TrimPrefix(strings.ToLower(s), "0x")
	n, err := ParseUint("0x"+s, max)
	return n, err == nil && s != ""
}

// Append implements Value.
func (m *MAC) Append(b []byte, _ trace.Family) []byte { return append(b, m.Addr.String()...) }

// Unset implements Value.
func (m *MAC) Unset() bool { return !m.Given }
