package snapshot

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
)

// linkFlags are the flags that ip prints between angle brackets.
var linkFlags = map[string]link.Flags{
	"UP": link.Up, "BROADCAST": link.Broadcast, "LOOPBACK": link.LoopbackFlag,
	"POINTOPOINT": link.PointToPoint, "NOARP": link.NoARP, "PROMISC": link.Promisc,
	"ALLMULTI": link.AllMulti, "MASTER": link.Master, "SLAVE": link.Slave,
	"MULTICAST": link.Multicast, "LOWER_UP": link.LowerUp,
	// Those below change nothing on a packet's way.
	"NO-CARRIER": 0, "M-DOWN": 0, "DORMANT": 0, "ECHO": 0, "DYNAMIC": 0, "PORTSEL": 0,
	"AUTOMEDIA": 0, "DEBUG": 0, "NOTRAILERS": 0, "RUNNING": 0,
}

// linkKeys are the keys of `ip -d -j link` that are read.
var linkKeys = map[string]string{"ifindex": "", "ifname": "", "flags": "", "mtu": "",
	"master": "", "group": "", "link_type": "", "address": "", "broadcast": "", "linkinfo": "",
	"link": "", "link_index": "", "link_netnsid": "", "altnames": "", "addr_info": ""}

// linkIgnored are keys that do not change where a packet goes, with the reason.
var linkIgnored = map[string]string{
	"qdisc": "foreign/ says what queues do", "operstate": "flags say it", "linkmode": "a label",
	"txqlen": "queueing", "promiscuity": "flags say it", "allmulti": "flags say it",
	"min_mtu": "a limit", "max_mtu": "a limit", "inet6_addr_gen_mode": "IPv6",
	"num_tx_queues": "queueing", "num_rx_queues": "queueing", "gso_max_size": "offload",
	"gso_max_segs": "offload", "tso_max_size": "offload", "tso_max_segs": "offload",
	"gro_max_size": "offload", "gso_ipv4_max_size": "offload", "gro_ipv4_max_size": "offload",
	"ifalias": "a label", "phys_port_name": "hardware", "phys_port_id": "hardware",
	"phys_switch_id": "hardware", "parentbus": "hardware", "parentdev": "hardware",
	"permaddr": "hardware", "proto_down": "flags say it", "proto_down_reason": "a label",
	"stats": "counters", "stats64": "counters", "vfinfo_list": "hardware", "num_vf": "hardware",
	"vf": "hardware", "carrier_changes": "counters", "carrier_up_count": "counters",
	"carrier_down_count": "counters", "new_ifindex": "an event", "new_netnsid": "an event",
	"event": "an event", "link_pointtopoint": "the other end's address", "xdp": "foreign/ says it",
	"headroom": "buffers", "tailroom": "buffers", "max_pacing_offload_horizon": "queueing",
	"netns-immutable": "a limit", "deleted": "an event", "netns": "a label", "port_id": "hardware",
	"inet6_token": "IPv6",
}

// parseIPLink reads `ip -d -j link`, or the text of `ip link`. Of `ip addr` the
// links alone are read.
func parseIPLink(file string, data []byte) ([]link.Link, error) {
	if isJSON(data) {
		links, _, err := linksJSON(file, data)
		return links, err
	}
	links, _, err := linksText(file, data)
	return links, err
}

// lowerName is a link whose other device is known by name only.
type lowerName struct {
	i             int
	lower, master string
}

// connect finds the devices that links name.
func connect(links []link.Link, names []lowerName) {
	byName := map[string]packet.Dev{}
	for i := range links {
		byName[links[i].Name] = links[i].Index
	}
	for _, n := range names {
		l := &links[n.i]
		l.Master = byName[n.master]
		if dev := byName[n.lower]; l.Kind == "veth" || l.Kind == "" {
			l.Peer = dev
		} else {
			l.Lower = dev
		}
	}
}

func linksJSON(file string, data []byte) ([]link.Link, []link.Addr, error) {
	objs, err := jsonObjects(file, data)
	if err != nil {
		return nil, nil, err
	}
	var links []link.Link
	var addrs []link.Addr
	var names []lowerName
	for i := range objs {
		o := &objs[i]
		l, err := linkJSON(o)
		if err != nil {
			return nil, nil, err
		}
		names = append(names, lowerName{len(links), o.str("link"), o.str("master")})
		links = append(links, l)
		as, err := addrsJSON(o, l.Index)
		if err != nil {
			return nil, nil, err
		}
		addrs = append(addrs, as...)
	}
	connect(links, names)
	return links, addrs, nil
}

func linkJSON(o *object) (link.Link, error) {
	var l link.Link
	if err := o.known(linkKeys, linkIgnored); err != nil {
		return l, err
	}
	var index, mtu uint64
	var flags []string
	for _, err := range []error{o.num("ifindex", 31, &index), o.num("mtu", 32, &mtu),
		o.get("flags", &flags), o.get("altnames", &l.AltNames)} {
		if err != nil {
			return l, err
		}
	}
	l.Index, l.Name, l.MTU = packet.Dev(index), o.str("ifname"), int(mtu)
	if l.Index == 0 || l.Name == "" {
		return l, o.errorf("a link needs ifindex and ifname")
	}
	if err := setFlags(&l, o.place, flags); err != nil {
		return l, err
	}
	if err := setGroup(&l, o.place, o.str("group")); err != nil {
		return l, err
	}
	setType(&l, o.str("link_type"), o.str("address"), o.str("broadcast"))
	return l, kindJSON(o, &l)
}

func kindJSON(o *object, l *link.Link) error {
	var info struct {
		Kind string `json:"info_kind"`
		Data struct {
			Table  *uint64 `json:"table"`
			ID     *uint64 `json:"id"`
			Local  string  `json:"local"`
			Remote string  `json:"remote"`
		} `json:"info_data"`
	}
	if err := o.get("linkinfo", &info); err != nil {
		return err
	}
	l.Kind = info.Kind
	switch l.Kind {
	case "vrf":
		if info.Data.Table == nil || *info.Data.Table > 1<<32-1 {
			return o.errorf("vrf %s: table is missing", l.Name)
		}
		l.Table = uint32(*info.Data.Table)
	case "vlan":
		if info.Data.ID == nil || *info.Data.ID > 4095 {
			return o.errorf("vlan %s: id is missing", l.Name)
		}
		l.VLAN = uint16(*info.Data.ID)
	case "ipip":
		l.TunnelLocal, l.TunnelRemote = tunnelEnd(info.Data.Local), tunnelEnd(info.Data.Remote)
	}
	return nil
}

// tunnelEnd is an end of a tunnel, zero for "any".
func tunnelEnd(s string) packet.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return packet.Addr{}
	}
	return packet.AddrFrom(a)
}

func setFlags(l *link.Link, p place, flags []string) error {
	for _, f := range flags {
		bit, ok := linkFlags[f]
		if n, err := strconv.ParseUint(f, 16, 32); err == nil && !ok {
			bit, ok = link.Flags(n), true // ip prints bits without a name so
		}
		if !ok {
			return p.unsupported("link "+l.Name+": flag "+strconv.Quote(f), "")
		}
		l.Flags |= bit
	}
	return nil
}

func setGroup(l *link.Link, p place, group string) error {
	if group == "" || group == "default" {
		return nil
	}
	n, err := strconv.ParseUint(group, 0, 32)
	if err != nil {
		return p.errorf("link %s: group %q: its number is not known", l.Name, group)
	}
	l.Group = uint32(n)
	return nil
}

func setType(l *link.Link, kind, mac, bcast string) {
	// What is not an Ethernet address is none.
	l.MAC, _ = packet.ParseMAC(mac)
	l.Bcast, _ = packet.ParseMAC(bcast)
	l.NoHeader = kind != "ether" && kind != "loopback" && kind != ""
}

// linksText reads the text of `ip link` and `ip addr`, one-line forms too.
func linksText(file string, data []byte) ([]link.Link, []link.Addr, error) {
	r := linkReader{byIndex: map[packet.Dev]int{}, cur: -1}
	if err := textLines(file, data, r.line); err != nil {
		return nil, nil, err
	}
	connect(r.links, r.names)
	return r.links, r.addrs, nil
}

// linkReader is the state of reading text.
type linkReader struct {
	links   []link.Link
	addrs   []link.Addr
	names   []lowerName
	byIndex map[packet.Dev]int
	cur     int // the link that indented lines belong to
}

func (r *linkReader) line(p place, line string) error {
	w := &wordList{p, strings.Fields(line)}
	if !indented(line) {
		return r.head(w)
	}
	if r.cur < 0 {
		return p.errorf("%q stands before the first interface", w.peek())
	}
	return r.detail(w)
}

// head reads "2: eth0@if5: <FLAGS> mtu ..." or "2: eth0    inet ...".
func (r *linkReader) head(w *wordList) error {
	num, ok := strings.CutSuffix(w.next(), ":")
	index, err := strconv.ParseUint(num, 10, 31)
	if !ok || err != nil || index == 0 {
		return w.errorf("%q is not an interface's number", num)
	}
	name, lower, _ := strings.Cut(strings.TrimSuffix(w.next(), ":"), "@")
	if name == "" {
		return w.errorf("interface %d has no name", index)
	}
	i, seen := r.byIndex[packet.Dev(index)]
	if !seen {
		i = len(r.links)
		r.byIndex[packet.Dev(index)] = i
		// `ip -o addr` says no more of a link than its name.
		l := link.Link{Index: packet.Dev(index), Name: name, MTU: 1500, Flags: assumedFlags(name)}
		r.links = append(r.links, l)
		r.names = append(r.names, lowerName{i: i, lower: lower})
	}
	r.cur = i
	if strings.HasPrefix(w.peek(), "<") {
		return r.attributes(w)
	}
	return r.detail(w)
}

func assumedFlags(name string) link.Flags {
	if name == "lo" {
		return link.Up | link.LowerUp | link.LoopbackFlag
	}
	return link.Up | link.LowerUp | link.Broadcast | link.Multicast
}

// attributes reads what follows a link's name.
func (r *linkReader) attributes(w *wordList) error {
	l := &r.links[r.cur]
	l.Flags = 0
	flags := strings.Trim(w.next(), "<>")
	if flags != "" {
		if err := setFlags(l, w.place, strings.Split(flags, ",")); err != nil {
			return err
		}
	}
	for !w.empty() {
		key := w.next()
		val := w.next()
		switch key {
		case "mtu":
			n, err := strconv.ParseUint(val, 10, 31)
			if err != nil {
				return w.errorf("mtu: %q is not a number", val)
			}
			l.MTU = int(n)
		case "master":
			r.names[r.cur].master = val
		case "group":
			if err := setGroup(l, w.place, val); err != nil {
				return err
			}
		}
	}
	return nil
}

// detail reads an indented line.
func (r *linkReader) detail(w *wordList) error {
	l := &r.links[r.cur]
	first := w.next()
	switch {
	case strings.HasPrefix(first, "link/"):
		mac, brd := w.peek(), ""
		for i, s := range w.words {
			if s == "brd" && i+1 < len(w.words) {
				brd = w.words[i+1]
			}
		}
		setType(l, strings.TrimPrefix(first, "link/"), mac, brd)
	case first == "altname":
		l.AltNames = append(l.AltNames, w.next())
	case first == "inet":
		a, err := addrText(w, l.Index)
		if err != nil {
			return err
		}
		r.addrs = append(r.addrs, a)
	case linkKinds[first]:
		return kindText(w, l, first)
	}
	return nil
}

// linkKinds are the kinds that `ip -d link` names at the start of a line.
var linkKinds = map[string]bool{"veth": true, "bridge": true, "vlan": true, "vrf": true,
	"dummy": true, "tun": true, "ipip": true, "gre": true, "gretap": true, "vxlan": true,
	"geneve": true, "macvlan": true, "macvtap": true, "ipvlan": true, "bond": true, "team": true,
	"ifb": true, "wireguard": true, "sit": true, "vti": true, "xfrm": true, "vcan": true,
	"netdevsim": true, "ip6tnl": true, "ip6gre": true, "erspan": true, "nlmon": true,
	"openvswitch": true}

// kindText reads what `ip -d link` says of a kind.
func kindText(w *wordList, l *link.Link, kind string) error {
	l.Kind = kind
	for !w.empty() {
		key := w.next()
		switch {
		case kind == "vrf" && key == "table":
			n, err := w.number("vrf table", 32)
			if err != nil {
				return err
			}
			l.Table = uint32(n)
		case kind == "vlan" && key == "id":
			n, err := w.number("vlan id", 12)
			if err != nil {
				return err
			}
			l.VLAN = uint16(n)
		}
	}
	return nil
}
