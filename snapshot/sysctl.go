package snapshot

import (
	"slices"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/link"
)

// parseSysctl reads `sysctl -a`: "name = value" a line. Of names outside of
// "net." nothing is kept; messages of sysctl itself are passed over.
func parseSysctl(file string, data []byte) (link.Sysctl, error) {
	s := link.Sysctl{}
	err := textLines(file, data, func(p place, line string) error {
		trimmed := strings.TrimSpace(line)
		if strings.HasPrefix(trimmed, "sysctl: ") || strings.HasPrefix(trimmed, "#") {
			return nil
		}
		name, val, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return p.errorf("%q is not name = value", line)
		}
		val = strings.TrimSpace(val)
		if _, err := strconv.ParseInt(val, 0, 64); err != nil && isNumber(name) {
			return p.errorf("%s: %q is not a number", name, val)
		}
		if strings.HasPrefix(name, "net.") {
			s[name] = val
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// numbers are the beginnings of the names whose values the walk asks as numbers.
var numbers = []string{"net.ipv4.conf.", "net.ipv4.fib_multipath_", "net.ipv4.fwmark_reflect",
	"net.ipv4.icmp_", "net.ipv4.ip_default_ttl", "net.ipv4.ip_forward", "net.ipv4.ipfrag_",
	"net.netfilter.nf_conntrack_"}

func isNumber(name string) bool {
	return slices.ContainsFunc(numbers, func(p string) bool { return strings.HasPrefix(name, p) })
}
