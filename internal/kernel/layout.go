package kernel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
)

// An UnsupportedError names a thing in a snapshot file that this back end
// cannot put into a kernel.
type UnsupportedError struct {
	Host, File, Thing string
	Why               string
}

// Error names host, file, thing and reason.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("%s/%s: %s: %s", e.Host, e.File, e.Thing, e.Why)
}

// ipLink is one element of ip -d -j link.
type ipLink struct {
	Index     int      `json:"ifindex"`
	Name      string   `json:"ifname"`
	Flags     []string `json:"flags"`
	MTU       int      `json:"mtu"`
	Master    string   `json:"master"`
	Group     string   `json:"group"`
	LinkType  string   `json:"link_type"`
	Address   string   `json:"address"`
	Broadcast string   `json:"broadcast"`
	Info      struct {
		Kind string          `json:"info_kind"`
		Data json.RawMessage `json:"info_data"`
	} `json:"linkinfo"`
}

func (l *ipLink) has(flag string) bool { return slices.Contains(l.Flags, flag) }

// ipAddr is one element of ip -d -j addr.
type ipAddr struct {
	Name  string `json:"ifname"`
	Infos []struct {
		Family    string `json:"family"`
		Local     string `json:"local"`
		Peer      string `json:"address"`
		Len       int    `json:"prefixlen"`
		Broadcast string `json:"broadcast"`
		Scope     string `json:"scope"`
		Label     string `json:"label"`
		Metric    int    `json:"metric"`
		NoRoute   bool   `json:"noprefixroute"`
	} `json:"addr_info"`
}

// ipNeigh is one element of ip -d -j neigh, or of ip -j neigh show proxy.
type ipNeigh struct {
	Dst    string   `json:"dst"`
	Dev    string   `json:"dev"`
	LLAddr string   `json:"lladdr"`
	State  []string `json:"state"`
}

// decode reads a JSON file of the snapshot. A file that is absent is empty.
func decode[T any](h *Host, file string) ([]T, error) {
	text := strings.TrimSpace(h.Files[file])
	if text == "" {
		return nil, nil
	}
	var out []T
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return nil, fmt.Errorf("%s/%s: %w", h.Name, file, err)
	}
	if err := oneLine([]byte(text)); err != nil {
		return nil, fmt.Errorf("%s/%s: %w", h.Name, file, err)
	}
	return out, nil
}

// oneLine reports strings of JSON that would not stay on one line of a batch: what
// follows a line end would be another command.
func oneLine(text []byte) error {
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if s, ok := token.(string); ok && strings.ContainsFunc(s, unicode.IsControl) {
			return fmt.Errorf("%q holds a control character", s)
		}
	}
}

// etherKinds are the kinds of device that send and receive plain Ethernet
// frames, so that a TAP device does as well. "" is a network card.
var etherKinds = []string{"", "veth", "dummy", "tun", "macvlan", "ipvlan", "virt_wifi", "ifb"}

// build says how a link is made: as TAP, as bridge, as a tunnel of any ends, not at all (lo).
func (l *ipLink) build(h *Host) (string, error) {
	switch {
	case l.Name == "lo" && l.Index == 1:
		return "lo", nil
	case l.Info.Kind == "bridge":
		return "bridge", nil
	case l.LinkType == "ether" && slices.Contains(etherKinds, l.Info.Kind):
		return "tap", nil
	case l.LinkType == "none" && l.Info.Kind == "tun":
		return "tun", nil
	case l.Info.Kind == "ipip":
		return "ipip", nil
	}
	return "", &UnsupportedError{h.Name, "ip-link.json", l.Name,
		fmt.Sprintf("cannot make a device of kind %q, type %q, index %d",
			l.Info.Kind, l.LinkType, l.Index)}
}

// batch collects the lines of one run of ip -batch.
type batch struct{ strings.Builder }

func (b *batch) line(words ...string) {
	b.WriteString(strings.Join(words, " "))
	b.WriteByte('\n')
}

// device appends what sets a link's properties, except up.
func (b *batch) device(l *ipLink, kind string) {
	if kind == "bridge" {
		b.line("link add name", l.Name, "index", fmt.Sprint(l.Index), "type bridge",
			bridgeOptions(l.Info.Data))
	}
	if kind == "ipip" {
		b.line("link add name", l.Name, "index", fmt.Sprint(l.Index), "type ipip")
	}
	b.WriteString("link set dev " + l.Name + " mtu " + fmt.Sprint(l.MTU))
	if kind == "tap" || kind == "bridge" {
		b.WriteString(" address " + l.Address)
		b.flag(l, "MULTICAST", "multicast on", "multicast off")
	}
	b.flag(l, "NOARP", "arp off", "arp on")
	if l.Group != "" && l.Group != "default" {
		b.WriteString(" group " + l.Group)
	}
	b.WriteByte('\n')
}

func (b *batch) flag(l *ipLink, name, yes, no string) {
	if l.has(name) {
		no = yes
	}
	b.WriteString(" " + no)
}

// bridgeOptions are those of a bridge's info_data that decide frames. STP is
// left off: nobody here would answer it.
func bridgeOptions(data json.RawMessage) string {
	all := map[string]any{}
	if len(data) > 0 && json.Unmarshal(data, &all) != nil {
		return ""
	}
	s := "forward_delay 0"
	for _, key := range []string{"nf_call_iptables", "nf_call_ip6tables", "nf_call_arptables",
		"vlan_filtering", "group_fwd_mask"} { // off by default; a kernel may lack them
		if v := jsonText(all[key]); v != "" && strings.Trim(v, "0x") != "" {
			s += " " + key + " " + v
		}
	}
	for _, key := range []string{"mcast_snooping", "ageing_time"} {
		if v := jsonText(all[key]); v != "" {
			s += " " + key + " " + v
		}
	}
	return s
}

// addresses appends the IPv4 (with six, also the IPv6) addresses, in the order
// of the listing, which decides who is secondary.
func (b *batch) addresses(addrs []ipAddr, six bool) {
	for _, dev := range addrs {
		for _, a := range dev.Infos {
			if a.Family == "inet6" && !six || a.Family != "inet" && a.Family != "inet6" {
				continue
			}
			b.WriteString("addr add " + a.Local)
			if a.Peer != "" {
				b.WriteString(" peer " + a.Peer)
			}
			fmt.Fprintf(b, "/%d", a.Len)
			b.option("broadcast", a.Broadcast)
			b.option("scope", a.Scope)
			if a.Label != dev.Name {
				b.option("label", a.Label)
			}
			b.WriteString(" dev " + dev.Name)
			if a.Metric != 0 {
				fmt.Fprintf(b, " metric %d", a.Metric)
			}
			if a.NoRoute {
				b.WriteString(" noprefixroute")
			}
			b.WriteByte('\n')
		}
	}
}

func (b *batch) option(name, value string) {
	if value != "" {
		b.WriteString(" " + name + " " + value)
	}
}

// neighbours appends what was resolved, as permanent entries: the clock of a
// run does not let them age. Unresolved ones are left out.
func (b *batch) neighbours(all, proxies []ipNeigh, six bool) {
	for _, n := range all {
		if n.LLAddr == "" || strings.Contains(n.Dst, ":") && !six ||
			slices.Contains(n.State, "FAILED") || slices.Contains(n.State, "INCOMPLETE") {
			continue
		}
		b.line("neigh replace", n.Dst, "lladdr", n.LLAddr, "dev", n.Dev, "nud permanent")
	}
	for _, n := range proxies {
		if !strings.Contains(n.Dst, ":") || six {
			b.line("neigh replace proxy", n.Dst, "dev", n.Dev)
		}
	}
}
