package snapshot

import (
	"encoding/hex"
	"math"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// ipvsEnd is an address with a port, as ipvsadm reads and prints them. Port is -1 where
// none was written.
type ipvsEnd struct {
	family trace.Family
	addr   packet.Addr
	port   int
}

// ipvsEndOf reads "10.0.0.1:80", "10.0.0.1", "[2001:db8::1]:80".
func ipvsEndOf(p place, what, s string) (ipvsEnd, error) {
	var host, port string
	var found bool
	if strings.HasPrefix(s, "[") {
		if host, port, found = strings.Cut(s[1:], "]"); !found {
			return ipvsEnd{}, p.errorf("%s: %q: the ] is missing", what, s)
		}
		if port, found = strings.CutPrefix(port, ":"); !found && port != "" {
			return ipvsEnd{}, p.errorf("%s: %q: expected : and a port behind the ]", what, s)
		}
	} else if host, port, found = strings.Cut(s, ":"); strings.Contains(port, ":") {
		return ipvsEnd{}, p.errorf("%s: %q: an IPv6 address stands in [ and ]", what, s)
	}
	e := ipvsEnd{port: -1}
	a, err := netip.ParseAddr(host)
	if err != nil || a.Is6() != strings.HasPrefix(s, "[") || a.Zone() != "" {
		return e, p.errorf("%s: %q is not an address (ipvsadm -n prints numbers)", what, host)
	}
	if e.family, e.addr, err = ipvsAddr(p, what, a); err != nil || !found {
		return e, err
	}
	e.port, err = ipvsPort(p, what, port, 10)
	return e, err
}

// ipvsAddr gives an address with its family. IPv6 addresses that stand for IPv4 ones can't
// be told from these here.
func ipvsAddr(p place, what string, a netip.Addr) (trace.Family, packet.Addr, error) {
	if a.Is4() {
		return trace.IPv4, packet.AddrFrom(a), nil
	}
	if a.Is4In6() {
		return 0, packet.Addr{}, p.unsupported(what+": "+a.String(),
			"IPv4-mapped IPv6 addresses are not told from IPv4")
	}
	return trace.IPv6, packet.AddrFrom(a), nil
}

func ipvsPort(p place, what, s string, base int) (int, error) {
	n, err := strconv.ParseUint(s, base, 16)
	if err != nil {
		return 0, p.errorf("%s: %q is not a port's number (ipvsadm -n prints numbers)", what, s)
	}
	return int(n), nil
}

// ipvsHexAddr reads "0A000001" and "2001:0db8:0000:...", as /proc writes them.
func ipvsHexAddr(p place, what, s string) (trace.Family, packet.Addr, error) {
	if b, err := hex.DecodeString(s); err == nil && len(b) == 4 {
		return trace.IPv4, packet.AddrFrom4(b), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return 0, packet.Addr{}, p.errorf("%s: %q is not an address as /proc writes it", what, s)
	}
	return ipvsAddr(p, what, a)
}

// ipvsHexEnd reads "0A000001:0050" and "[2001:0db8:...]:0050".
func ipvsHexEnd(p place, what, s string) (e ipvsEnd, err error) {
	at := strings.LastIndexByte(s, ':')
	if at < 0 {
		return e, p.errorf("%s: %q is not an address with a port", what, s)
	}
	host := s[:at]
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if e.family, e.addr, err = ipvsHexAddr(p, what, host); err != nil {
		return e, err
	}
	e.port, err = ipvsPort(p, what, s[at+1:], 16)
	return e, err
}

// ipvsMark reads a mark, which ipvsadm prints as a signed number.
func ipvsMark(p place, what, s string, base int) (uint32, error) {
	n, err := strconv.ParseInt(s, base, 64)
	if err != nil || n < math.MinInt32 || n > math.MaxUint32 || n == 0 {
		return 0, p.errorf("%s: %q is not a mark", what, s)
	}
	return uint32(n), nil
}

// ipvsMask reads how much of a client's address counts: a netmask, or the length of a prefix.
func ipvsMask(p place, what, s string, f trace.Family) (int, error) {
	if f == trace.IPv6 {
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil || n < 1 || n > 128 {
			return 0, p.errorf("%s: %q is not a prefix length between 1 and 128", what, s)
		}
		return int(n), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return 0, p.errorf("%s: %q is not a netmask", what, s)
	}
	n, ok := maskBits(packet.AddrFrom(a).Uint32())
	if !ok {
		return 0, p.unsupported(what+": "+s, "the netmask has gaps")
	}
	return n, nil
}

// maskBits counts the bits of a netmask; false where it has gaps.
func maskBits(mask uint32) (int, bool) {
	n := bits.LeadingZeros32(^mask)
	return n, mask == ^uint32(0)<<(32-n)
}

// ipvsFlags reads the names of a scheduler's flags, separated by commas. A name of the
// scheduler's own is read as well as flag-1.
func ipvsFlags(p place, what, s, scheduler string) (ipvs.Flags, error) {
	var flags ipvs.Flags
	names, plain := ipvs.FlagNames(scheduler), ipvs.FlagNames("")
	for name := range strings.SplitSeq(s, ",") {
		found := false
		for i := range names {
			if name == names[i] || name == plain[i] {
				flags, found = flags|1<<i, true
			}
		}
		if !found {
			return 0, p.errorf("%s: %q is not a flag of the scheduler %s", what, name, scheduler)
		}
	}
	return flags, nil
}

// ipvsNumber reads a number from zero to at most.
func ipvsNumber(p place, what, s string, most uint64) (uint64, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > most {
		return 0, p.errorf("%s: %q is not a number from 0 to %d", what, s, most)
	}
	return n, nil
}

// ipvsName reads the name of a scheduler or a persistence engine.
func ipvsName(p place, what, s string) (string, error) {
	const most = 15 // IP_VS_SCHEDNAME_MAXLEN, IP_VS_PENAME_MAXLEN, without the zero
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '(' || c == '-' && i == 0 {
			return "", p.errorf("%s: %q is not a name", what, s)
		}
	}
	if s == "" || len(s) > most {
		return "", p.errorf("%s: %q is not a name of 1 to %d letters", what, s, most)
	}
	return s, nil
}
