package snapshot

import (
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/route"
)

// nexthopKeys are the keys of `ip -d -j nexthop` that are read.
var nexthopKeys = map[string]string{"id": "", "group": "", "type": "", "resilient_args": "",
	"gateway": "", "via": "", "dev": "", "scope": "", "protocol": "", "flags": "",
	"blackhole": "", "fdb": "", "encap": ""}

// nexthopIgnored are keys that do not change where a packet goes, with the reason.
var nexthopIgnored = map[string]string{"group_stats": "counters", "hw_stats": "counters",
	"deleted": "an event"}

// parseIPNexthop reads `ip -d -j nexthop`, or the text of `ip nexthop`.
func parseIPNexthop(file string, data []byte, names *route.Names) ([]route.Nexthop, error) {
	var out []route.Nexthop
	if !isJSON(data) {
		err := textLines(file, data, func(p place, line string) error {
			n, err := nexthopText(&wordList{p, strings.Fields(line)}, names)
			out = append(out, n)
			return err
		})
		return out, err
	}
	objs, err := jsonObjects(file, data)
	if err != nil {
		return nil, err
	}
	for i := range objs {
		w, err := nexthopWords(&objs[i])
		if err != nil {
			return nil, err
		}
		n, err := nexthopText(w, names)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// nexthopWords turns the JSON form of a nexthop into the words of its text form.
func nexthopWords(o *object) (*wordList, error) {
	if err := o.known(nexthopKeys, nexthopIgnored); err != nil {
		return nil, err
	}
	w := &wordList{place: o.place, words: []string{"id", o.str("id")}}
	var group []struct {
		ID     uint32
		Weight *int
	}
	if err := o.get("group", &group); err != nil {
		return nil, err
	}
	var parts []string
	for _, m := range group {
		s := strconv.FormatUint(uint64(m.ID), 10)
		if m.Weight != nil {
			s += "," + strconv.Itoa(*m.Weight)
		}
		parts = append(parts, s)
	}
	if parts != nil {
		w.words = append(w.words, "group", strings.Join(parts, "/"))
	}
	for _, k := range [][2]string{{"type", "type"}, {"scope", "scope"}, {"protocol", "proto"}} {
		if o.has(k[0]) {
			w.words = append(w.words, k[1], o.str(k[0]))
		}
	}
	for _, k := range []string{"blackhole", "fdb"} {
		if o.has(k) {
			w.words = append(w.words, k)
		}
	}
	return w, hopWords(o, w)
}

func nexthopText(w *wordList, names *route.Names) (route.Nexthop, error) {
	var n route.Nexthop
	if !w.accept("id") {
		return n, w.errorf("%q: a nexthop begins with id", w.peek())
	}
	id, err := w.number("id", 32)
	if err != nil {
		return n, err
	}
	n.ID = uint32(id)
	for !w.empty() {
		if err := nexthopWord(w, &n, names); err != nil {
			return n, err
		}
	}
	return n, nil
}

func nexthopWord(w *wordList, n *route.Nexthop, names *route.Names) (err error) {
	switch key := w.next(); key {
	case "group":
		n.Group, err = members(w)
	case "type":
		n.Resilient = w.next() == "resilient"
	case "buckets", "idle_timer", "unbalanced_timer", "unbalanced_time":
		_, err = w.value(key)
	case "via":
		if !w.accept("inet6") {
			w.accept("inet")
		}
		n.Hop.Via, err = w.addr(key)
	case "dev":
		n.Hop.Dev, err = w.value(key)
	case "scope":
		s, ok := link.ParseScope(w.next())
		if n.Scope = s; !ok {
			err = w.errorf("scope: not a scope")
		}
	case "proto":
		p, ok := names.ProtoID(w.next())
		if n.Protocol = p; !ok {
			err = w.errorf("proto: not known")
		}
	case "blackhole":
		n.Blackhole = true
	case "fdb":
		n.FDB = true
	case "onlink":
		n.Hop.OnLink = true
	case "linkdown":
		n.Hop.LinkDown = true
	case "dead":
		n.Hop.Dead = true
	case "offload", "trap", "offload_failed", "rt_offload", "rt_trap", "pervasive":
	default:
		err = w.unsupported("nexthop option "+strconv.Quote(key), "")
	}
	return err
}

// members reads "1,3/7".
func members(w *wordList) ([]route.Member, error) {
	s, err := w.value("group")
	if err != nil {
		return nil, err
	}
	var out []route.Member
	for _, part := range strings.Split(s, "/") {
		id, weight, weighted := strings.Cut(part, ",")
		n, err := strconv.ParseUint(id, 10, 32)
		m := route.Member{ID: uint32(n), Weight: 1}
		if err == nil && weighted {
			m.Weight, err = strconv.Atoi(weight)
		}
		if err != nil || m.Weight < 1 || m.Weight > 1<<16 {
			return nil, w.errorf("group: %q is not id[,weight]", part)
		}
		out = append(out, m)
	}
	return out, nil
}

// parseIPNexthopBucket reads `ip -j nexthop bucket` or its text, and counts the
// buckets of each member of the resilient groups.
func parseIPNexthopBucket(file string, data []byte, nhs []route.Nexthop) error {
	count := func(p place, group, member uint64) error {
		for i := range nhs {
			if uint64(nhs[i].ID) == group {
				return countBucket(p, &nhs[i], member)
			}
		}
		return p.errorf("nexthop %d does not exist", group)
	}
	if !isJSON(data) {
		return textLines(file, data, func(p place, line string) error {
			return bucketText(&wordList{p, strings.Fields(line)}, count)
		})
	}
	objs, err := jsonObjects(file, data)
	if err != nil {
		return err
	}
	for i := range objs {
		var group uint64
		var b struct{ NHID uint64 }
		o := &objs[i]
		for _, err := range []error{o.num("id", 32, &group), o.get("bucket", &b)} {
			if err != nil {
				return err
			}
		}
		if err := count(o.place, group, b.NHID); err != nil {
			return err
		}
	}
	return nil
}

func countBucket(p place, n *route.Nexthop, member uint64) error {
	if n.Buckets == nil {
		n.Buckets = make([]uint64, len(n.Group))
	}
	for i, m := range n.Group {
		if uint64(m.ID) == member {
			n.Buckets[i]++
			return nil
		}
	}
	return p.errorf("nexthop %d has no member %d", n.ID, member)
}

// bucketText reads "id 6 index 0 idle_time 0.06 nhid 2".
func bucketText(w *wordList, count func(p place, group, member uint64) error) error {
	var group, member uint64
	var err error
	for !w.empty() && err == nil {
		switch w.next() {
		case "id":
			group, err = w.number("id", 32)
		case "nhid":
			member, err = w.number("nhid", 32)
		}
	}
	if err != nil {
		return err
	}
	return count(w.place, group, member)
}
