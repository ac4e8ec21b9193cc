package gen

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// draft is a packet in the making: what wishes ask for, and what is drawn.
type draft struct {
	out   bool
	in    string
	from  netip.Addr // the neighbour that sends it, by its MAC
	reply bool       // wanted: a packet of a connection that there is

	src, dst     netip.Addr
	proto        uint8
	sport, dport uint16
	flags        uint8
	seq, ack     uint32
	icmpType     uint8
	icmpCode     uint8
	id           uint16 // of ICMP echo
	spi          uint32 // of AH, ESP, IPComp
	tos, ttl     uint8
	mss          uint16
	total        int // wanted length of the IP packet, 0: as it comes
	payload      string
	dontFrag     bool
	fragment     bool
	options      []byte // of IP

	mark     uint32
	uid, gid uint32
	dev      string
}

func (d *draft) wantIn(dev string) {
	if !d.out && dev != "lo" && !strings.HasSuffix(dev, "+") {
		d.in = dev
	}
}

// wantAddr has a source or destination within an address, prefix or range.
func (g *Gen) wantAddr(d *draft, src bool, text string) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return
		}
		p = netip.PrefixFrom(a, 32)
	}
	if p.Bits() == 0 {
		return
	}
	a := g.within(p)
	if src {
		d.src = a
	} else {
		d.dst = a
	}
}

// l4 writes the packet's payload: transport header and data.
func (d *draft) l4() []byte {
	switch d.proto {
	case 6:
		return d.tcp()
	case 17, 136:
		return d.udp()
	case 1:
		return d.icmp()
	case 132:
		return d.sctp()
	case 50, 51, 108:
		return d.ipsec()
	case 33:
		return d.dccp()
	}
	return append([]byte{0, 0, 8, 0}, d.data(16)...)
}

// ipsec writes the head of ESP, AH or IPComp.
func (d *draft) ipsec() []byte {
	b := make([]byte, 24)
	switch d.proto {
	case 50:
		binary.BigEndian.PutUint32(b, d.spi)
	case 51:
		b[0], b[1] = 6, 4
		binary.BigEndian.PutUint32(b[4:], d.spi)
	case 108:
		b[0] = 6
		binary.BigEndian.PutUint16(b[2:], uint16(d.spi))
	}
	return b
}

// dccp writes a REQUEST with short sequence numbers.
func (d *draft) dccp() []byte {
	b := make([]byte, 16)
	binary.BigEndian.PutUint16(b[0:], d.sport)
	binary.BigEndian.PutUint16(b[2:], d.dport)
	b[4] = 4
	return append(b, d.data(16)...)
}

// data is the payload, filled up to the wanted length.
func (d *draft) data(header int) []byte {
	b := []byte(d.payload)
	if want := d.total - 20 - len(d.options) - header; want > len(b) {
		b = append(b, make([]byte, want-len(b))...)
	}
	return b
}

func (d *draft) tcp() []byte {
	var options []byte
	if d.mss != 0 {
		options = binary.BigEndian.AppendUint16([]byte{2, 4}, d.mss)
	}
	n := 20 + len(options)
	b := make([]byte, 20, n)
	binary.BigEndian.PutUint16(b[0:], d.sport)
	binary.BigEndian.PutUint16(b[2:], d.dport)
	binary.BigEndian.PutUint32(b[4:], d.seq)
	binary.BigEndian.PutUint32(b[8:], d.ack)
	b[12], b[13] = byte(n/4)<<4, d.flags
	binary.BigEndian.PutUint16(b[14:], 8192)
	b = append(b, options...)
	return append(b, d.data(n)...)
}

func (d *draft) udp() []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b[0:], d.sport)
	binary.BigEndian.PutUint16(b[2:], d.dport)
	b = append(b, d.data(8)...)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b
}

func (d *draft) icmp() []byte {
	b := make([]byte, 8)
	b[0], b[1] = d.icmpType, d.icmpCode
	binary.BigEndian.PutUint16(b[4:], d.id)
	b[7] = 1
	return append(b, d.data(8)...)
}

// sctp writes an INIT, or a DATA chunk where ack is set.
func (d *draft) sctp() []byte {
	b := make([]byte, 12+20)
	binary.BigEndian.PutUint16(b[0:], d.sport)
	binary.BigEndian.PutUint16(b[2:], d.dport)
	b[12], b[15] = 1, 20
	binary.BigEndian.PutUint32(b[16:], 77) // initiate tag
	binary.BigEndian.PutUint32(b[20:], 8192)
	b[25], b[27] = 1, 1 // streams
	if d.ack != 0 {
		b[12] = 0
		binary.BigEndian.PutUint32(b[4:], 77)
	}
	return b
}

// packet writes the whole IP packet with right checksums.
func (d *draft) packet() []byte {
	l4 := d.l4()
	n := 20 + len(d.options)
	b := make([]byte, 20, n+len(l4))
	b[0], b[1] = 0x40|byte(n/4), d.tos
	binary.BigEndian.PutUint16(b[2:], uint16(n+len(l4)))
	binary.BigEndian.PutUint16(b[4:], 0x2a2a)
	if d.dontFrag {
		b[6] = 0x40
	}
	b[8], b[9] = d.ttl, d.proto
	src, dst := d.src.As4(), d.dst.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	b = append(append(b, d.options...), l4...)
	return finish(b)
}

// finish writes the checksums of a packet, as far as it has any.
func finish(b []byte) []byte {
	n := int(b[0]&15) * 4
	if n < 20 || n > len(b) {
		return b
	}
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^fold(sum(b[:n])))
	l4 := b[n:]
	at, pseudo := -1, sum(b[12:20])+uint32(b[9])+uint32(len(l4))
	switch b[9] {
	case 6:
		at = 16
	case 17, 136:
		at = 6
	case 1:
		at, pseudo = 2, 0
	case 132:
		return finishSCTP(b, l4)
	}
	if binary.BigEndian.Uint16(b[6:])&0x3fff != 0 || at < 0 || len(l4) < at+2 {
		return b
	}
	l4[at], l4[at+1] = 0, 0
	c := ^fold(pseudo + sum(l4))
	if c == 0 && b[9] != 1 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(l4[at:], c)
	return b
}

// finishSCTP writes the CRC32c.
func finishSCTP(b, l4 []byte) []byte {
	if len(l4) < 12 {
		return b
	}
	clear(l4[8:12])
	binary.LittleEndian.PutUint32(l4[8:], crc32c(l4))
	return b
}

func crc32c(b []byte) uint32 {
	crc := ^uint32(0)
	for _, c := range b {
		crc ^= uint32(c)
		for range 8 {
			crc = crc>>1 ^ 0x82f63b78&-(crc&1)
		}
	}
	return ^crc
}

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
