package packet

import "encoding/binary"

// Sum16 adds up b as 16-bit big-endian words onto an unfolded sum.
func Sum16(b []byte, sum uint32) uint32 {
	for len(b) >= 2 {
		sum += uint32(binary.BigEndian.Uint16(b))
		if sum >= 0x80000000 {
			sum = sum&0xffff + sum>>16
		}
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// Fold folds an unfolded sum and complements it, as csum_fold does.
func Fold(sum uint32) uint16 {
	sum = sum&0xffff + sum>>16
	sum = sum&0xffff + sum>>16
	return ^uint16(sum)
}

// PseudoSum is the unfolded sum of the pseudo header of TCP and UDP.
func PseudoSum(src, dst Addr, proto uint8, length int) uint32 {
	sum := Sum16(src.Bytes(), 0)
	sum = Sum16(dst.Bytes(), sum)
	return sum + uint32(proto) + uint32(length)
}

// Replace updates a checksum field in place (2 bytes, network byte order) for
// bytes that change from old to new; both must have the same even length. It
// gives the same bits as the kernel's csum_replace4 and inet_proto_csum_replace4.
func Replace(field, old, new []byte) {
	sum := uint32(^binary.BigEndian.Uint16(field))
	for i := 0; i+1 < len(old); i += 2 {
		sum += uint32(^binary.BigEndian.Uint16(old[i:]))
		sum += uint32(binary.BigEndian.Uint16(new[i:]))
	}
	binary.BigEndian.PutUint16(field, Fold(sum))
}

// FixIP4 computes the header checksum of an IPv4 header anew.
func FixIP4(h []byte) {
	h[10], h[11] = 0, 0
	n := int(h[0]&0xf) * 4
	binary.BigEndian.PutUint16(h[10:], Fold(Sum16(h[:n], 0)))
}

// SetTOS sets the type of service octet and mends the header checksum.
func (p *Packet) SetTOS(tos uint8) { p.setIPByte(0, 1, tos) }

// SetTTL sets the time to live and mends the header checksum.
func (p *Packet) SetTTL(ttl uint8) { p.setIPByte(8, 0, ttl) }

// setIPByte writes one octet of the 16-bit word at off.
func (p *Packet) setIPByte(off, which int, v uint8) {
	ip := p.IP()
	old := [2]byte{ip[off], ip[off+1]}
	ip[off+which] = v
	Replace(ip[10:12], old[:], ip[off:off+2])
}

// FillSource writes a source address that the program left open, and computes the
// checksums that depend on it.
func (p *Packet) FillSource(a Addr) {
	ip := p.IP()
	copy(ip[12:16], a.Bytes())
	FixIP4(ip)
	l4, at := p.L4(), sumOffset(p.Protocol())
	if p.IsFragment() || at == 0 || len(l4) < at+2 {
		return
	}
	l4[at], l4[at+1] = 0, 0
	sum := Fold(Sum16(l4, PseudoSum(a, p.Dst(), p.Protocol(), len(l4))))
	if sum == 0 && p.Protocol() == UDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(l4[at:], sum)
}

// sumOffset is where a transport header has a checksum over the pseudo header.
func sumOffset(proto uint8) int {
	switch proto {
	case TCP:
		return 16
	case UDP, UDPLite:
		return 6
	case DCCP:
		return 6
	}
	return 0
}

// Unfinished is the IP packet as the kernel has it in memory: where the device is to
// complete the transport checksum, only the pseudo header is summed up.
//
// Kernel: include/linux/skbuff.h, CHECKSUM_PARTIAL.
func (p *Packet) Unfinished() []byte {
	l4, at := p.L4(), sumOffset(p.Protocol())
	if !p.Partial || at == 0 || len(l4) < at+2 {
		return p.IP()
	}
	ip := append([]byte(nil), p.IP()...)
	sum := ^Fold(PseudoSum(p.Src(), p.Dst(), p.Protocol(), len(l4)))
	binary.BigEndian.PutUint16(ip[len(ip)-len(l4)+at:], sum)
	return ip
}
