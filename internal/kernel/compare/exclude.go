package compare

import (
	"strings"

	"github.com/hookpath/hookpath/internal/kernel"
)

// exclusions are words of iptables-save whose scenarios are left out by default, with
// the reason. It is the honest list of what is not held against the kernel.
var exclusions = []struct{ word, why string }{}

// excluded names the first exclusion that a scenario falls under.
func excluded(sc kernel.Scenario) string {
	for _, h := range sc.Hosts {
		for _, e := range exclusions {
			if strings.Contains(h.Files["iptables-save"], e.word) {
				return e.word + ": " + e.why
			}
		}
	}
	return ""
}
