package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
)

// setting is one sysctl: its path under /proc/sys, and its value.
type setting struct{ path, value string }

// quiet are the settings that keep a namespace from saying or doing anything
// by a clock. The snapshot's own file comes after them.
func quiet() []setting {
	return []setting{
		{"net/ipv6/conf/all/disable_ipv6", "1"},
		{"net/ipv6/conf/default/disable_ipv6", "1"},
		{"net/ipv4/icmp_ratelimit", "0"},
		{"net/ipv4/icmp_ratemask", "0"},
		{"net/ipv4/conf/all/send_redirects", "0"},
		{"net/ipv4/conf/default/send_redirects", "0"},
		{"net/ipv4/tcp_synack_retries", "0"},
		{"net/ipv4/tcp_timestamps", "0"},
		{"net/ipv4/tcp_sack", "0"},
		{"net/ipv4/tcp_window_scaling", "0"},
		{"net/ipv4/tcp_ecn", "0"},
		{"net/ipv4/igmp_link_local_mcast_reports", "0"}, // a bridge joins 224.0.0.106
	}
}

// quietNeighbours are the settings that keep a device's neighbours from acting by a clock.
// Only the machine's first namespace has defaults of them (net/core/neighbour.c,
// lookup_neigh_parms).
func quietNeighbours(dev string) []setting {
	dir := "net/ipv4/neigh/" + dev + "/"
	return []setting{{dir + "retrans_time_ms", "1000000"}, {dir + "proxy_delay", "0"},
		{dir + "delay_first_probe_time", "10000"}}
}

// confDefaults are the kernel's own defaults of the interface settings that
// decide packets. A namespace copies those of the first one instead
// (net/ipv4/devinet.c, devinet_init_net, devconf_inherit_init_net=0).
func confDefaults() []setting {
	return []setting{
		{"accept_local", "0"}, {"arp_accept", "0"}, {"arp_announce", "0"},
		{"arp_filter", "0"}, {"arp_ignore", "0"}, {"arp_notify", "0"},
		{"disable_policy", "0"}, {"disable_xfrm", "0"},
		{"drop_gratuitous_arp", "0"}, {"drop_unicast_in_l2_multicast", "0"},
		{"log_martians", "0"}, {"proxy_arp", "0"},
		{"proxy_arp_pvlan", "0"}, {"route_localnet", "0"}, {"rp_filter", "0"},
		{"src_valid_mark", "0"}, {"ignore_routes_with_linkdown", "0"},
		{"promote_secondaries", "0"}, {"shared_media", "1"},
		{"secure_redirects", "1"}, {"accept_redirects", "1"},
	}
}

// baseline is what a namespace has before the snapshot's sysctl file.
func baseline(forwarding bool) []setting {
	forward := "0"
	if forwarding {
		forward = "1"
	}
	all := append([]setting{{"net/ipv4/ip_forward", forward}}, quiet()...)
	for _, s := range confDefaults() {
		for _, dev := range []string{"all", "default"} {
			all = append(all, setting{"net/ipv4/conf/" + dev + "/" + s.path, s.value})
		}
	}
	return all
}

// parseSysctl reads the lines of sysctl -a in the order in which they must be
// written: what sets other settings along comes first.
func parseSysctl(text string) ([]setting, error) {
	var out []setting
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("sysctl:%d: %q has no =", n, line)
		}
		s := setting{sysctlPath(strings.TrimSpace(key)), strings.TrimSpace(value)}
		if !strings.HasPrefix(s.path, "net/") || strings.Contains(s.path, "/..") {
			return nil, fmt.Errorf("sysctl:%d: %q is not a setting of the network", n, key)
		}
		out = append(out, s)
	}
	slices.SortStableFunc(out, func(a, b setting) int {
		return sysctlRank(a.path) - sysctlRank(b.path)
	})
	return out, nil
}

// sysctlPath swaps the separators: net.ipv4.conf.eth0/1.rp_filter is the file
// net/ipv4/conf/eth0.1/rp_filter.
func sysctlPath(key string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '.':
			return '/'
		case '/':
			return '.'
		}
		return r
	}, key)
}

func sysctlRank(path string) int {
	switch {
	case strings.HasSuffix(path, "/ip_forward"):
		return 0
	case strings.Contains(path, "/conf/all/"):
		return 1
	case strings.Contains(path, "/conf/default/"), strings.Contains(path, "/neigh/default/"):
		return 2
	}
	return 3
}

// decisive are the settings that decide packets: one that can't be set is an
// error. Others (buffers, congestion control) may belong to the whole machine.
func decisive(path string) bool {
	return strings.HasPrefix(path, "net/ipv4/conf/") ||
		strings.HasPrefix(path, "net/ipv4/ip_") || strings.HasPrefix(path, "net/ipv4/icmp_") ||
		strings.HasPrefix(path, "net/ipv4/fib_") || strings.HasPrefix(path, "net/bridge/")
}

// ours are settings that the run keeps whatever the snapshot says: without the
// trace's logger or with IPv6's chatter there is nothing to compare.
func ours(path string) bool {
	return strings.HasPrefix(path, "net/netfilter/nf_log") ||
		strings.HasSuffix(path, "/igmp_link_local_mcast_reports") ||
		strings.HasSuffix(path, "/retrans_time_ms") || strings.HasSuffix(path, "/disable_ipv6")
}

// wide are decisive settings that only the machine's first namespace shows.
func wide(path string) bool {
	return strings.HasPrefix(path, "net/ipv4/fib_") || strings.HasPrefix(path, "net/ipv4/icmp_")
}

// writeSysctls writes each setting whose value differs, in the calling thread's
// namespace. Settings of machine-wide nature that refuse are passed over.
func writeSysctls(all []setting) error {
	for _, s := range all {
		err := writeSysctl(s)
		if errors.Is(err, fs.ErrNotExist) && wide(s.path) {
			continue
		}
		if err != nil && decisive(s.path) {
			return fmt.Errorf("sysctl: %s = %s: %w", s.path, s.value, err)
		}
	}
	return nil
}

func writeSysctl(s setting) error {
	f, err := os.OpenFile("/proc/sys/"+s.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		return nil // read-only
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var buf [512]byte
	n, _ := f.Read(buf[:])
	if strings.Join(strings.Fields(string(buf[:n])), " ") ==
		strings.Join(strings.Fields(s.value), " ") {
		return nil
	}
	_, err = f.WriteAt([]byte(s.value), 0)
	return err
}
