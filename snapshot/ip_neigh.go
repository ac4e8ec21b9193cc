package snapshot

import (
	"strings"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
)

// neighStates are the states that `ip neigh` prints.
var neighStates = map[string]link.NeighState{"INCOMPLETE": link.Incomplete,
	"REACHABLE": link.Reachable, "STALE": link.Stale, "DELAY": link.Delay, "PROBE": link.Probe,
	"FAILED": link.Failed, "NOARP": link.NoARPState, "PERMANENT": link.Permanent,
	"NONE": link.NoState}

// neighKeys are the keys of `ip -d -j neigh` that are read.
var neighKeys = map[string]string{"dst": "", "dev": "", "lladdr": "", "state": "", "proxy": ""}

// neighIgnored are keys that do not change where a packet goes, with the reason.
var neighIgnored = map[string]string{"router": "IPv6", "offload": "hardware",
	"extern_learn": "who learnt it", "extern_valid": "who learnt it", "managed": "who keeps it",
	"protocol": "a label", "refcnt": "counters", "used": "a life time", "confirmed": "a life time",
	"updated": "a life time", "probes": "counters", "deleted": "an event"}

// devFinder finds a device by its name, zero for none.
type devFinder func(name string) packet.Dev

// finder finds devices among links.
func finder(links []link.Link) devFinder {
	m := map[string]packet.Dev{}
	for i := range links {
		m[links[i].Name] = links[i].Index
		for _, n := range links[i].AltNames {
			m[n] = links[i].Index
		}
	}
	return func(name string) packet.Dev { return m[name] }
}

// parseIPNeigh reads `ip -d -j neigh`, `ip -j neigh show proxy`, or their text.
func parseIPNeigh(file string, data []byte, dev devFinder) ([]link.Neigh, []link.Proxy, error) {
	r := neighReader{dev: dev}
	var err error
	if isJSON(data) {
		err = r.json(file, data)
	} else {
		err = textLines(file, data, r.line)
	}
	if err != nil {
		return nil, nil, err
	}
	return r.neighs, r.proxies, nil
}

type neighReader struct {
	dev     devFinder
	neighs  []link.Neigh
	proxies []link.Proxy
}

// entry is a neighbour as it was read.
type neighEntry struct {
	addr   packet.Addr
	dev    string
	mac    packet.MAC
	state  link.NeighState
	proxy  bool
	stated bool
}

func (r *neighReader) add(p place, e neighEntry) error {
	var dev packet.Dev
	if e.dev != "" {
		if dev = r.dev(e.dev); dev == 0 {
			return p.errorf("neighbour %s: device %q does not exist", e.addr, e.dev)
		}
	}
	switch {
	case e.addr.IsZero():
		return p.errorf("a neighbour lacks its address")
	case e.proxy:
		r.proxies = append(r.proxies, link.Proxy{Dev: dev, Addr: e.addr})
		return nil
	case dev == 0:
		return p.errorf("neighbour %s: dev is missing", e.addr)
	}
	if !e.stated {
		e.state = link.Permanent
	}
	r.neighs = append(r.neighs, link.Neigh{Dev: dev, Addr: e.addr, MAC: e.mac, State: e.state})
	return nil
}

func (r *neighReader) json(file string, data []byte) error {
	objs, err := jsonObjects(file, data)
	if err != nil {
		return err
	}
	for i := range objs {
		o := &objs[i]
		if err := o.known(neighKeys, neighIgnored); err != nil {
			return err
		}
		e := neighEntry{dev: o.str("dev"), proxy: o.has("proxy"), stated: o.has("state")}
		var states []string
		for _, err := range []error{o.addr("dst", &e.addr), o.get("state", &states)} {
			if err != nil {
				return err
			}
		}
		if err := e.setStates(o.place, states); err != nil {
			return err
		}
		e.mac, _ = packet.ParseMAC(o.str("lladdr"))
		if err := r.add(o.place, e); err != nil {
			return err
		}
	}
	return nil
}

func (e *neighEntry) setStates(p place, states []string) error {
	for _, s := range states {
		n, ok := neighStates[s]
		if !ok {
			return p.errorf("neighbour %s: state %q is not known", e.addr, s)
		}
		e.state |= n
	}
	return nil
}

// line reads "10.0.0.9 dev eth0 lladdr 02:00:00:00:00:01 REACHABLE".
func (r *neighReader) line(p place, line string) error {
	w := &wordList{p, strings.Fields(line)}
	var e neighEntry
	var err error
	if e.addr, err = w.addr("neighbour"); err != nil {
		return err
	}
	for !w.empty() {
		switch key := w.next(); key {
		case "dev":
			e.dev = w.next()
		case "lladdr":
			e.mac, _ = packet.ParseMAC(w.next())
		case "proxy":
			e.proxy = true
		case "router", "offload", "extern_learn", "extern_valid", "managed":
		case "proto", "ref", "used", "probes":
			w.next()
		default:
			e.stated = true
			if err := e.setStates(p, []string{key}); err != nil {
				return err
			}
		}
	}
	return r.add(p, e)
}
