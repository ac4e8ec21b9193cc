package ipvs

import (
	"encoding/binary"
	"math/bits"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// fold is what schedulers hash of an address: one of IPv4 as it is, of IPv6 its four words
// xored, in the host's order.
//
// Kernel: net/netfilter/ipvs/ip_vs_sh.c, ip_vs_sh_hashkey, and the same in ip_vs_dh.c,
// ip_vs_mh.c, ip_vs_lblc.c, ip_vs_lblcr.c.
func fold(f trace.Family, a packet.Addr) uint32 {
	if f == trace.IPv4 {
		return a.Uint32()
	}
	return word(a, 0) ^ word(a, 1) ^ word(a, 2) ^ word(a, 3)
}

// word is one of the four words of an address.
func word(a packet.Addr, n int) uint32 { return binary.BigEndian.Uint32(a[4*n:]) }

// hash32 spreads a number over 1<<n places.
//
// Kernel: include/linux/hash.h, hash_32.
func hash32(v uint32, n int) uint32 {
	const golden = 0x61c88647
	return v * golden >> (32 - n)
}

// sipKey is the key of a hsiphash.
type sipKey [2]uint64

// hsiphash hashes one word as a kernel of 64 bits does, which takes SipHash-1-3 for it.
//
// Kernel: lib/siphash.c, hsiphash_1u32.
func hsiphash(v uint32, key sipKey) uint32 {
	s := sip{key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d,
		key[0] ^ 0x6c7967656e657261, key[1] ^ 0x7465646279746573}
	word := 4<<56 | uint64(v)
	s[3] ^= word
	s.round()
	s[0] ^= word
	s[2] ^= 0xff
	for range 3 {
		s.round()
	}
	return uint32(s[0] ^ s[1] ^ s[2] ^ s[3])
}

// sip is the state of a SipHash.
type sip [4]uint64

// round is one round. Kernel: include/linux/siphash.h, SIPHASH_PERMUTATION.
func (s *sip) round() {
	s[0] += s[1]
	s[1] = bits.RotateLeft64(s[1], 13) ^ s[0]
	s[0] = bits.RotateLeft64(s[0], 32)
	s[2] += s[3]
	s[3] = bits.RotateLeft64(s[3], 16) ^ s[2]
	s[0] += s[3]
	s[3] = bits.RotateLeft64(s[3], 21) ^ s[0]
	s[2] += s[1]
	s[1] = bits.RotateLeft64(s[1], 17) ^ s[2]
	s[2] = bits.RotateLeft64(s[2], 32)
}

// gcd is the greatest common divisor; that of zero and a number is the number.
func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
