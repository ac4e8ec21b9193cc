package snapshot

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Build is a lab as commands for a machine: each is a program and its arguments, no shell.
type Build struct {
	// Spaces are the network namespaces, one a host and one for the switches.
	Spaces []string
	// Up makes them in order. The first len(Spaces) commands make the namespaces.
	Up [][]string
	// Down removes the namespaces, and with them all that is in them.
	Down [][]string
	// Notes say what commands cannot do: who listens.
	Notes []string
}

// Build lists the commands that make a lab real, in namespaces whose names begin with
// prefix. A host that is a snapshot is an error: it was taken, not described.
func (l *Lab) Build(prefix string) (*Build, error) {
	b := &labBuilder{l: l, prefix: prefix}
	for _, name := range slices.Sorted(maps.Keys(l.Hosts)) {
		if l.Hosts[name].Snapshot != "" {
			return nil, fmt.Errorf("hosts: %s: it is a snapshot, which can't be built", name)
		}
		b.space(name)
	}
	if len(l.Switches) > 0 {
		b.space(switchSpace)
	}
	b.nets()
	for _, name := range slices.Sorted(maps.Keys(l.Hosts)) {
		if err := b.host(name, l.Hosts[name]); err != nil {
			return nil, fmt.Errorf("hosts: %s: %w", name, err)
		}
	}
	return &b.Build, nil
}

// switchSpace is the namespace of the switches; no host can have the name.
const switchSpace = "_switches"

type labBuilder struct {
	Build
	l      *Lab
	prefix string
	ports  int
}

func (b *labBuilder) add(words ...string) { b.Up = append(b.Up, words) }

// in adds an ip command for a namespace.
func (b *labBuilder) in(space string, words ...string) {
	b.add(append([]string{"ip", "-n", b.prefix + space}, words...)...)
}

func (b *labBuilder) space(name string) {
	b.Spaces = append(b.Spaces, b.prefix+name)
	b.add("ip", "netns", "add", b.prefix+name)
	b.Down = append(b.Down, []string{"ip", "netns", "del", b.prefix + name})
}

// nets makes the cables, the switches and the interfaces at their ends.
func (b *labBuilder) nets() {
	for _, n := range b.l.Nets() {
		switch {
		case n.Name == "outside":
			for _, p := range n.Ports {
				host, dev, _ := strings.Cut(p, ":")
				b.in(host, "link", "add", dev, "type", "dummy")
			}
		case n.Switch == "" && len(n.Ports) == 2:
			host, dev, _ := strings.Cut(n.Ports[0], ":")
			peer, far, _ := strings.Cut(n.Ports[1], ":")
			b.in(host, "link", "add", dev, "type", "veth", "peer", "name", far, "netns", b.prefix+peer)
		default:
			b.bridge(n)
		}
	}
}

// bridge joins the ports of a switch, or of a link with more than two ends.
func (b *labBuilder) bridge(n Net) {
	b.ports++
	bridge := fmt.Sprintf("br%d", b.ports)
	b.in(switchSpace, "link", "add", bridge, "type", "bridge")
	b.in(switchSpace, "link", "set", bridge, "up")
	for _, p := range n.Ports {
		host, dev, _ := strings.Cut(p, ":")
		b.ports++
		port := fmt.Sprintf("p%d", b.ports)
		b.in(host, "link", "add", dev, "type", "veth", "peer", "name", port, "netns",
			b.prefix+switchSpace)
		b.in(switchSpace, "link", "set", port, "master", bridge, "up")
	}
}

// quietSettings are what a lab's hosts begin with: a new namespace has those of the machine.
var quietSettings = []string{"net.ipv4.ip_forward=0", "net.ipv4.conf.all.rp_filter=0",
	"net.ipv4.conf.default.rp_filter=0"}

func (b *labBuilder) host(name string, h *LabHost) error {
	exec := []string{"ip", "netns", "exec", b.prefix + name}
	for _, s := range quietSettings {
		b.add(append(slices.Clone(exec), "sysctl", "-qw", s)...)
	}
	b.in(name, "link", "set", "lo", "up")
	for i, dev := range b.l.interfaces(name) {
		b.in(name, "link", "set", dev, "address", b.l.MAC(name, i+2), "up")
		b.add(append(slices.Clone(exec), "sysctl", "-qw",
			"net/ipv4/conf/"+dev+"/rp_filter=0")...)
	}
	for _, dev := range slices.Sorted(maps.Keys(h.Devices)) {
		if kind := h.Devices[dev]; kind != "ipip" || dev != "tunl0" { // the kernel makes tunl0
			b.in(name, "link", "add", dev, "type", kind)
		}
		b.in(name, "link", "set", dev, "up")
	}
	for _, dev := range slices.Sorted(maps.Keys(h.Addresses)) {
		for _, a := range strings.Fields(h.Addresses[dev]) {
			b.in(name, "addr", "add", a, "dev", dev)
		}
	}
	for _, c := range h.Commands {
		for _, cmd := range splitCommands(c) {
			w, err := labWords(cmd)
			if err != nil {
				return err
			}
			b.add(append(slices.Clone(exec), w...)...)
		}
	}
	for _, s := range h.Listen {
		b.Notes = append(b.Notes, fmt.Sprintf("%s listens on %s: start a program there yourself", name, s))
	}
	return nil
}

// labWords are the words of a command of a lab. Only settings of the network are taken:
// others belong to the whole machine.
func labWords(cmd string) ([]string, error) {
	var out []string
	quoted, open := false, false
	for i := range len(cmd) {
		switch c := cmd[i]; {
		case c == '"':
			quoted = !quoted
			if !open {
				out, open = append(out, ""), true
			}
		case c == ' ' && !quoted:
			open = false
		default:
			if !open {
				out, open = append(out, ""), true
			}
			out[len(out)-1] += string(c)
		}
	}
	if quoted {
		return nil, fmt.Errorf("%q: a quote is not closed", cmd)
	}
	known := []string{"ip", "sysctl", "iptables", "iptables-legacy", "iptables-nft", "ipvsadm"}
	if len(out) == 0 || !slices.Contains(known, out[0]) {
		return nil, fmt.Errorf("%q: one of %s was expected", cmd, strings.Join(known, ", "))
	}
	if out[0] == "sysctl" {
		for _, w := range out[1:] {
			if !strings.HasPrefix(w, "-") && !strings.HasPrefix(w, "net.") && !strings.HasPrefix(w, "net/") {
				return nil, fmt.Errorf("%q: %s is not a setting of the network", cmd, w)
			}
		}
	}
	return out, nil
}
