package snapshot

import (
	"encoding/json"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
)

// parseIPAddr reads `ip -d -j addr`, or the text of `ip addr`: the addresses in
// the kernel's order, and the links that it shows.
func parseIPAddr(file string, data []byte) ([]link.Addr, []link.Link, error) {
	if isJSON(data) {
		links, addrs, err := linksJSON(file, data)
		return addrs, links, err
	}
	links, addrs, err := linksText(file, data)
	return addrs, links, err
}

// addrKeys are the keys of addr_info that are read.
var addrKeys = map[string]string{"family": "", "local": "", "address": "", "prefixlen": "",
	"broadcast": "", "scope": "", "secondary": "", "noprefixroute": "", "label": "", "metric": ""}

// addrIgnored are keys that do not change where a packet goes, with the reason.
var addrIgnored = map[string]string{
	"valid_life_time": "an expired address is not shown", "preferred_life_time": "IPv6",
	"dynamic": "a life time", "deprecated": "IPv6", "tentative": "IPv6", "dadfailed": "IPv6",
	"nodad": "IPv6", "optimistic": "IPv6", "home": "IPv6", "mngtmpaddr": "IPv6",
	"autojoin": "joins are in ip-maddr", "temporary": "IPv6", "protocol": "a label",
	"stable-privacy": "IPv6", "index": "the link says it", "ifa_flags": "bits without a name",
	"cacheinfo": "a life time", "netns": "a label", "deleted": "an event", "anycast": "IPv6",
}

// addrsJSON reads a link's addr_info. IPv6 addresses are read too.
func addrsJSON(o *object, dev packet.Dev) ([]link.Addr, error) {
	var list []map[string]json.RawMessage
	if err := o.get("addr_info", &list); err != nil {
		return nil, err
	}
	var out []link.Addr
	for _, keys := range list {
		if len(keys) == 0 {
			continue
		}
		a, err := addrJSON(&object{o.place, keys}, dev)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

func addrJSON(o *object, dev packet.Dev) (link.Addr, error) {
	a := link.Addr{Dev: dev, Label: o.str("label")}
	if err := o.known(addrKeys, addrIgnored); err != nil {
		return a, err
	}
	var bits, metric uint64
	for _, err := range []error{o.addr("local", &a.Local), o.addr("address", &a.Peer),
		o.addr("broadcast", &a.Broadcast), o.num("prefixlen", 8, &bits),
		o.num("metric", 32, &metric), o.get("secondary", &a.Secondary),
		o.get("noprefixroute", &a.NoPrefixRoute)} {
		if err != nil {
			return a, err
		}
	}
	a.PrefixLen, a.Metric = int(bits), uint32(metric)
	var ok bool
	if a.Scope, ok = link.ParseScope(o.str("scope")); !ok {
		return a, o.errorf("scope: %q is not a scope", o.str("scope"))
	}
	return checkAddr(o.place, a)
}

// addr reads a key that is an address.
func (o *object) addr(key string, into *packet.Addr) error {
	if !o.has(key) {
		return nil
	}
	p, ok := parsePrefix(o.str(key))
	if !ok || !p.IsSingleIP() {
		return o.errorf("%s: %q is not an address", key, o.str(key))
	}
	*into = packet.AddrFrom(p.Addr())
	return nil
}

func checkAddr(p place, a link.Addr) (link.Addr, error) {
	width := 128
	if a.Local.Is4() {
		width = 32
	}
	switch {
	case a.Local.IsZero():
		return a, p.errorf("an address lacks its local part")
	case a.PrefixLen > width:
		return a, p.errorf("address %s: prefix length %d", a.Local, a.PrefixLen)
	case !a.Peer.IsZero() && a.Peer.Is4() != a.Local.Is4():
		return a, p.errorf("address %s: peer %s is of another family", a.Local, a.Peer)
	}
	return a, nil
}

// addrText reads "10.0.0.1/24 brd 10.0.0.255 scope global secondary eth0" and
// "10.0.0.1 peer 10.0.0.2/32 scope global tun0".
func addrText(w *wordList, dev packet.Dev) (link.Addr, error) {
	a := link.Addr{Dev: dev}
	local, ok := parsePrefix(w.next())
	if !ok {
		return a, w.errorf("inet: not an address")
	}
	a.Local, a.PrefixLen = packet.AddrFrom(local.Addr()), local.Bits()
	if w.accept("peer") {
		peer, ok := parsePrefix(w.next())
		if !ok {
			return a, w.errorf("peer: not an address")
		}
		a.Peer, a.PrefixLen = packet.AddrFrom(peer.Addr()), peer.Bits()
	}
	for !w.empty() {
		if err := addrWord(w, &a); err != nil {
			return a, err
		}
	}
	return checkAddr(w.place, a)
}

func addrWord(w *wordList, a *link.Addr) (err error) {
	switch key := w.next(); key {
	case "brd":
		a.Broadcast, err = w.addr(key)
	case "any", "valid_lft", "preferred_lft", "proto":
		_, err = w.value(key)
	case "metric":
		var n uint64
		n, err = w.number(key, 32)
		a.Metric = uint32(n)
	case "scope":
		s, ok := link.ParseScope(w.next())
		if !ok {
			return w.errorf("scope: not a scope")
		}
		a.Scope = s
	case "secondary":
		a.Secondary = true
	case "noprefixroute":
		a.NoPrefixRoute = true
	case "dynamic", "deprecated", "tentative", "autojoin", "home", "nodad", "dadfailed",
		"mngtmpaddr", "stable-privacy", "optimistic", "temporary", "forever", "permanent":
	default:
		if !strings.HasSuffix(key, "sec") || !startsWithDigit(key) {
			a.Label = key
		}
	}
	return err
}

func startsWithDigit(s string) bool {
	_, err := strconv.Atoi(s[:1])
	return err == nil
}

// parseIPMaddr reads `ip -j maddr` or its text: the IPv4 groups that links have
// joined.
func parseIPMaddr(file string, data []byte) ([]link.Membership, error) {
	if isJSON(data) {
		return maddrJSON(file, data)
	}
	var out []link.Membership
	var dev packet.Dev
	err := textLines(file, data, func(p place, line string) error {
		w := &wordList{p, strings.Fields(line)}
		if !indented(line) {
			n, err := strconv.ParseUint(strings.TrimSuffix(w.next(), ":"), 10, 31)
			dev = packet.Dev(n)
			if err != nil {
				return p.errorf("not an interface's number: %w", err)
			}
			return nil
		}
		if !w.accept("inet") {
			return nil
		}
		group, err := w.addr("inet")
		out = append(out, link.Membership{Dev: dev, Group: group})
		return err
	})
	return out, err
}

func maddrJSON(file string, data []byte) ([]link.Membership, error) {
	objs, err := jsonObjects(file, data)
	if err != nil {
		return nil, err
	}
	var out []link.Membership
	for i := range objs {
		o := &objs[i]
		var index uint64
		var list []map[string]json.RawMessage
		for _, err := range []error{o.num("ifindex", 31, &index), o.get("maddr", &list)} {
			if err != nil {
				return nil, err
			}
		}
		for _, keys := range list {
			m := object{o.place, keys}
			if m.str("family") != "inet" {
				continue
			}
			var g packet.Addr
			if err := m.addr("address", &g); err != nil {
				return nil, err
			}
			out = append(out, link.Membership{Dev: packet.Dev(index), Group: g})
		}
	}
	return out, nil
}
