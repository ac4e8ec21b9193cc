package snapshot

import (
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// conntrackFooter stands in the line that the tool prints behind its list.
const conntrackFooter = "have been shown"

// conntrackIgnored are words that do not change where a packet goes, with the reason.
var conntrackIgnored = map[string]string{
	"use": "a reference count", "delta-time": "an age", "secmark": "SELinux",
	"secctx": "SELinux", "timeout": "the timeouts are the sysctls'",
	"stream_timeout": "the timeouts are the sysctls'"}

// parseConntrack reads `conntrack -L`, with or without `-o extended,id`, or the lines of
// /proc/net/nf_conntrack. The seconds left count from now.
func parseConntrack(file string, data []byte, now world.Instant) ([]conntrack.Flow, error) {
	var flows []conntrack.Flow
	err := eachLine(file, data, func(p place, line string) error {
		if strings.Contains(line, conntrackFooter) {
			return nil
		}
		r := flowReader{place: p, words: strings.Fields(line), dir: -1}
		if err := r.line(now); err != nil {
			return err
		}
		flows = append(flows, r.f)
		return nil
	})
	return flows, err
}

// flowReader reads one line.
type flowReader struct {
	place
	words []string
	f     conntrack.Flow
	dir   int // -1 before the first src=
	ids   int
	seen  bool // [UNREPLIED] is not there
}

func (r *flowReader) line(now world.Instant) error {
	r.seen = true
	if err := r.head(now); err != nil {
		return err
	}
	for _, w := range r.words {
		if err := r.word(w); err != nil {
			return err
		}
	}
	if r.dir != 1 {
		return r.errorf("a connection has two tuples: only %d found", r.dir+1)
	}
	if r.seen {
		r.f.Status |= conntrack.SeenReply
	}
	return r.check()
}

// check looks whether the tuples are those of one connection.
func (r *flowReader) check() error {
	o, p := &r.f.Tuples[0], &r.f.Tuples[1]
	if o.Src.IsZero() || o.Dst.IsZero() || p.Src.IsZero() || p.Dst.IsZero() {
		return r.errorf("an address is missing")
	}
	if o.Src.Is4() != o.Dst.Is4() || p.Src.Is4() != p.Dst.Is4() || o.Src.Is4() != p.Src.Is4() {
		return r.errorf("IPv4 and IPv6 addresses in one connection")
	}
	if _, ok := o.Invert(); !ok {
		return r.errorf("ICMP type %d begins no connection", o.DPort>>8)
	}
	return nil
}

// head reads the network protocol, where it is there, the transport protocol, the
// seconds and the state.
func (r *flowReader) head(now world.Instant) error {
	if w := r.peek(); w == "ipv4" || w == "ipv6" {
		r.words = r.words[min(2, len(r.words)):]
	}
	name := r.next()
	proto, err := strconv.ParseUint(r.peek(), 10, 8)
	if err != nil {
		return r.errorf("%q is followed by %q, not by a protocol number", name, r.peek())
	}
	r.next()
	r.f.Tuples[0].Proto, r.f.Tuples[1].Proto = uint8(proto), uint8(proto)
	if sec, err := strconv.ParseUint(r.peek(), 10, 32); err == nil {
		r.next()
		r.f.Timeout = now + world.Instant(sec)*world.Second
	}
	if w := r.peek(); w != "" && !strings.ContainsAny(w, "=[") {
		st, ok := conntrack.ParseState(uint8(proto), w)
		if !ok {
			return r.errorf("%q is no state of protocol %d", w, proto)
		}
		r.f.TCP.State = st
		r.next()
	}
	return nil
}

func (r *flowReader) peek() string {
	if len(r.words) == 0 {
		return ""
	}
	return r.words[0]
}

func (r *flowReader) next() string {
	w := r.peek()
	if w != "" {
		r.words = r.words[1:]
	}
	return w
}

// word reads a flag or a name with its value.
func (r *flowReader) word(w string) error {
	switch w {
	case "[UNREPLIED]":
		r.seen = false
		return nil
	case "[ASSURED]":
		r.f.Status |= conntrack.Assured
		return nil
	case "[OFFLOAD]", "[HW_OFFLOAD]":
		return r.unsupported("a flow that a flowtable forwards: "+w,
			"such packets pass no hooks, and flowtables are not run")
	}
	key, val, ok := strings.Cut(w, "=")
	if !ok {
		return r.errorf("%q is not understood", w)
	}
	if _, ok := conntrackIgnored[key]; ok {
		return nil
	}
	if key == "src" {
		if r.dir++; r.dir > 1 {
			return r.errorf("a connection has two tuples: here begins a third")
		}
	}
	return r.pair(key, val)
}

// pair reads what stands behind the tuples, or hands on to the tuple.
func (r *flowReader) pair(key, val string) error {
	f := &r.f
	switch key {
	case "mark":
		n, err := r.number(key, val, 0, 32)
		f.Mark = uint32(n)
		return err
	case "zone", "zone-orig", "zone-reply":
		n, err := r.number(key, val, 10, 16)
		f.Zone.ID = uint16(n)
		if n != 0 {
			f.Zone.Dir = map[string]conntrack.ZoneDir{"zone-orig": conntrack.ZoneOrig,
				"zone-reply": conntrack.ZoneReply}[key]
		}
		return err
	case "helper":
		h, ok := conntrack.ParseHelper(val)
		if !ok {
			return r.unsupported("helper="+val, "no such helper is known")
		}
		f.Helper = h
		return nil
	case "labels":
		return r.unsupported("labels="+val, "the names are those of another machine's connlabel.conf")
	}
	if r.dir < 0 {
		return r.errorf("%s= stands before the first src=", key)
	}
	if key == "id" && !r.tupleID() {
		n, err := r.number(key, val, 10, 32)
		f.ID = uint32(n)
		return err
	}
	return r.tuple(key, val)
}

// tupleID tells whether an id= is an ICMP id and not the connection's number.
func (r *flowReader) tupleID() bool {
	proto := r.f.Tuples[0].Proto
	if proto != packet.ICMP && proto != packet.ICMPv6 || r.ids > r.dir {
		return false
	}
	r.ids++
	return true
}

// tuple reads a part of the present direction's tuple.
func (r *flowReader) tuple(key, val string) (err error) {
	tu := &r.f.Tuples[r.dir]
	var n uint64
	switch key {
	case "src":
		tu.Src, err = parseTupleAddr(r.place, key, val)
	case "dst":
		tu.Dst, err = parseTupleAddr(r.place, key, val)
	case "sport", "id":
		n, err = r.number(key, val, 10, 16)
		tu.SPort = uint16(n)
	case "dport":
		n, err = r.number(key, val, 10, 16)
		tu.DPort = uint16(n)
	case "srckey":
		n, err = r.number(key, val, 0, 16)
		tu.SPort = uint16(n)
	case "dstkey":
		n, err = r.number(key, val, 0, 16)
		tu.DPort = uint16(n)
	case "type":
		n, err = r.number(key, val, 10, 8)
		tu.DPort |= uint16(n) << 8
	case "code":
		n, err = r.number(key, val, 10, 8)
		tu.DPort |= uint16(n)
	case "packets":
		r.f.Packets[r.dir], err = r.number(key, val, 10, 64)
	case "bytes":
		r.f.Bytes[r.dir], err = r.number(key, val, 10, 64)
	default:
		return r.unsupported(key+"=", "this word is not known")
	}
	return err
}

func (r *flowReader) number(key, val string, base, bits int) (uint64, error) {
	n, err := strconv.ParseUint(val, base, bits)
	if err != nil {
		return 0, r.errorf("%s: %q is no number of %d bits", key, val, bits)
	}
	return n, nil
}
