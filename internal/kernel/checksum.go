package kernel

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// sum is the one's complement sum of b.
func sum(b []byte) uint32 {
	var s uint32
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// finishChecksum completes the checksum of a packet that came over lo: there
// the kernel leaves the sum of the pseudo header (CHECKSUM_PARTIAL), since lo
// promises to complete it. Any other packet is returned as it is.
func finishChecksum(p []byte) []byte {
	h, err := parseIPv4(p)
	at := map[uint8]int{unix.IPPROTO_TCP: 16, unix.IPPROTO_UDP: 6}[h.proto]
	if err != nil || at == 0 || len(h.payload) < at+2 || binary.BigEndian.Uint16(p[6:])&0x3fff != 0 {
		return p
	}
	pseudo := sum(p[12:20]) + uint32(h.proto) + uint32(len(h.payload))
	field := h.payload[at : at+2]
	if binary.BigEndian.Uint16(field) != fold(pseudo) {
		return p
	}
	binary.BigEndian.PutUint16(field, ^fold(sum(h.payload)))
	if h.proto == unix.IPPROTO_UDP && field[0]|field[1] == 0 {
		binary.BigEndian.PutUint16(field, 0xffff)
	}
	return p
}
