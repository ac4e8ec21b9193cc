package ipvs

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// ListHeading are the lines above a list of services, without the one that names the
// version: `ipvsadm -L -n -t SERVICE` leaves it out too.
const ListHeading = "Prot LocalAddress:Port Scheduler Flags\n" +
	"  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"

// AppendList appends a service and its real servers as `ipvsadm -L -n` prints them.
func (s *Service) AppendList(b []byte) []byte {
	b = append(s.appendTitle(b), '\n')
	for i := range s.Dests {
		b = s.Dests[i].appendList(b)
	}
	return b
}

// appendTitle appends "TCP  10.0.0.1:80 sh (sh-port) persistent 300 mask 255.255.255.0 ops".
func (s *Service) appendTitle(b []byte) []byte {
	if s.Mark != 0 {
		b = append(b, "FWM  "...)
		b = appendMark(b, s.Mark)
		if s.Family == trace.IPv6 {
			b = append(b, " IPv6"...)
		}
	} else {
		b = padded(b, protoName(s.Proto), 4)
		b = append(b, ' ')
		b = appendEnd(b, s.Family, s.Addr, s.Port)
	}
	b = append(append(b, ' '), s.Scheduler...)
	if s.Flags&^OnePacket != 0 {
		b = append(s.appendFlags(append(b, " ("...)), ')')
	}
	if s.Timeout != 0 {
		b = appendUint(append(b, " persistent "...), uint64(s.Timeout))
		b = s.appendMask(b, " mask ")
		if s.PE != "" {
			b = append(append(b, " pe "...), s.PE...)
		}
	}
	if s.Flags&OnePacket != 0 {
		b = append(b, " ops"...)
	}
	return b
}

// appendMark appends a mark as ipvsadm does: as a signed number.
func appendMark(b []byte, mark uint32) []byte { return strconv.AppendInt(b, int64(int32(mark)), 10) }

func appendUint(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) }

// padded appends a word and blanks up to a width.
func padded(b []byte, word string, width int) []byte {
	b = append(b, word...)
	for n := len(word); n < width; n++ {
		b = append(b, ' ')
	}
	return b
}

// padTo appends blanks until what was appended since start has a width.
func padTo(b []byte, start, width int) []byte {
	for len(b)-start < width {
		b = append(b, ' ')
	}
	return b
}

// appendMask appends how much of a client's address counts, where not all of it does.
func (s *Service) appendMask(b []byte, word string) []byte {
	if s.Family == trace.IPv6 {
		if s.Mask == 128 {
			return b
		}
		return appendUint(append(b, word...), uint64(s.Mask))
	}
	if s.Mask == 32 {
		return b
	}
	return appendAddr(append(b, word...), trace.IPv4, packet.V4(^uint32(0)<<(32-s.Mask)))
}

// appendEnd appends an address with a port: "10.0.0.1:80", "[2001:db8::1]:80".
func appendEnd(b []byte, f trace.Family, a packet.Addr, port uint16) []byte {
	if f == trace.IPv6 {
		b = append(appendAddr(append(b, '['), f, a), ']')
	} else {
		b = appendAddr(b, f, a)
	}
	return appendUint(append(b, ':'), uint64(port))
}

// appendAddr appends an address as inet_ntop writes it.
func appendAddr(b []byte, f trace.Family, a packet.Addr) []byte {
	if f != trace.IPv6 {
		return netip.AddrFrom4([4]byte(a[12:])).AppendTo(b)
	}
	if [12]byte(a[:]) == [12]byte{} && (a[12] != 0 || a[13] != 0) {
		return netip.AddrFrom4([4]byte(a[12:])).AppendTo(append(b, "::"...))
	}
	return netip.AddrFrom16(a).AppendTo(b)
}

// appendList appends a real server's line.
func (d *Dest) appendList(b []byte) []byte {
	b = append(b, "  -> "...)
	start := len(b)
	b = append(padTo(d.appendEnd(b), start, 28), ' ')
	b = append(padded(b, d.Method.String(), 7), ' ')
	start = len(b)
	b = append(padTo(strconv.AppendInt(b, int64(d.Weight), 10), start, 6), ' ')
	start = len(b)
	b = append(padTo(appendUint(b, uint64(uint32(d.Counts.Active))), start, 10), ' ')
	start = len(b)
	b = padTo(appendUint(b, uint64(uint32(d.Counts.Inactive))), start, 10)
	return append(b, '\n')
}

// appendEnd appends a real server's address and port.
func (d *Dest) appendEnd(b []byte) []byte {
	f := trace.IPv6
	if d.Addr.Is4() {
		f = trace.IPv4
	}
	return appendEnd(b, f, d.Addr, d.Port)
}

// appendFlags appends the scheduler's flags by the names that they have with it.
func (s *Service) appendFlags(b []byte) []byte {
	start := len(b)
	for i, name := range FlagNames(s.Scheduler) {
		if s.Flags&(1<<i) == 0 {
			continue
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(b, name...)
	}
	return b
}

// FlagNames are what ipvsadm calls the flags of a scheduler, Sched1 first.
func FlagNames(scheduler string) [3]string {
	switch scheduler {
	case "sh":
		return [...]string{"sh-fallback", "sh-port", "flag-3"}
	case "mh":
		return [...]string{"mh-fallback", "mh-port", "flag-3"}
	}
	return [...]string{"flag-1", "flag-2", "flag-3"}
}

// AppendSave appends a service and its real servers as `ipvsadm -S -n` prints them: without
// thresholds. A mark above 2147483647 is printed as ipvsadm does, negative, and ipvsadm -R
// does not take it back.
func (s *Service) AppendSave(b []byte) []byte {
	b = s.appendName(append(b, "-A "...))
	b = append(append(b, " -s "...), s.Scheduler...)
	if s.Timeout != 0 {
		b = appendUint(append(b, " -p "...), uint64(s.Timeout))
		b = s.appendMask(b, " -M ")
		if s.PE != "" {
			b = append(append(b, " --pe "...), s.PE...)
		}
	}
	if s.Flags&OnePacket != 0 {
		b = append(b, " -o"...)
	}
	if s.Flags&^OnePacket != 0 {
		b = s.appendFlags(append(b, " -b "...))
	}
	b = append(b, '\n')
	for i := range s.Dests {
		b = s.appendName(append(b, "-a "...))
		b = s.Dests[i].appendSave(b)
	}
	return b
}

// appendName appends the options that name a service: "-t 10.0.0.1:80", "-f 7 -6".
func (s *Service) appendName(b []byte) []byte {
	switch {
	case s.Mark == 0:
		b = append(b, protoOption(s.Proto)...)
		return appendEnd(b, s.Family, s.Addr, s.Port)
	case s.Family == trace.IPv6:
		return append(appendMark(append(b, "-f "...), s.Mark), " -6"...)
	}
	return appendMark(append(b, "-f "...), s.Mark)
}

func protoOption(proto uint8) string {
	switch proto {
	case packet.UDP:
		return "-u "
	case packet.SCTP:
		return "--sctp-service "
	}
	return "-t "
}

// appendSave appends what follows the service in a real server's line.
func (d *Dest) appendSave(b []byte) []byte {
	b = d.appendEnd(append(b, " -r "...))
	b = append(append(b, " -"...), [...]string{Masq: "m", Tunnel: "i", Direct: "g"}[d.Method]...)
	b = strconv.AppendInt(append(b, " -w "...), int64(d.Weight), 10)
	if d.Method != Tunnel {
		return append(b, '\n')
	}
	b = append(append(b, " --tun-type "...), d.Encap.String()...)
	if d.Encap == GUE {
		b = appendUint(append(b, " --tun-port "...), uint64(d.EncapPort))
	}
	if d.Encap != IPIP {
		b = append(append(b, " --tun-"...), d.EncapFlags.String()...)
	}
	return append(b, '\n')
}

// String returns ipvsadm's word: ipip, gue, gre.
func (e Encap) String() string { return [...]string{"ipip", "gue", "gre"}[e] }

// String returns the word of ipvsadm's option --tun-: nocsum, csum, remcsum.
func (f EncapFlags) String() string {
	switch {
	case f&EncapCsum != 0:
		return "csum"
	case f&EncapRemCsum != 0:
		return "remcsum"
	}
	return "nocsum"
}

// KnowsState tells whether a connection of a protocol, or a template, can have a state of
// that name.
func KnowsState(proto uint8, template bool, name string) bool {
	switch {
	case template:
		return name == "NONE" || name == "ASSURED"
	case proto == packet.TCP:
		return slices.Contains(tcpNames(), name)
	case proto == packet.SCTP:
		return slices.Contains(sctpNames(), name)
	}
	return name == "UDP"
}
