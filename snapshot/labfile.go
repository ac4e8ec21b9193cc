package snapshot

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/hookpath/hookpath/walk"
)

// LabFile is the name of the file that describes a lab.
const LabFile = "lab.yaml"

// Lab is lab.yaml: hosts and what lies between them.
type Lab struct {
	Title  string `json:"title,omitempty"`
	About  string `json:"about,omitempty"`
	Ask    string `json:"ask,omitempty"`    // a sentence: the question that comes to mind
	Kernel string `json:"kernel,omitempty"` // of every host that does not say
	// Hosts by name.
	Hosts map[string]*LabHost `json:"hosts"`
	// Links are cables: two of "host:interface".
	Links [][]string `json:"links,omitempty"`
	// Switches by name, each with its ports.
	Switches map[string][]string `json:"switches,omitempty"`
	// Outside are interfaces on links that leave the lab.
	Outside []string `json:"outside,omitempty"`
}

// LabHost is a host of a lab: a snapshot, or interfaces, addresses and commands, or a
// snapshot on which commands are typed.
type LabHost struct {
	Snapshot string `json:"snapshot,omitempty"` // a directory beside lab.yaml
	Kernel   string `json:"kernel,omitempty"`
	// Devices are interfaces without a cable: name and kind (dummy, ipip).
	Devices map[string]string `json:"devices,omitempty"`
	// Addresses by interface; several stand side by side.
	Addresses map[string]string `json:"addresses,omitempty"`
	// Listen are sockets: "tcp 0.0.0.0:80".
	Listen []string `json:"listen,omitempty"`
	// Commands are typed in order: ip rule, ip route, ip addr, sysctl -w, iptables,
	// ipvsadm.
	Commands []string `json:"commands,omitempty"`
}

// Bounds of a lab.
const (
	maxLabFile     = 1 << 20 // bytes
	maxLabHosts    = 250
	maxLabPorts    = 200
	maxLabCommands = 2000 // of one host: a large one is a snapshot
)

// ParseLab reads lab.yaml. A key that it does not have is an error.
func ParseLab(file string, data []byte) (*Lab, error) {
	if len(data) > maxLabFile {
		return nil, fmt.Errorf("%s: more than %d bytes: large hosts belong into snapshots beside it", file,
			maxLabFile)
	}
	var l Lab
	if err := yaml.UnmarshalStrict(data, &l); err != nil {
		return nil, fmt.Errorf("%s: %s", file, plainYAML(err))
	}
	if len(l.Hosts) == 0 {
		return nil, fmt.Errorf("%s: hosts: a lab needs at least one", file)
	}
	if len(l.Hosts) > maxLabHosts {
		return nil, fmt.Errorf("%s: hosts: more than %d", file, maxLabHosts)
	}
	if err := l.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &l, nil
}

// plainYAML takes the words out of an error that only the library's users need.
func plainYAML(err error) string {
	s := err.Error()
	for _, cut := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ",
		"while decoding JSON: ", "json: "} {
		s = strings.ReplaceAll(s, cut, "")
	}
	return strings.ReplaceAll(s, "Go struct field ", "")
}

var (
	hostPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	devPattern  = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,15}$`)
)

// deviceKinds are the kinds of interface that a lab can make.
var deviceKinds = []string{"dummy", "ipip"}

func (l *Lab) check() error {
	for name, h := range l.Hosts {
		if !hostPattern.MatchString(name) {
			return fmt.Errorf("hosts: %q can't be the name of a host", name)
		}
		if h == nil {
			l.Hosts[name] = &LabHost{}
			continue
		}
		if len(h.Commands) > maxLabCommands {
			return fmt.Errorf("hosts: %s: commands: more than %d: make it a snapshot", name, maxLabCommands)
		}
		for dev, kind := range h.Devices {
			if !devPattern.MatchString(dev) || !slices.Contains(deviceKinds, kind) {
				return fmt.Errorf("hosts: %s: devices: %s: %s is not one of %s", name, dev, kind,
					strings.Join(deviceKinds, ", "))
			}
		}
	}
	seen := map[string]string{}
	for _, n := range l.Nets() {
		if len(n.Ports) < n.least {
			return fmt.Errorf("%s: expected at least %d of HOST:INTERFACE", n.Name, n.least)
		}
		for _, p := range n.Ports {
			host, dev, ok := strings.Cut(p, ":")
			if !ok || l.Hosts[host] == nil || !devPattern.MatchString(dev) {
				return fmt.Errorf("%s: %q is not HOST:INTERFACE of a host above", n.Name, p)
			}
			if other := seen[p]; other != "" {
				return fmt.Errorf("%s: %s is on %s already", n.Name, p, other)
			}
			seen[p] = n.Name
		}
	}
	return nil
}

// Net is a cable, a switch or the outside, with its ports.
type Net struct {
	Name   string // "links 1", "switches lan", "outside"
	Switch string // its name, empty for a cable
	Ports  []string
	least  int
}

// Nets lists what interfaces are on: the cables in their order, the switches by name, and
// the outside.
func (l *Lab) Nets() []Net {
	var out []Net
	for i, ends := range l.Links {
		out = append(out, Net{Name: "links " + strconv.Itoa(i+1), Ports: ends, least: 2})
	}
	for _, name := range slices.Sorted(maps.Keys(l.Switches)) {
		out = append(out, Net{"switches " + name, name, l.Switches[name], 1})
	}
	return append(out, Net{Name: "outside", Ports: l.Outside})
}

// cables are the far ends of a host's interfaces.
func (l *Lab) cables(host string) map[string][]walk.Peer {
	out := map[string][]walk.Peer{}
	for _, n := range l.Nets() {
		for _, p := range n.Ports {
			dev, mine := strings.CutPrefix(p, host+":")
			if !mine || n.Name == "outside" {
				continue
			}
			for _, q := range n.Ports {
				if h, d, _ := strings.Cut(q, ":"); q != p {
					out[dev] = append(out[dev], walk.Peer{Host: h, Dev: d})
				}
			}
		}
	}
	return out
}

// interfaces are those of a host that lie on a cable, in the order of their names.
func (l *Lab) interfaces(host string) []string {
	var out []string
	for _, n := range l.Nets() {
		for _, p := range n.Ports {
			if dev, ok := strings.CutPrefix(p, host+":"); ok {
				out = append(out, dev)
			}
		}
	}
	slices.Sort(out)
	return out
}

// MAC is the address of an interface of a host: the lab numbers both.
func (l *Lab) MAC(host string, index int) string {
	n, _ := slices.BinarySearch(slices.Sorted(maps.Keys(l.Hosts)), host)
	return fmt.Sprintf("02:00:00:00:%02x:%02x", n+1, index)
}

// lab makes the snapshots of a lab's hosts.
func (c *collector) lab(byDir map[string]*Dir) ([]*Dir, error) {
	file := c.name + "/" + LabFile
	l, err := ParseLab(file, c.files[LabFile])
	if err != nil {
		return nil, err
	}
	var out []*Dir
	for _, name := range slices.Sorted(maps.Keys(l.Hosts)) {
		h := l.Hosts[name]
		d := &Dir{Name: name}
		switch {
		case h.Snapshot == "":
			d.Files, err = l.files(name, h)
		case byDir[path.Clean(h.Snapshot)] == nil:
			err = fmt.Errorf("snapshot: there is no snapshot in %q", h.Snapshot)
		default:
			d, err = h.onSnapshot(byDir[path.Clean(h.Snapshot)])
		}
		if err != nil {
			return nil, fmt.Errorf("%s: hosts: %s: %w", file, name, err)
		}
		d.Name, d.Lab, d.Cables, d.at = name, l, l.cables(name), file+": hosts: "+name
		d.Setup = h.setup()
		out = append(out, d)
	}
	return out, nil
}

// onSnapshot is a host that lies in a directory: interfaces are there.
func (h *LabHost) onSnapshot(d *Dir) (*Dir, error) {
	if len(h.Devices)+len(h.Addresses)+len(h.Listen) > 0 || h.Kernel != "" {
		return nil, fmt.Errorf("snapshot: kernel, devices, addresses and listen come from its files")
	}
	out := *d
	return &out, nil
}

// setup are the commands that make a host what it is.
func (h *LabHost) setup() []string {
	var out []string
	for _, dev := range slices.Sorted(maps.Keys(h.Addresses)) {
		for _, a := range strings.Fields(h.Addresses[dev]) {
			out = append(out, "ip addr add "+a+" dev "+dev)
		}
	}
	for _, c := range h.Commands {
		if !isIPVSAdm(c) {
			out = append(out, c)
		}
	}
	return out
}

func isIPVSAdm(cmd string) bool { return strings.HasPrefix(strings.TrimSpace(cmd), "ipvsadm ") }

// loFiles are what a new network namespace has, with lo up.
var loFiles = map[string]string{
	"ip-addr.json": `[{"ifindex":1,"ifname":"lo","addr_info":[{"family":"inet","local":"127.0.0.1",` +
		`"prefixlen":8,"scope":"host","label":"lo"}]}]`,
	"ip-route": "local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1\n" +
		"local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1\n" +
		"broadcast 127.255.255.255 dev lo table local proto kernel scope link src 127.0.0.1\n",
	"ip-neigh.json": "[]",
	"ip-rule.json": "0: from all lookup local\n32766: from all lookup main\n" +
		"32767: from all lookup default\n",
	"sysctl":               "net.ipv4.ip_forward = 0\n",
	"iptables-legacy-save": "",
}

// files are what the tools would print of a host that lab.yaml describes, before its
// commands are typed.
func (l *Lab) files(name string, h *LabHost) (map[string][]byte, error) {
	kernel := h.Kernel
	if kernel == "" {
		kernel = l.Kernel
	}
	meta, err := json.Marshal(Meta{Host: name, Kernel: kernel})
	if err != nil {
		return nil, err
	}
	links, err := l.ipLink(name, h)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{"meta.json": meta, "ip-link.json": links, "sockets": h.sockets()}
	for k, v := range loFiles {
		out[k] = []byte(v)
	}
	var ipvs []string
	for _, c := range h.Commands {
		if isIPVSAdm(c) {
			ipvs = append(ipvs, c)
		}
	}
	if len(ipvs) > 0 {
		out["ipvsadm-save"] = []byte(strings.Join(ipvs, "\n") + "\n")
	}
	return out, nil
}

// labLink is an interface as ip -j -d link prints it.
type labLink struct {
	Index int       `json:"ifindex"`
	Name  string    `json:"ifname"`
	Flags []string  `json:"flags"`
	MTU   int       `json:"mtu"`
	Type  string    `json:"link_type"`
	MAC   string    `json:"address"`
	Info  *linkInfo `json:"linkinfo,omitempty"`
}

type linkInfo struct {
	Kind string `json:"info_kind"`
}

// ipLink lists the interfaces: lo, those on cables, and the others.
func (l *Lab) ipLink(name string, h *LabHost) ([]byte, error) {
	up := []string{"BROADCAST", "MULTICAST", "UP", "LOWER_UP"}
	out := []labLink{{1, "lo", []string{"LOOPBACK", "UP", "LOWER_UP"}, 65536, "loopback",
		"00:00:00:00:00:00", nil}}
	for _, dev := range l.interfaces(name) {
		i := len(out) + 1
		out = append(out, labLink{i, dev, up, 1500, "ether", l.MAC(name, i),
			&linkInfo{"veth"}})
	}
	for _, dev := range slices.Sorted(maps.Keys(h.Devices)) {
		i, kind := len(out)+1, h.Devices[dev]
		n := labLink{i, dev, []string{"BROADCAST", "NOARP", "UP", "LOWER_UP"}, 1500, "ether",
			l.MAC(name, i), &linkInfo{kind}}
		if kind == "ipip" {
			n.Flags, n.MTU, n.Type, n.MAC = n.Flags[1:], 1480, "ipip", "0.0.0.0"
		}
		out = append(out, n)
	}
	if len(out) > maxLabPorts {
		return nil, fmt.Errorf("more than %d interfaces", maxLabPorts)
	}
	return json.Marshal(out)
}

// sockets are the listening ones as ss prints them.
func (h *LabHost) sockets() []byte {
	var b []byte
	for i, s := range h.Listen {
		proto, at, _ := strings.Cut(strings.TrimSpace(s), " ")
		state, peer := "LISTEN", "0.0.0.0:*"
		if proto == "udp" {
			state = "UNCONN"
		}
		b = fmt.Appendf(b, "%s %s 0 128 %s %s ino:%d sk:%d cgroup:/ <->\n", proto, state,
			strings.TrimSpace(at), peer, i+1, i+1)
	}
	return b
}
