package snapshot

import (
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
		if strings.HasPrefix(name, "net.") {
			s[name] = strings.TrimSpace(val)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}
