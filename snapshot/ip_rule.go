package snapshot

import (
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/route"
)

// ruleKeys are the keys of `ip -d -j rule` that are read.
var ruleKeys = map[string]string{"priority": "", "not": "", "src": "", "srclen": "", "dst": "",
	"dstlen": "", "tos": "", "fwmark": "", "fwmask": "", "iif": "", "iif_detached": "", "oif": "",
	"oif_detached": "", "l3mdev": "", "uid_start": "", "uid_end": "", "ipproto": "", "sport": "",
	"sport_start": "", "sport_end": "", "sport_mask": "", "dport": "", "dport_start": "",
	"dport_end": "", "dport_mask": "", "dscp": "", "dscp_mask": "", "tun_id": "", "table": "",
	"suppress_prefixlen": "", "suppress_ifgroup": "", "flow_from": "", "flow_to": "", "goto": "",
	"unresolved": "", "nop": "", "action": "", "protocol": "", "nat_gateway": ""}

// parseIPRule reads `ip -d -j rule`, or the text of `ip rule`.
func parseIPRule(file string, data []byte, names *route.Names) ([]route.Rule, error) {
	out := []route.Rule{}
	if !isJSON(data) {
		err := textLines(file, data, func(p place, line string) error {
			r, err := ruleText(&wordList{p, strings.Fields(line)}, names)
			out = append(out, r)
			return err
		})
		return out, err
	}
	objs, err := jsonObjects(file, data)
	if err != nil {
		return nil, err
	}
	for i := range objs {
		w, err := ruleWords(&objs[i])
		if err != nil {
			return nil, err
		}
		r, err := ruleText(w, names)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// ruleWords turns the JSON form of a rule into the words of its text form.
func ruleWords(o *object) (*wordList, error) {
	if err := o.known(ruleKeys); err != nil {
		return nil, err
	}
	w := &wordList{place: o.place}
	add := func(s ...string) { w.words = append(w.words, s...) }
	add(o.str("priority") + ":")
	if o.has("not") {
		add("not")
	}
	for _, k := range [][2]string{{"src", "from"}, {"dst", "to"}} {
		if !o.has(k[0]) {
			continue
		}
		p := o.str(k[0])
		if o.has(k[0] + "len") {
			p += "/" + o.str(k[0]+"len")
		}
		add(k[1], p)
	}
	for _, k := range [][2]string{{"iif", "iif"}, {"oif", "oif"}, {"tos", "tos"},
		{"tun_id", "tun_id"}, {"ipproto", "ipproto"}, {"table", "lookup"},
		{"suppress_prefixlen", "suppress_prefixlength"},
		{"suppress_ifgroup", "suppress_ifgroup"}, {"goto", "goto"}, {"protocol", "proto"},
		{"nat_gateway", "map-to"}} {
		if o.has(k[0]) {
			add(k[1], o.str(k[0]))
		}
	}
	for _, k := range []string{"fwmark", "dscp", "sport", "dport"} {
		maskedWords(o, k, add)
	}
	if o.has("uid_start") {
		add("uidrange", o.str("uid_start")+"-"+o.str("uid_end"))
	}
	if o.has("flow_to") || o.has("flow_from") {
		add("realms", o.str("flow_from")+"/"+o.str("flow_to"))
	}
	for _, k := range []string{"iif_detached", "oif_detached", "l3mdev", "nop", "unresolved"} {
		if o.has(k) {
			add("[" + k + "]")
		}
	}
	if o.has("action") {
		add(o.str("action"))
	}
	return w, nil
}

// maskedWords appends an option that has a mask or a range.
func maskedWords(o *object, k string, add func(...string)) {
	maskKey := map[string]string{"fwmark": "fwmask"}[k]
	if maskKey == "" {
		maskKey = k + "_mask"
	}
	switch {
	case o.has(k + "_start"):
		add(k, o.str(k+"_start")+"-"+o.str(k+"_end"))
	case o.has(k) && o.has(maskKey):
		add(k, o.str(k)+"/"+o.str(maskKey))
	case o.has(k):
		add(k, o.str(k))
	}
}

// ruleText reads "100:	from 10.0.0.0/8 fwmark 0x1/0xff lookup 100".
func ruleText(w *wordList, names *route.Names) (route.Rule, error) {
	var r route.Rule
	prio, ok := strings.CutSuffix(w.next(), ":")
	n, err := strconv.ParseUint(prio, 10, 32)
	if err != nil || !ok {
		return r, w.errorf("%q is not a rule's priority", prio)
	}
	r.Priority = uint32(n)
	rr := ruleReader{w, &r, names}
	for !w.empty() {
		if err := rr.word(w.next()); err != nil {
			return r, err
		}
	}
	return r, nil
}

// ruleReader reads the words of a rule.
type ruleReader struct {
	*wordList
	r     *route.Rule
	names *route.Names
}

func (rr ruleReader) word(key string) error {
	if done, err := rr.selector(key); done {
		return err
	}
	return rr.action(key)
}

// selector reads what a rule asks of a packet.
func (rr ruleReader) selector(key string) (done bool, err error) {
	r := rr.r
	switch key {
	case "not":
		r.Not = true
	case "from", "to":
		err = rr.prefix(key)
	case "tos", "dsfield":
		err = rr.tos()
	case "dscp":
		err = rr.dscp()
	case "fwmark":
		err = rr.fwmark()
	case "iif", "dev":
		r.In = rr.next()
	case "oif":
		r.Out = rr.next()
	case "[detached]":
		r.InGone, r.OutGone = r.Out == "", r.Out != ""
	case "[iif_detached]":
		r.InGone = true
	case "[oif_detached]":
		r.OutGone = true
	case "uidrange":
		err = rr.uids()
	case "ipproto":
		s := rr.next()
		p, ok := route.ProtoNumber(s)
		if r.Proto = p; !ok {
			err = rr.errorf("ipproto: %q is not a protocol", s)
		}
	case "sport":
		r.SPort, err = rr.ports(key)
	case "dport":
		r.DPort, err = rr.ports(key)
	case "tun_id", "flowlabel", "map-to":
		err = rr.unsupported("ip rule "+key, "")
	default:
		return false, nil
	}
	return true, err
}

func (rr ruleReader) prefix(key string) error {
	s := rr.next()
	if s == "all" || s == "any" || s == "default" {
		return nil
	}
	if s == "0/0" {
		s = "0.0.0.0/0"
	}
	p, ok := parsePrefix(s)
	if !ok {
		return rr.errorf("%s: %q is not a prefix", key, s)
	}
	if key == "from" {
		rr.r.Src = p
	} else {
		rr.r.Dst = p
	}
	return nil
}

func (rr ruleReader) tos() error {
	s := rr.next()
	t, ok := route.ParseTOS(s)
	if !ok {
		return rr.errorf("tos: %q is not an octet", s)
	}
	rr.r.TOS = t
	return nil
}

// dscpNames are the words that newer iproute2 prints for dscp.
func dscpNumber(s string) (uint64, error) {
	if t, ok := route.ParseTOS(strings.ToUpper(s)); ok && len(s) > 1 && s[0] > '9' {
		return uint64(t >> 2), nil
	}
	return strconv.ParseUint(s, 0, 6)
}

func (rr ruleReader) dscp() error {
	val, mask, masked := strings.Cut(rr.next(), "/")
	n, err := dscpNumber(val)
	if err != nil {
		return rr.errorf("dscp: %q is not a number below 64", val)
	}
	rr.r.DSCP = route.Some(uint32(n))
	if !masked {
		return nil
	}
	m, err := strconv.ParseUint(mask, 0, 6)
	if err != nil {
		return rr.errorf("dscp: %q is not a mask", mask)
	}
	rr.r.DSCPMask = uint8(m)
	return nil
}

func (rr ruleReader) fwmark() error {
	val, mask, masked := strings.Cut(rr.next(), "/")
	n, err := strconv.ParseUint(val, 0, 32)
	if err != nil {
		return rr.errorf("fwmark: %q is not a number", val)
	}
	rr.r.Mark, rr.r.MarkMask = uint32(n), 0xffffffff
	if !masked {
		return nil
	}
	m, err := strconv.ParseUint(mask, 0, 32)
	if err != nil {
		return rr.errorf("fwmark: %q is not a mask", mask)
	}
	rr.r.MarkMask = uint32(m)
	return nil
}

func (rr ruleReader) uids() error {
	s := rr.next()
	lo, hi, ok := strings.Cut(s, "-")
	a, err1 := strconv.ParseUint(lo, 10, 32)
	b, err2 := strconv.ParseUint(hi, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return rr.errorf("uidrange: %q is not a range", s)
	}
	rr.r.UID = route.UIDs{Lo: uint32(a), Hi: uint32(b), Set: true}
	return nil
}

func (rr ruleReader) ports(key string) (route.Ports, error) {
	s := rr.next()
	if val, mask, ok := strings.Cut(s, "/"); ok {
		v, err1 := strconv.ParseUint(val, 0, 16)
		m, err2 := strconv.ParseUint(mask, 0, 16)
		if err1 != nil || err2 != nil {
			return route.Ports{}, rr.errorf("%s: %q is not a port and mask", key, s)
		}
		return route.Ports{Lo: uint16(v), Hi: uint16(v), Mask: uint16(m)}, nil
	}
	lo, hi, ranged := strings.Cut(s, "-")
	if !ranged {
		hi = lo
	}
	a, err1 := strconv.ParseUint(lo, 0, 16)
	b, err2 := strconv.ParseUint(hi, 0, 16)
	if err1 != nil || err2 != nil || a > b {
		return route.Ports{}, rr.errorf("%s: %q is not a port or range", key, s)
	}
	return route.Ports{Lo: uint16(a), Hi: uint16(b)}, nil
}

// action reads what a rule does.
func (rr ruleReader) action(key string) (err error) {
	r := rr.r
	switch key {
	case "lookup", "table":
		return rr.lookup()
	case "[l3mdev]", "l3mdev", "[l3mdev-table]":
		r.L3mdev = true
	case "suppress_prefixlength", "sup_pl", "suppress_prefixlen":
		var n uint64
		n, err = rr.number(key, 8)
		r.SuppressPrefix = route.Some(uint32(n))
	case "suppress_ifgroup", "sup_group":
		if rr.accept("default") {
			r.SuppressGroup = route.Some(0)
			return nil
		}
		var n uint64
		n, err = rr.number(key, 32)
		r.SuppressGroup = route.Some(uint32(n))
	case "realms", "realm":
		r.Realms, err = parseRealms(rr.wordList, rr.names)
	case "goto":
		if r.Action = route.Goto; rr.accept("none") {
			r.Unresolved = true
			return nil
		}
		var n uint64
		n, err = rr.number(key, 32)
		r.Goto = uint32(n)
	case "[unresolved]":
		r.Unresolved = true
	case "nop", "[nop]":
		r.Action = route.Nop
	case "blackhole":
		r.Action = route.BlackholeAction
	case "unreachable":
		r.Action = route.UnreachableAction
	case "prohibit":
		r.Action = route.ProhibitAction
	case "proto", "protocol":
		s := rr.next()
		id, ok := rr.names.ProtoID(s)
		if r.Protocol = id; !ok {
			return rr.errorf("proto: %q is not known", s)
		}
	default:
		return rr.unsupported("ip rule option "+strconv.Quote(key), "")
	}
	return err
}

func (rr ruleReader) lookup() error {
	s := rr.next()
	if s == "[l3mdev-table]" {
		rr.r.L3mdev = true
		return nil
	}
	id, ok := rr.names.TableID(s)
	if !ok {
		return rr.errorf("lookup: table %q is not known: rt_tables is missing or does not have it", s)
	}
	rr.r.Table = id
	return nil
}

// parseRealms reads "5", "3/4" or "/4" as from<<16 | to.
func parseRealms(w *wordList, names *route.Names) (uint32, error) {
	s, err := w.value("realms")
	if err != nil {
		return 0, err
	}
	from, to, both := strings.Cut(s, "/")
	if !both {
		from, to = "", from
	}
	var out uint32
	for _, part := range []string{from, to} {
		id, ok := uint32(0), true
		if part != "" {
			id, ok = names.RealmID(part)
		}
		if !ok || id > 0xffff {
			return 0, w.errorf("realms: %q is not known", part)
		}
		out = out<<16 | id
	}
	return out, nil
}
