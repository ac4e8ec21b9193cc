package packet

import (
	"encoding/binary"
	"net/netip"
)

// Addr is an IP address of either family without pointers, so that it can be
// part of a map key: IPv4 is kept IPv4-mapped (::ffff:a.b.c.d), in network byte
// order. The zero Addr is "::", which stands for "no address".
type Addr [16]byte

// AddrFrom returns the Addr of a netip address; the invalid one gives zero.
func AddrFrom(a netip.Addr) Addr {
	if !a.IsValid() {
		return Addr{}
	}
	return a.As16()
}

// AddrFrom4 returns the Addr of four bytes in network byte order.
func AddrFrom4(b []byte) Addr {
	a := Addr{10: 0xff, 11: 0xff}
	copy(a[12:], b[:4])
	return a
}

// AddrFromSlice returns the Addr of 4 or 16 bytes in network byte order; any
// other length gives zero.
func AddrFromSlice(b []byte) Addr {
	switch len(b) {
	case 4:
		return AddrFrom4(b)
	case 16:
		return Addr(b)
	}
	return Addr{}
}

// V4 returns the Addr of an IPv4 address held as a number (10.0.0.1 is
// 0x0a000001).
func V4(n uint32) Addr {
	a := Addr{10: 0xff, 11: 0xff}
	binary.BigEndian.PutUint32(a[12:], n)
	return a
}

// MustParseAddr parses a literal; it panics on a programmer's mistake.
func MustParseAddr(s string) Addr { return AddrFrom(netip.MustParseAddr(s)) }

// Is4 tells whether a is an IPv4 address.
func (a Addr) Is4() bool {
	return binary.BigEndian.Uint64(a[:8]) == 0 && binary.BigEndian.Uint32(a[8:12]) == 0xffff
}

// IsZero tells whether a is no address at all.
func (a Addr) IsZero() bool { return a == Addr{} }

// IsAny tells whether a is 0.0.0.0 or "::", the unspecified address.
func (a Addr) IsAny() bool { return a == Addr{} || a == Addr{10: 0xff, 11: 0xff} }

// Netip returns the netip form; zero gives the invalid address.
func (a Addr) Netip() netip.Addr {
	if a.IsZero() {
		return netip.Addr{}
	}
	return netip.AddrFrom16(a).Unmap()
}

// Bytes returns the 4 or 16 bytes that stand in a header.
func (a *Addr) Bytes() []byte {
	if a.Is4() {
		return a[12:]
	}
	return a[:]
}

// Uint32 returns an IPv4 address as a number (10.0.0.1 is 0x0a000001).
func (a Addr) Uint32() uint32 { return binary.BigEndian.Uint32(a[12:]) }

// String returns the address as people write it; zero gives "".
func (a Addr) String() string {
	if a.IsZero() {
		return ""
	}
	return a.Netip().String()
}

// In tells whether p holds a.
func (a Addr) In(p netip.Prefix) bool { return p.Contains(a.Netip()) }

// Dev is an interface index within one host. The zero Dev is "no interface".
type Dev uint32

// MAC is an Ethernet address.
type MAC [6]byte

// IsBroadcast tells whether m is ff:ff:ff:ff:ff:ff.
func (m MAC) IsBroadcast() bool { return m == MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }

// IsMulticast tells whether the group bit is set (broadcast included).
func (m MAC) IsMulticast() bool { return m[0]&1 != 0 }

// String returns m as aa:bb:cc:dd:ee:ff.
func (m MAC) String() string {
	const hex = "0123456789abcdef"
	var b [17]byte
	for i, x := range m {
		b[3*i], b[3*i+1] = hex[x>>4], hex[x&15]
		if i < 5 {
			b[3*i+2] = ':'
		}
	}
	return string(b[:])
}
