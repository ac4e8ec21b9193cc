package kernel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// collectors are the tools that print a snapshot's files. What this back end
// does not lay out is not collected.
func collectors(backend Backend) []struct{ file, command string } {
	save := "iptables-legacy-save -c"
	if backend == NFT {
		save = "iptables-nft-save -c"
	}
	return []struct{ file, command string }{
		{"iptables-save", save},
		{"ipset-save", "ipset save"},
		{"ip-route", "ip -4 -d -o route show table all"},
		{"conntrack", "conntrack -L -o extended,id"},
		{"sockets", "ss -H -n -a -t -u -w -S -p -e --inet-sockopt"},
		{"nft.json", "nft -j list ruleset"},
	}
}

// ipFiles are the files that ip -d -j prints, one run for all of them.
func ipFiles() []struct{ file, command string } {
	return []struct{ file, command string }{
		{"ip-link.json", "link"}, {"ip-addr.json", "addr"}, {"ip-neigh.json", "neigh"},
		{"ip-neigh-proxy.json", "neigh show proxy"}, {"ip-rule.json", "rule"},
		{"ip-nexthop.json", "nexthop"},
	}
}

func (r *Run) collectIP(h *host, files map[string]string) error {
	var commands strings.Builder
	for _, f := range ipFiles() {
		commands.WriteString(f.command + "\n")
	}
	out, err := tool(r.ctx, commands.String(), "ip", "-d", "-j", "-batch", "-")
	if err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	values := json.NewDecoder(strings.NewReader(out))
	for _, f := range ipFiles() {
		var v json.RawMessage
		if err := values.Decode(&v); err != nil {
			return fmt.Errorf("%s: ip -j %s: %w", h.Name, f.command, err)
		}
		if !h.spare(f.file) {
			files[f.file] = string(v) + "\n"
		}
	}
	return nil
}

// Collect prints the snapshot of a host with the real tools, as it stands now.
// Our own marks are taken off: the probe table, and that a wire is a TAP.
func (r *Run) Collect(name string) (map[string]string, error) {
	h := r.host(name)
	if h == nil {
		return nil, fmt.Errorf("no host %q", name)
	}
	files := map[string]string{}
	err := r.thread.do(func() error {
		if err := h.enter(); err != nil {
			return err
		}
		return r.collect(h, files)
	})
	return files, err
}

func (r *Run) collect(h *host, files map[string]string) error {
	commands := collectors(h.backend)
	if h.balances() {
		commands = append(commands, serviceFiles()...)
	}
	for _, c := range commands {
		if h.spare(c.file) {
			continue
		}
		out, err := tool(r.ctx, "", strings.Fields(c.command)...)
		if err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		files[c.file] = h.withoutOurs(c.file, out)
	}
	err := r.collectIP(h, files)
	if err != nil {
		return err
	}
	if files["sysctl"], err = readSysctls(); err != nil {
		return err
	}
	if files["ip-link.json"], err = withoutTaps(files["ip-link.json"]); err != nil {
		return err
	}
	if text, ok := files["nft.json"]; ok {
		if files["nft.json"], err = withoutProbes(text); err != nil {
			return err
		}
	}
	files["meta.json"], err = h.collectMeta()
	return err
}

// spare reports whether a file need not be asked for: nothing put it there.
func (h *host) spare(file string) bool {
	switch file {
	case "ipset-save", "conntrack", "ip-neigh-proxy.json", "ip-nexthop.json", "sockets":
		return strings.TrimSpace(h.Files[file]) == ""
	case "nft.json":
		return h.backend != NFT
	}
	return false
}

// collectMeta adds kernel and time to the host's own meta.json.
func (h *host) collectMeta() (string, error) {
	all := map[string]any{}
	if text := h.Files["meta.json"]; text != "" {
		if err := json.Unmarshal([]byte(text), &all); err != nil {
			return "", err
		}
	}
	release, err := Release()
	if err != nil {
		return "", err
	}
	all["host"] = h.Name
	all["kernel"] = release
	all["time"] = time.Now().UTC().Format(time.RFC3339Nano)
	out, err := json.Marshal(all)
	return string(out), err
}

// withoutTaps takes linkinfo off TAP devices, which stand for network cards.
func withoutTaps(text string) (string, error) {
	var links []map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &links); err != nil {
		return "", fmt.Errorf("ip -j link: %w", err)
	}
	for _, l := range links {
		if bytes.Contains(l["linkinfo"], []byte(`"type":"tap"`)) &&
			!bytes.Contains(l["linkinfo"], []byte("info_slave")) {
			delete(l, "linkinfo")
		}
	}
	out, err := json.Marshal(links)
	return string(out), err
}

// withoutProbes takes our table off nft -j list ruleset.
func withoutProbes(text string) (string, error) {
	var all struct {
		Objects []map[string]json.RawMessage `json:"nftables"`
	}
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		return "", fmt.Errorf("nft -j: %w", err)
	}
	all.Objects = slices.DeleteFunc(all.Objects, func(o map[string]json.RawMessage) bool {
		for _, body := range o {
			var v struct {
				Name, Table string
			}
			if json.Unmarshal(body, &v) == nil && (v.Name == probeTable || v.Table == probeTable) {
				return true
			}
		}
		return false
	})
	out, err := json.Marshal(all)
	return string(out), err
}

// aside are the settings that do not decide packets, and cost time to read.
func aside(path string) bool {
	for _, part := range []string{"/neigh/", "/ipv4/tcp_", "/ipv4/udp_"} {
		if strings.Contains(path, part) && !strings.HasSuffix(path, "/retrans_time_ms") {
			return true
		}
	}
	return false
}

// readSysctls prints the calling thread's settings as sysctl -a does, those of
// TCP's congestion control and of neighbours' ages left out.
func readSysctls() (string, error) {
	var b strings.Builder
	for _, dir := range []string{"bridge", "ipv4", "netfilter"} {
		root := "/proc/sys/net/" + dir
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || aside(path) {
				return err
			}
			value, err := os.ReadFile(path)
			if err != nil {
				return nil // some can only be written
			}
			key := sysctlPath(strings.TrimPrefix(path, "/proc/sys/"))
			for line := range strings.Lines(string(value)) {
				fmt.Fprintf(&b, "%s = %s\n", key, strings.TrimRight(line, "\n"))
			}
			return nil
		})
		if err != nil && !os.IsNotExist(err) {
			return "", fmt.Errorf("read sysctls: %w", err)
		}
	}
	return b.String(), nil
}
