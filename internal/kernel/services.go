package kernel

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// ipvsFile is there where the kernel of this thread's namespace has the load balancer.
const ipvsFile = "/proc/thread-self/net/ip_vs"

// loadServices restores the load balancer's services. ipvsadm adds a service's servers in
// the order of the file, so that the kernel has them the other way round.
func (h *host) loadServices(ctx context.Context) error {
	text := h.Files["ipvsadm-save"]
	if strings.TrimSpace(text) == "" {
		return nil
	}
	if _, err := os.Stat(ipvsFile); err != nil {
		return &UnsupportedError{h.Name, "ipvsadm-save", "the file", "this kernel has no IPVS"}
	}
	if _, err := tool(ctx, text, "ipvsadm", "-R"); err != nil {
		return fmt.Errorf("%s/ipvsadm-save: %w", h.Name, err)
	}
	return nil
}

// balances tells whether the load balancer has something to do.
func (h *host) balances() bool { return strings.TrimSpace(h.Files["ipvsadm-save"]) != "" }

// serviceFiles are what ipvsadm prints of the load balancer.
func serviceFiles() []struct{ file, command string } {
	return []struct{ file, command string }{
		{"ipvsadm-save", "ipvsadm -S -n"}, {"ipvs", "ipvsadm -L -n --nosort"},
		{"ipvs-thresholds", "ipvsadm -L -n --thresholds"},
	}
}
