package icmp

import "github.com/hookpath/hookpath/packet"

// IPv4 options that a host acts on.
const (
	optEnd    = 0
	optNop    = 1
	optRecord = 7
	optTime   = 68
	optLoose  = 131
	optCIPSO  = 134
	optStrict = 137
)

// eachOption yields the options of an IPv4 header: where each begins, and its bytes.
func eachOption(ip []byte, yield func(at int, opt []byte) bool) {
	n := min(int(ip[0]&0xf)*4, len(ip))
	for i := 20; i < n && ip[i] != optEnd; {
		if ip[i] == optNop {
			i++
			continue
		}
		if i+1 >= n || ip[i+1] < 2 || i+int(ip[i+1]) > n {
			return
		}
		size := int(ip[i+1])
		if !yield(i, ip[i:i+size]) {
			return
		}
		i += size
	}
}

// ActsOn names an option of a packet that a host would act on and that is not known
// here: a source route, time stamps, a CIPSO label. It is empty for all others.
func ActsOn(ip []byte) (name string) {
	eachOption(ip, func(_ int, o []byte) bool {
		switch o[0] {
		case optTime:
			name = "timestamp"
		case optLoose, optStrict:
			name = "source route"
		case optCIPSO:
			name = "CIPSO"
		}
		return name == ""
	})
	return name
}

// RecordRoute puts an address into the packet's record of its route, if it has one
// with room, as a host does on receiving it: the one that answers would have as
// source. The header's checksum is not mended before the packet is forwarded, which
// RejectSumOK notices.
//
// Kernel: net/ipv4/ip_options.c, __ip_options_compile, IPOPT_RR.
func RecordRoute(ip []byte, addr packet.Addr) {
	eachOption(ip, func(_ int, o []byte) bool {
		if o[0] != optRecord {
			return true
		}
		if at := recordAt(o); at > 0 {
			copy(o[at:], addr.Bytes())
			o[2] += 4
		}
		return false
	})
}

// recordAt is where the next address goes, zero where there is no room.
func recordAt(o []byte) int {
	if len(o) < 3 || o[2] < 4 || int(o[2])+3 > len(o) {
		return 0
	}
	return int(o[2]) - 1
}

// echoed are the options of an answer: the record of the route, which goes on with
// the answer's source.
//
// Kernel: net/ipv4/ip_options.c, __ip_options_echo and ip_options_build.
func echoed(in []byte, src packet.Addr) (out []byte) {
	eachOption(in, func(_ int, o []byte) bool {
		if o[0] != optRecord {
			return true
		}
		out = append(out, o...)
		if at := recordAt(out); at > 0 {
			copy(out[at:], src.Bytes())
			out[2] += 4
		}
		for len(out)%4 != 0 {
			out = append(out, optEnd)
		}
		return false
	})
	return out
}
