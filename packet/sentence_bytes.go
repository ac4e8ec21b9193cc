package packet

import (
	"encoding/binary"
	"fmt"
)

// What a client would choose where the sentence does not say.
const (
	assumedPort = 40000
	assumedTTL  = 64
	synFlag     = 0x02
	echoRequest = 8
)

// Complete fills in what was left out as a client would choose it, and returns a
// line for each thing that was chosen and matters.
func (s *Sentence) Complete() []string {
	var said []string
	if HasPorts(s.Proto) && !s.Has(GivenSPort) {
		s.SPort = assumedPort
		said = append(said, fmt.Sprintf("source port %d", assumedPort))
	}
	if HasPorts(s.Proto) && !s.Has(GivenDPort) {
		said = append(said, "destination port 0")
	}
	if s.Proto == TCP && !s.Has(GivenFlags) {
		s.Flags = synFlag
		said = append(said, "SYN")
	}
	if s.Proto == ICMP && !s.Has(GivenICMP) {
		s.ICMPType = echoRequest
		said = append(said, "icmp echo request")
	}
	if s.Proto == ICMP && !s.Has(GivenICMPID) {
		s.ICMPID = 1
	}
	if !s.Has(GivenTTL) {
		s.TTL = assumedTTL
	}
	return said
}

// Packet returns the bytes of the IP packet, checksums and all. Call Complete
// before.
func (s *Sentence) Packet() ([]byte, error) {
	if !s.Dst.Is4() {
		return nil, fmt.Errorf("%s: IPv6 packets are not walked yet", s.Dst)
	}
	l4 := s.transport()
	n := 20 + len(l4)
	if s.Has(GivenLen) {
		if s.Len < n {
			return nil, fmt.Errorf("len %d: the headers alone have %d bytes", s.Len, n)
		}
		n = s.Len
	}
	b := make([]byte, n)
	copy(b[20:], l4)
	b[0], b[1], b[6], b[8], b[9] = 0x45, s.TOS, 0x40, s.TTL, s.Proto
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	binary.BigEndian.PutUint16(b[4:], 1)
	src := s.Src
	if src.IsZero() {
		src = V4(0)
	}
	copy(b[12:], src.Bytes())
	copy(b[16:], s.Dst.Bytes())
	FixIP4(b)
	s.checksum(b[20:], src)
	return b, nil
}

// transport is the header behind IP without checksum.
func (s *Sentence) transport() []byte {
	switch s.Proto {
	case TCP:
		b := make([]byte, 20)
		s.ports(b)
		binary.BigEndian.PutUint32(b[4:], 1000)
		b[12], b[13] = 5<<4, s.Flags
		binary.BigEndian.PutUint16(b[14:], 64240)
		return b
	case UDP, UDPLite:
		b := make([]byte, 8)
		s.ports(b)
		return b
	case SCTP, DCCP:
		b := make([]byte, 12)
		s.ports(b)
		return b
	case ICMP:
		b := make([]byte, 8)
		b[0], b[1] = s.ICMPType, s.ICMPCode
		binary.BigEndian.PutUint16(b[4:], s.ICMPID)
		binary.BigEndian.PutUint16(b[6:], 1)
		return b
	}
	return make([]byte, 8)
}

func (s *Sentence) ports(b []byte) {
	binary.BigEndian.PutUint16(b, s.SPort)
	binary.BigEndian.PutUint16(b[2:], s.DPort)
}

// checksum fills in the transport checksum over the whole rest of the packet.
func (s *Sentence) checksum(l4 []byte, src Addr) {
	sum := PseudoSum(src, s.Dst, s.Proto, len(l4))
	switch s.Proto {
	case TCP:
		binary.BigEndian.PutUint16(l4[16:], Fold(Sum16(l4, sum)))
	case UDP:
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4)))
		c := Fold(Sum16(l4, sum))
		if c == 0 {
			c = 0xffff
		}
		binary.BigEndian.PutUint16(l4[6:], c)
	case UDPLite:
		binary.BigEndian.PutUint16(l4[6:], Fold(Sum16(l4, sum)))
	case ICMP:
		binary.BigEndian.PutUint16(l4[2:], Fold(Sum16(l4, 0)))
	}
}

// Frame puts an Ethernet header before an IP packet.
func Frame(dst, src MAC, ip []byte) []byte {
	b := make([]byte, EthernetLen, EthernetLen+len(ip))
	copy(b, dst[:])
	copy(b[6:], src[:])
	proto := EtherIPv4
	if len(ip) > 0 && ip[0]>>4 == 6 {
		proto = EtherIPv6
	}
	binary.BigEndian.PutUint16(b[12:], proto)
	return append(b, ip...)
}

// TCPFlags returns the letters of a flags octet, from FIN on: "SA" for SYN and ACK.
func TCPFlags(flags uint8) string {
	var b []byte
	for i := range len(tcpLetters) {
		if flags>>i&1 != 0 {
			b = append(b, tcpLetters[i])
		}
	}
	if len(b) == 0 {
		return "none"
	}
	return string(b)
}
