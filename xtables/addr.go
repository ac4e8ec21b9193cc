package xtables

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// ParseAddr reads one address of a family. IPv4 addresses may be shortened as
// xtables_numeric_to_ipaddr allows (10 is 10.0.0.0 only in a prefix, see
// ParsePrefix).
func ParseAddr(s string, f trace.Family) (packet.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return packet.Addr{}, fmt.Errorf("%q is not an IP address", s)
	}
	if a.Is4() != (f == trace.IPv4) {
		return packet.Addr{}, fmt.Errorf("%q is not an address of family %s", s, f)
	}
	return packet.AddrFrom(a), nil
}

// ParsePrefix reads address[/mask] and clears the bits outside of the mask.
func ParsePrefix(s string, f trace.Family) (Prefix, error) {
	text, mask, has := strings.Cut(s, "/")
	p := Prefix{Mask: fullMask(f)}
	if has {
		m, err := parseMask(mask, f)
		if err != nil {
			return Prefix{}, fmt.Errorf("%q: %w", s, err)
		}
		p.Mask = m
	}
	if f == trace.IPv4 && has {
		text = padIPv4(text)
	}
	a, err := ParseAddr(text, f)
	if err != nil {
		return Prefix{}, err
	}
	p.Addr = maskAddr(a, p.Mask)
	return p, nil
}

// padIPv4 completes 10, 10.1 and 10.1.2 with zeros.
//
// iptables: libxtables/xtables.c, __numeric_to_ipaddr with is_mask unset.
func padIPv4(s string) string {
	for n := strings.Count(s, "."); n < 3 && s != ""; n++ {
		s += ".0"
	}
	return s
}

func fullMask(f trace.Family) packet.Addr {
	if f == trace.IPv4 {
		return packet.V4(0xffffffff)
	}
	return packet.AddrFromSlice([]byte(strings.Repeat("\xff", 16)))
}

func parseMask(s string, f trace.Family) (packet.Addr, error) {
	width := 128
	if f == trace.IPv4 {
		width = 32
	}
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > width {
			return packet.Addr{}, fmt.Errorf("prefix length %d is not 0-%d", n, width)
		}
		return MaskOf(n, f), nil
	}
	a, err := ParseAddr(s, f)
	if err != nil {
		return packet.Addr{}, fmt.Errorf("%q is not a mask", s)
	}
	return a, nil
}

// MaskOf returns the mask of a prefix length, as an address of the family.
func MaskOf(n int, f trace.Family) packet.Addr {
	if f == trace.IPv4 {
		return packet.V4(uint32(uint64(0xffffffff) << (32 - n)))
	}
	var a packet.Addr
	for i := range a {
		a[i] = byte(uint16(0xff00) >> min(max(n-8*i, 0), 8))
	}
	return a
}

// maskAddr clears the bits of a outside of the mask, which is of the same family.
func maskAddr(a, mask packet.Addr) packet.Addr {
	for i := range a {
		a[i] &= mask[i]
	}
	return a
}

// PrefixLen returns the length of a contiguous mask of a family.
func PrefixLen(mask packet.Addr, f trace.Family) (int, bool) {
	if f == trace.IPv4 {
		n := bits.LeadingZeros32(^mask.Uint32())
		return n, mask == MaskOf(n, f)
	}
	hi, lo := binary.BigEndian.Uint64(mask[:8]), binary.BigEndian.Uint64(mask[8:])
	n := bits.LeadingZeros64(^hi)
	if n == 64 {
		n += bits.LeadingZeros64(^lo)
	}
	return n, mask == MaskOf(n, f)
}

// appendMask prints /n, or /mask where the mask is not contiguous.
func appendMask(b []byte, mask packet.Addr, f trace.Family) []byte {
	b = append(b, '/')
	if n, ok := PrefixLen(mask, f); ok {
		return strconv.AppendInt(b, int64(n), 10)
	}
	return AppendAddr(b, mask, f)
}
