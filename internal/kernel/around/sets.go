package around

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// set is an ipset that rules name, with as many dimensions as they ask for.
type set struct {
	name string
	dims int
}

// namedSets finds the sets of "--match-set NAME src,dst" and of -j SET.
func namedSets(rules string) []set {
	var out []set
	for line := range strings.Lines(rules) {
		f := strings.Fields(line)
		for i := 0; i+2 < len(f); i++ {
			if !slices.Contains([]string{"--match-set", "--add-set", "--del-set", "--map-set"}, f[i]) {
				continue
			}
			s := set{strings.Trim(f[i+1], `"`), 1 + strings.Count(f[i+2], ",")}
			if !slices.ContainsFunc(out, func(o set) bool { return o.name == s.name }) {
				out = append(out, s)
			}
		}
	}
	return out
}

// kind is a type that a set of such a name has where the names are known.
func (s set) kind() string {
	switch {
	case s.dims >= 3:
		return "hash:ip,port,ip"
	case s.dims == 2:
		return "hash:ip,port"
	case strings.Contains(s.name, "PORT"):
		return "bitmap:port range 0-65535"
	}
	return "hash:net"
}

// Members of sets: networks that packets are drawn from, and ports.
var (
	memberNets  = []string{"100.64.0.0/28", "192.0.2.0/25", "10.0.0.0/9"}
	memberAddrs = []string{"100.64.0.2", "192.0.2.7", "10.9.8.7"}
	memberPorts = []uint16{53, 80, 443, 30080}
)

func (s set) members() []string {
	var out []string
	switch kind := s.kind(); {
	case kind == "hash:net":
		return memberNets
	case strings.HasPrefix(kind, "bitmap"):
		for _, p := range memberPorts {
			out = append(out, fmt.Sprint(p))
		}
	default:
		for _, a := range memberAddrs {
			for _, proto := range []string{"tcp", "udp"} {
				m := fmt.Sprintf("%s,%s:%d", a, proto, memberPorts[1])
				if s.dims >= 3 {
					m += "," + a
				}
				out = append(out, m)
			}
		}
	}
	return out
}

func (h *Host) setsText() string {
	var b strings.Builder
	for _, s := range h.sets {
		fmt.Fprintf(&b, "create %s %s\n", s.name, s.kind())
		for _, m := range s.members() {
			fmt.Fprintf(&b, "add %s %s\n", s.name, m)
		}
	}
	return b.String()
}

// memberAddr is one of the addresses that most sets hold.
func memberAddr(n int) netip.Addr { return netip.MustParseAddr(memberAddrs[n%len(memberAddrs)]) }
