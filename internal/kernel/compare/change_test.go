package compare

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"
	"slices"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
)

// twin is a question that is being changed outside of the bits that an answer hung on.
type twin struct {
	*depends
	q    *kernel.Question
	ip   []byte
	deps *field.Deps
}

// change draws a question that agrees with q in all that deps names.
func (d *depends) change(q *kernel.Question, deps *field.Deps) kernel.Question {
	out := *q
	out.Frame, out.Packet = slices.Clone(q.Frame), slices.Clone(q.Packet)
	tw := &twin{depends: d, q: &out, ip: ipOf(&out), deps: deps}
	for range 1 + d.IntN(4) {
		changers := [...]func(*twin){(*twin).addresses, (*twin).addresses, (*twin).ports,
			(*twin).ports, (*twin).header, (*twin).header, (*twin).transport, (*twin).payload,
			(*twin).longer, (*twin).beside, (*twin).link, (*twin).protocol}
		changers[d.IntN(len(changers))](tw)
	}
	seal(tw.ip)
	if out.Out {
		out.Packet = tw.ip
	} else {
		out.Frame = append(out.Frame[:packet.EthernetLen:packet.EthernetLen], tw.ip...)
	}
	return out
}

// mix is a new value that agrees with the old one in the bits that were looked at.
func (tw *twin) mix(id field.ID, old, drawn uint64) uint64 {
	looked := tw.deps[id].Lo
	return old&looked | drawn&^looked
}

// fixed tells whether no byte may change, since somebody read bytes as such.
func (tw *twin) fixed() bool { return !tw.deps[field.Bytes].IsZero() }

// fragment tells whether the packet is one: what it becomes hangs on its siblings.
func (tw *twin) fragment() bool { return binary.BigEndian.Uint16(tw.ip[6:])&0x3fff != 0 }

func (tw *twin) l4() []byte { return tw.ip[int(tw.ip[0]&15)*4:] }

func (tw *twin) addresses() {
	id, at := field.Src, 12
	if tw.IntN(2) == 0 {
		id, at = field.Dst, 16
	}
	if tw.fixed() || tw.q.Out && id == field.Src && binary.BigEndian.Uint32(tw.ip[at:]) == 0 {
		return
	}
	drawn := tw.Uint32()
	if tw.IntN(2) == 0 {
		drawn = binary.BigEndian.Uint32(tw.address().AsSlice())
	}
	old := binary.BigEndian.Uint32(tw.ip[at:])
	binary.BigEndian.PutUint32(tw.ip[at:], uint32(tw.mix(id, uint64(old), uint64(drawn))))
}

// address draws one that is likely to matter to the host.
func (d *depends) address() netip.Addr {
	return d.addrs[d.IntN(len(d.addrs))]
}

func (tw *twin) ports() {
	l4 := tw.l4()
	if tw.fixed() || tw.fragment() || !packet.HasPorts(tw.ip[9]) || len(l4) < 4 {
		return
	}
	id, at := field.SrcPort, 0
	if tw.IntN(2) == 0 {
		id, at = field.DstPort, 2
	}
	drawn := []uint64{uint64(tw.Uint32()), 22, 53, 80, 443, 8080, 1024, 5000}[tw.IntN(8)]
	old := binary.BigEndian.Uint16(l4[at:])
	binary.BigEndian.PutUint16(l4[at:], uint16(tw.mix(id, uint64(old), drawn&0xffff)))
}

// header changes TOS, TTL, the id and the flag that forbids fragments.
func (tw *twin) header() {
	ip := tw.ip
	if tw.fixed() {
		return
	}
	switch tw.IntN(4) {
	case 0:
		ip[1] = uint8(tw.mix(field.TOS, uint64(ip[1]), uint64(tw.Uint32()&0xff)))
	case 1:
		ttl := uint64(tw.IntN(256))
		if tw.IntN(3) == 0 {
			ttl = uint64(tw.IntN(3))
		}
		if tw.q.Out && tw.q.Socket != "raw" && (ip[8] == 0 || ttl == 0) {
			return // no TTL is the host's own
		}
		ip[8] = uint8(tw.mix(field.TTL, uint64(ip[8]), ttl))
	case 2:
		if !tw.fragment() {
			binary.BigEndian.PutUint16(ip[4:], uint16(tw.Uint32()))
		}
	case 3:
		ip[6] = uint8(tw.mix(field.DontFrag, uint64(ip[6]>>6&1), uint64(tw.IntN(2))))<<6 | ip[6]&^0x40
	}
}

// transport changes what only its protocol knows.
func (tw *twin) transport() {
	l4 := tw.l4()
	if tw.fixed() || tw.fragment() {
		return
	}
	switch {
	case tw.ip[9] == packet.TCP && len(l4) >= 20:
		tw.tcp(l4)
	case tw.ip[9] == packet.ICMP && len(l4) >= 8:
		tw.icmp(l4)
	case (tw.ip[9] == packet.ESP || tw.ip[9] == packet.AH) && len(l4) >= 8:
		at := 0
		if tw.ip[9] == packet.AH {
			at = 4
		}
		old := binary.BigEndian.Uint32(l4[at:])
		binary.BigEndian.PutUint32(l4[at:], uint32(tw.mix(field.SPI, uint64(old), tw.Uint64())))
	}
}

func (tw *twin) tcp(l4 []byte) {
	switch tw.IntN(4) {
	case 0:
		drawn := []uint64{uint64(tw.Uint32() & 0xff), 2, 0x10, 0x12, 0x04, 0x11}[tw.IntN(6)]
		l4[13] = uint8(tw.mix(field.TCPFlags, uint64(l4[13]), drawn))
	case 1:
		binary.BigEndian.PutUint32(l4[4:], tw.Uint32())
	case 2:
		binary.BigEndian.PutUint32(l4[8:], tw.Uint32())
	case 3:
		binary.BigEndian.PutUint16(l4[14:], uint16(tw.Uint32()))
	}
}

func (tw *twin) icmp(l4 []byte) {
	switch tw.IntN(3) {
	case 0:
		drawn := []uint64{0, 3, 8, 11, 13, 5, uint64(tw.IntN(20))}[tw.IntN(7)]
		l4[0] = uint8(tw.mix(field.ICMPType, uint64(l4[0]), drawn))
	case 1:
		l4[1] = uint8(tw.mix(field.ICMPCode, uint64(l4[1]), uint64(tw.IntN(16))))
	case 2:
		binary.BigEndian.PutUint16(l4[4:], uint16(tw.mix(field.ICMPID,
			uint64(binary.BigEndian.Uint16(l4[4:])), uint64(tw.Uint32()&0xffff))))
	}
}

// headers is how long the header of a protocol is, as far as fields name its parts.
func (tw *twin) headers() int {
	l4 := tw.l4()
	switch {
	case tw.ip[9] == packet.TCP && len(l4) >= 20:
		return int(l4[12]>>4) * 4
	case tw.ip[9] == packet.SCTP:
		return 16 // with the kind of the first chunk
	case tw.ip[9] == packet.DCCP, tw.ip[9] == packet.AH:
		return 16
	}
	return 8
}

func (tw *twin) payload() {
	l4, n := tw.l4(), tw.headers()
	if tw.fixed() || tw.fragment() || len(l4) <= n || tw.ip[9] == packet.SCTP {
		return
	}
	l4[n+tw.IntN(len(l4)-n)] ^= uint8(1 + tw.IntN(255))
}

// longer appends data.
func (tw *twin) longer() {
	old := uint64(len(tw.ip))
	want := tw.mix(field.Len, old, old+uint64([]int{1, 7, 40, 300, 1200, 1500}[tw.IntN(6)]))
	if tw.fixed() || tw.fragment() || want <= old || want > 4000 || !plain(tw.ip[9]) ||
		len(tw.l4()) < tw.headers() {
		return
	}
	tw.ip = append(tw.ip, make([]byte, want-old)...)
	binary.BigEndian.PutUint16(tw.ip[2:], uint16(want))
	if p := tw.ip[9]; p == packet.UDP {
		binary.BigEndian.PutUint16(tw.l4()[4:], uint16(len(tw.l4())))
	}
}

// plain tells whether a protocol takes any data behind its header.
func plain(proto uint8) bool {
	return proto == packet.TCP || proto == packet.UDP || proto == packet.ICMP
}

// beside changes what the kernel keeps beside the bytes.
func (tw *twin) beside() {
	q := tw.q
	if !q.Out {
		return
	}
	drawn := []uint64{1, 2, 0x10, 0x4000, tw.Uint64()}[tw.IntN(5)]
	switch tw.IntN(3) {
	case 0:
		q.Mark = uint32(tw.mix(field.Mark, uint64(q.Mark), drawn))
	case 1:
		q.UID = uint32(tw.mix(field.UID, uint64(q.UID), uint64(tw.IntN(3000))))
	case 2:
		q.GID = uint32(tw.mix(field.GID, uint64(q.GID), uint64(tw.IntN(3000))))
	}
}

// link changes the device that a frame comes in by, and who sent it.
func (tw *twin) link() {
	q := tw.q
	if q.Out {
		return
	}
	if tw.IntN(2) == 0 {
		var mac [8]byte
		copy(mac[2:], q.Frame[6:12])
		n := tw.mix(field.MACSrc, binary.BigEndian.Uint64(mac[:]), tw.Uint64()>>16)
		binary.BigEndian.PutUint64(mac[:], n)
		copy(q.Frame[6:12], mac[2:])
		return
	}
	links := tw.host.Links
	old, all := links.ByName(q.In), links.All()
	l := &all[tw.IntN(len(all))]
	looked := uint32(tw.deps[field.In].Lo)
	if uint32(l.Index)&looked == uint32(old.Index)&looked && tw.deps[field.InGroup].IsZero() {
		q.In = l.Name
	}
}

// protocol changes it, but not under a socket, which has its own.
func (tw *twin) protocol() {
	if tw.fixed() || tw.fragment() || tw.q.Out && tw.q.Socket != "raw" {
		return
	}
	drawn := []uint64{1, 6, 17, 47, 132, 253}[tw.IntN(6)]
	tw.ip[9] = uint8(tw.mix(field.Proto, uint64(tw.ip[9]), drawn))
}

// seal writes the checksums of an IP packet.
func seal(ip []byte) {
	n := int(ip[0]&15) * 4
	if n < 20 || n > len(ip) {
		return
	}
	packet.FixIP4(ip[:n])
	l4 := ip[n:]
	at, pseudo := -1, packet.PseudoSum(packet.AddrFrom4(ip[12:]), packet.AddrFrom4(ip[16:]), ip[9],
		len(l4))
	switch ip[9] {
	case packet.TCP:
		at = 16
	case packet.UDP, packet.UDPLite:
		at = 6
	case packet.ICMP:
		at, pseudo = 2, 0
	case packet.SCTP:
		sealSCTP(ip, l4)
	}
	if at < 0 || len(l4) < at+2 || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return
	}
	l4[at], l4[at+1] = 0, 0
	sum := packet.Fold(packet.Sum16(l4, pseudo))
	if sum == 0 && ip[9] != packet.ICMP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(l4[at:], sum)
}

func sealSCTP(ip, l4 []byte) {
	if len(l4) < 12 || binary.BigEndian.Uint16(ip[6:])&0x3fff != 0 {
		return
	}
	clear(l4[8:12])
	sum := crc32.Checksum(l4, crc32.MakeTable(crc32.Castagnoli))
	binary.LittleEndian.PutUint32(l4[8:], sum)
}
