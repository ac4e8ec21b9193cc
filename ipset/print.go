package ipset

import (
	"bytes"
	"strconv"

	"github.com/hookpath/hookpath/packet"
)

// AppendEntry prints an entry of the set as `ipset save` does behind `add NAME`.
func (s *Set) AppendEntry(b []byte, e *Entry) []byte {
	ips := 0
	for i, p := range s.kind.parts {
		if p == partMAC && !e.HasMAC {
			break
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = s.appendPart(b, e, p, ips)
		if p == partIP || p == partNet {
			ips++
		}
	}
	return s.appendExt(b, e)
}

func (s *Set) appendPart(b []byte, e *Entry, p part, ip int) []byte {
	switch p {
	case partIP, partNet:
		if e.Addr[ip].IsZero() {
			b = append(b, "::"...)
		} else {
			b = e.Addr[ip].Netip().AppendTo(b)
		}
		if e.HasPrefix[ip] && e.Prefix[ip] != s.Family.hostBits() {
			b = strconv.AppendUint(append(b, '/'), uint64(e.Prefix[ip]), 10)
		}
	case partPort:
		return s.appendPort(b, e)
	case partMAC:
		return append(b, bytes.ToUpper([]byte(e.MAC.String()))...)
	case partMark:
		return appendHex(b, e.Mark, 8)
	case partIface:
		if e.PhysDev {
			b = append(b, "physdev:"...)
		}
		return append(b, e.Iface...)
	case partSet:
		return append(b, e.Set...)
	}
	return b
}

func appendHex(b []byte, n uint32, width int) []byte {
	s := strconv.FormatUint(uint64(n), 16)
	b = append(b, "0x"...)
	for range width - len(s) {
		b = append(b, '0')
	}
	return append(b, s...)
}

func (s *Set) appendPort(b []byte, e *Entry) []byte {
	if s.kind.class == classBitmap {
		return strconv.AppendUint(b, uint64(e.Port), 10)
	}
	if name := s.protoName(e.Proto); name != "" {
		b = append(append(b, name...), ':')
	} else {
		b = append(strconv.AppendUint(b, uint64(e.Proto), 10), ':')
	}
	names := icmpNames
	switch e.Proto {
	case packet.ICMP:
	case packet.ICMPv6:
		names = icmp6Names
	default:
		return strconv.AppendUint(b, uint64(e.Port), 10)
	}
	for _, n := range names {
		if n.n == e.Port {
			return append(b, n.name...)
		}
	}
	b = strconv.AppendUint(b, uint64(e.Port>>8), 10)
	return strconv.AppendUint(append(b, '/'), uint64(e.Port&0xff), 10)
}

// protoNames are the protocols that have ports, or types in their place.
var protoNames = map[uint8]string{packet.TCP: "tcp", packet.UDP: "udp", packet.SCTP: "sctp",
	packet.UDPLite: "udplite", packet.ICMP: "icmp", packet.ICMPv6: "ipv6-icmp"}

// protoName is the name of a protocol, empty where the set knows none.
func (s *Set) protoName(proto uint8) string {
	if name, ok := protoNames[proto]; ok || s.ProtoName == nil {
		return name
	}
	return s.ProtoName(proto)
}

func (s *Set) appendExt(b []byte, e *Entry) []byte {
	if e.HasTimeout {
		b = strconv.AppendUint(append(b, " timeout "...), uint64(e.Timeout), 10)
	}
	if e.NoMatch {
		b = append(b, " nomatch"...)
	}
	if e.Wildcard {
		b = append(b, " wildcard"...)
	}
	if e.HasCounts {
		b = strconv.AppendUint(append(b, " packets "...), e.Packets, 10)
		b = strconv.AppendUint(append(b, " bytes "...), e.Bytes, 10)
	}
	if e.Comment != "" {
		b = append(append(append(b, ` comment "`...), e.Comment...), '"')
	}
	return appendInfo(b, e.Info)
}

func appendInfo(b []byte, x Info) []byte {
	if x.Mark != 0 || x.Mask != 0 {
		b = appendHex(append(b, " skbmark "...), x.Mark, 0)
		if x.Mask != 1<<32-1 {
			b = appendHex(append(b, '/'), x.Mask, 0)
		}
	}
	if x.Prio != 0 {
		b = strconv.AppendUint(append(b, " skbprio "...), uint64(x.Prio>>16), 16)
		b = strconv.AppendUint(append(b, ':'), uint64(x.Prio&0xffff), 16)
	}
	if x.Queue != 0 {
		b = strconv.AppendUint(append(b, " skbqueue "...), uint64(x.Queue), 10)
	}
	return b
}
