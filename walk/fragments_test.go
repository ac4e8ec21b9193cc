package walk_test

import (
	"encoding/binary"
	"testing"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
)

// pieces cuts an IP packet into a fragment of 8 bytes and others of a size each.
func pieces(ip []byte, size int) [][]byte {
	var out [][]byte
	data := ip[20:]
	for off, n := 0, 8; off < len(data); off, n = off+n, size {
		part := data[off:min(off+n, len(data))]
		b := append(append([]byte(nil), ip[:20]...), part...)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
		word := uint16(off / 8)
		if off+n < len(data) {
			word |= 0x2000
		}
		binary.BigEndian.PutUint16(b[6:], word)
		packet.FixIP4(b)
		out = append(out, b)
	}
	return out
}

// transportSum writes the checksum behind an IP header of 20 bytes.
func transportSum(ip []byte) {
	src, dst, l4 := packet.AddrFrom4(ip[12:]), packet.AddrFrom4(ip[16:]), ip[20:]
	switch ip[9] {
	case packet.TCP:
		l4[16], l4[17] = 0, 0
		sum := packet.Sum16(l4, packet.PseudoSum(src, dst, packet.TCP, len(l4)))
		binary.BigEndian.PutUint16(l4[16:], packet.Fold(sum))
	case packet.SCTP:
		binary.LittleEndian.PutUint32(l4[8:], conntrack.SCTPChecksum(l4))
	}
}

// TestShortFragmentsAgainstKernel translates packets whose first fragments end within
// the transport header: the kernel moves bytes between the pieces to write to it.
func TestShortFragmentsAgainstKernel(t *testing.T) {
	for _, tt := range []struct {
		name, rules string
		proto       uint8
		l4          []byte
	}{
		{"tcp", "-A POSTROUTING -j SNAT --to-source 10.0.1.77", packet.TCP,
			append([]byte{4, 1, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 9, 9, 0, 0, 0, 0},
				make([]byte, 44)...)},
		{"tcp, not translated", "-A POSTROUTING -d 1.2.3.4 -j SNAT --to-source 10.0.1.77",
			packet.TCP, append([]byte{4, 2, 0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 9, 9, 0, 0, 0, 0},
				make([]byte, 44)...)},
		{"udp", "-A PREROUTING -p udp -j DNAT --to-destination 10.0.1.9:99", packet.UDP,
			append([]byte{4, 3, 0, 9, 0, 64, 0, 0}, make([]byte, 56)...)},
		{"sctp", "-A POSTROUTING -j SNAT --to-source 10.0.1.77", packet.SCTP,
			append([]byte{4, 3, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 20, 0, 0, 0, 1, 0, 0, 0, 9,
				0, 1, 0, 1, 0, 0, 0, 1}, make([]byte, 0)...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, map[string]string{"sysctl": "net.ipv4.ip_forward = 1\n",
				"iptables-save": "*nat\n" + tt.rules + "\nCOMMIT\n"})
			for _, size := range []int{8, 16, 24} {
				ip := optionPacket("10.0.1.9", tt.proto, nil, tt.l4)
				binary.BigEndian.PutUint16(ip[4:], uint16(size))
				transportSum(ip)
				for _, b := range pieces(ip, size) {
					p.agree(kernel.Question{In: "eth0", Frame: onWire(b)})
				}
			}
			if p.sent < 6 {
				t.Errorf("only %d frames left", p.sent)
			}
		})
	}
}
