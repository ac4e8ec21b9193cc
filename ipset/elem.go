package ipset

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
)

// rec is what an entry of a hash type says, whatever its type.
type rec struct {
	ip      [2]packet.Addr
	cidr    [2]uint8
	mark    uint32
	port    uint16
	proto   uint8
	physdev bool
	mac     packet.MAC
	iface   [16]byte
}

// maxElem is the length of the longest entry.
const maxElem = 48

// elem is an entry as it lies in the kernel's memory on a little-endian machine
// (every port of the kernel that matters): first what is hashed, then the interface,
// then a byte of attributes.
type elem [maxElem]byte

// The attributes of an entry; they are not compared.
const (
	attrNoMatch byte = 1 << iota
	attrWildcard
)

// layout says where the parts of an entry of a set lie.
type layout struct {
	addr   int // bytes of an address
	hashed int // bytes that are hashed
	size   int // bytes that are kept
	host   uint8
}

func (s *Set) layoutOf() layout {
	k, l := s.kind, layout{addr: s.Family.addrLen(), host: s.Family.hostBits()}
	if k.count(partMAC) > 0 {
		l.hashed = 8
	}
	if k.count(partMAC) == 0 || k.dims() > 1 {
		l.hashed += l.addr * (k.count(partIP) + k.count(partNet))
	}
	switch {
	case k.nets() == 2 && k.count(partPort) > 0:
		l.hashed += 8
	case k.count(partPort) > 0 || k.nets() > 0 || k.count(partMark) > 0:
		l.hashed += 4
	}
	l.size = l.hashed
	if k.isIface() {
		l.size += 16
	}
	if k.nets() > 0 {
		l.size++
	}
	return l
}

// pack lays out an entry of the set.
//
// Kernel: struct hash_*4_elem and hash_*6_elem.
func (s *Set) pack(l *layout, r *rec) (e elem) {
	n := 0
	addr := func(a *packet.Addr) {
		n += copy(e[n:], a[16-l.addr:])
	}
	k := s.kind
	if k.name != "hash:mac" {
		addr(&r.ip[0])
	}
	if k.count(partIP)+k.count(partNet) == 2 {
		addr(&r.ip[1])
	}
	s.packRest(&e, n, r)
	return e
}

func (s *Set) packRest(e *elem, n int, r *rec) {
	port := func(b []byte) { binary.BigEndian.PutUint16(b, r.port) }
	b := e[n:]
	switch s.kind.name {
	case "hash:ip,mac", "hash:mac":
		copy(b, r.mac[:])
	case "hash:ip,mark":
		binary.LittleEndian.PutUint32(b, r.mark)
	case "hash:ip,port", "hash:ip,port,ip":
		port(b)
		b[2] = r.proto
	case "hash:ip,port,net":
		port(b)
		b[2], b[3] = r.cidr[0]-1, r.proto
	case "hash:net":
		b[3] = r.cidr[0]
	case "hash:net,port":
		port(b)
		b[2], b[3] = r.proto, r.cidr[0]-1
	case "hash:net,iface":
		b[1], b[3] = r.cidr[0], 1
		if r.physdev {
			b[0] = 1
		}
		copy(b[4:], r.iface[:])
	case "hash:net,net":
		b[2], b[3] = r.cidr[0], r.cidr[1]
	case "hash:net,port,net":
		port(b)
		b[2], b[3], b[7] = r.cidr[0], r.cidr[1], r.proto
	}
}

// unpack reads an entry back.
func (s *Set) unpack(l *layout, e []byte) (r rec) {
	n, k := 0, s.kind
	addr := func(a *packet.Addr) {
		*a = packet.AddrFromSlice(e[n : n+l.addr])
		n += l.addr
	}
	if k.name != "hash:mac" {
		addr(&r.ip[0])
	}
	if k.count(partIP)+k.count(partNet) == 2 {
		addr(&r.ip[1])
	}
	s.unpackRest(e[n:], &r)
	return r
}

func (s *Set) unpackRest(b []byte, r *rec) {
	if s.kind.count(partPort) > 0 {
		r.port = binary.BigEndian.Uint16(b)
	}
	switch s.kind.name {
	case "hash:ip,mac", "hash:mac":
		r.mac = packet.MAC(b)
	case "hash:ip,mark":
		r.mark = binary.LittleEndian.Uint32(b)
	case "hash:ip,port", "hash:ip,port,ip":
		r.proto = b[2]
	case "hash:ip,port,net":
		r.cidr[0], r.proto = b[2]+1, b[3]
	case "hash:net":
		r.cidr[0] = b[3]
	case "hash:net,port":
		r.proto, r.cidr[0] = b[2], b[3]+1
	case "hash:net,iface":
		r.physdev, r.cidr[0] = b[0] != 0, b[1]
		r.iface = [16]byte(b[4:])
	case "hash:net,net":
		r.cidr[0], r.cidr[1] = b[2], b[3]
	case "hash:net,port,net":
		r.cidr[0], r.cidr[1], r.proto = b[2], b[3], b[7]
	}
}

// netIndex is which address of an entry the nth prefix belongs to.
func (k *kind) netIndex(n int) int {
	if k.name == "hash:ip,port,net" {
		return 1
	}
	return n
}

// maskAddr clears the bits of an address behind a prefix, counted in its family.
func maskAddr(a packet.Addr, bits uint8, f Family) packet.Addr {
	n := int(bits)
	if f != Inet6 {
		n += 96
	}
	for i := n; i < 128; {
		if i%8 == 0 {
			a[i/8] = 0
			i += 8
			continue
		}
		a[i/8] &= 0xff << (8 - i%8)
		i += 8 - i%8
	}
	return a
}

// andAddr is the bitwise and of two addresses of the same family.
func andAddr(a, mask packet.Addr, f Family) packet.Addr {
	from := 16 - f.addrLen()
	for i := from; i < 16; i++ {
		a[i] &= mask[i]
	}
	return a
}

func prefixAddr(bits uint8, f Family) packet.Addr {
	ones := packet.Addr{}
	for i := range ones {
		ones[i] = 0xff
	}
	if f != Inet6 {
		ones = packet.V4(1<<32 - 1)
	}
	return maskAddr(ones, bits, f)
}

func word(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// jhash2 hashes the words of an entry.
//
// Kernel: include/linux/jhash.h, jhash2.
func jhash2(b []byte, initval uint32) uint32 {
	n := uint32(len(b) / 4)
	x := 0xdeadbeef + n<<2 + initval
	a, c, d := x, x, x // a, b, c in the kernel
	for ; n > 3; n -= 3 {
		a, c, d = jhashMix(a+word(b), c+word(b[4:]), d+word(b[8:]))
		b = b[12:]
	}
	switch n {
	case 3:
		d += word(b[8:])
		fallthrough
	case 2:
		c += word(b[4:])
		fallthrough
	case 1:
		a += word(b)
	default:
		return d
	}
	return jhashFinal(a, c, d)
}

func rol(x uint32, n uint) uint32 { return x<<n | x>>(32-n) }

func jhashMix(a, b, c uint32) (uint32, uint32, uint32) {
	a = (a - c) ^ rol(c, 4)
	c += b
	b = (b - a) ^ rol(a, 6)
	a += c
	c = (c - b) ^ rol(b, 8)
	b += a
	a = (a - c) ^ rol(c, 16)
	c += b
	b = (b - a) ^ rol(a, 19)
	a += c
	c = (c - b) ^ rol(b, 4)
	b += a
	return a, b, c
}

func jhashFinal(a, b, c uint32) uint32 {
	c = (c ^ b) - rol(b, 14)
	a = (a ^ c) - rol(c, 11)
	b = (b ^ a) - rol(a, 25)
	c = (c ^ b) - rol(b, 16)
	a = (a ^ c) - rol(c, 4)
	b = (b ^ a) - rol(a, 14)
	c = (c ^ b) - rol(b, 24)
	return c
}
