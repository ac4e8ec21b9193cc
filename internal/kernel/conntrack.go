package kernel

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Values of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctNew    = unix.NFNL_SUBSYS_CTNETLINK << 8
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaOrig, ctaReply, ctaStatus, ctaProtoinfo = 1, 2, 3, 4
	ctaHelp, ctaNatSrc, ctaTimeout, ctaMark    = 5, 6, 7, 8
	ctaNatDst, ctaZone                         = 13, 18

	ctaTupleIP, ctaTupleProto, ctaTupleZone = 1, 2, 3
	ctaV4Src, ctaV4Dst, ctaV6Src, ctaV6Dst  = 1, 2, 3, 4
	ctaProtoNum, ctaSrcPort, ctaDstPort     = 1, 2, 3
	ctaIcmpID, ctaIcmpType, ctaIcmpCode     = 4, 5, 6

	ctaProtoinfoTCP, ctaProtoinfoSCTP = 1, 3
	ctaNatMin, ctaNatMax, ctaNatProto = 1, 2, 3
	ctaPortMin, ctaPortMax            = 1, 2

	statusSeenReply, statusAssured, statusConfirmed = 1 << 1, 1 << 2, 1 << 3
)

// The names that conntrack -L prints for the states of protocols.
func tcpStates() []string {
	return []string{"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT",
		"LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"}
}

func sctpStates() []string {
	return []string{"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED",
		"SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT"}
}

// protoNames are the protocols that conntrack -L names.
func protoNames() map[uint8]string {
	return map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 47: "gre",
		58: "icmpv6", 132: "sctp", 136: "udplite"}
}

// tuple is one direction of an entry.
type tuple struct {
	src, dst         netip.Addr
	proto            uint8
	sport, dport     uint16
	typ, code        uint8
	id               uint16
	zone             uint16
	hasPort, hasZone bool
}

// flow is one entry of the connection table. Its text is the line of
// conntrack -L -o extended without the expiry, use and id, blanks squeezed:
//
//	ipv4 2 tcp 6 SYN_SENT src=A dst=B sport=1 dport=2 [UNREPLIED] src=B dst=A
//	sport=2 dport=1 mark=0 zone=3
type flow struct {
	orig, reply tuple
	status      uint32
	state       string
	mark        uint32
	zone        uint16
	helper      string
	timeout     uint32
}

// flows dumps the namespace's connection table.
func (c *conn) flows() ([]string, error) {
	out := []string{}
	err := c.dump(ctGet, message{family: unix.AF_INET}, func(m message) {
		out = append(out, parseFlow(m.attrs).String())
	})
	slices.Sort(out)
	return out, err
}

// flushFlows empties the namespace's connection table.
func (c *conn) flushFlows() error {
	return c.do(ctDelete, 0, message{family: unix.AF_UNSPEC})
}

func parseFlow(attrs []byte) flow {
	var f flow
	eachAttr(attrs, func(typ uint16, data []byte) {
		switch typ {
		case ctaOrig:
			f.orig = parseTuple(data)
		case ctaReply:
			f.reply = parseTuple(data)
		case ctaStatus:
			f.status = be32(data)
		case ctaProtoinfo:
			f.state = protoState(data)
		case ctaMark:
			f.mark = be32(data)
		case ctaZone:
			f.zone = be16(data)
		case ctaHelp:
			eachAttr(data, func(typ uint16, data []byte) {
				if typ == 1 {
					f.helper = cstring(data)
				}
			})
		}
	})
	return f
}

func parseTuple(data []byte) tuple {
	var t tuple
	eachAttr(data, func(typ uint16, data []byte) {
		switch typ {
		case ctaTupleIP:
			eachAttr(data, func(typ uint16, data []byte) {
				addr, _ := netip.AddrFromSlice(data)
				if typ == ctaV4Src || typ == ctaV6Src {
					t.src = addr
				} else {
					t.dst = addr
				}
			})
		case ctaTupleProto:
			eachAttr(data, t.protoAttr)
		case ctaTupleZone:
			t.zone, t.hasZone = be16(data), true
		}
	})
	return t
}

func (t *tuple) protoAttr(typ uint16, data []byte) {
	switch typ {
	case ctaProtoNum:
		t.proto = byte0(data)
	case ctaSrcPort:
		t.sport, t.hasPort = be16(data), true
	case ctaDstPort:
		t.dport, t.hasPort = be16(data), true
	case ctaIcmpID:
		t.id = be16(data)
	case ctaIcmpType:
		t.typ = byte0(data)
	case ctaIcmpCode:
		t.code = byte0(data)
	}
}

func protoState(data []byte) string {
	state := ""
	eachAttr(data, func(proto uint16, data []byte) {
		names := tcpStates()
		if proto == ctaProtoinfoSCTP {
			names = sctpStates()
		}
		eachAttr(data, func(typ uint16, data []byte) {
			if i := int(byte0(data)); typ == 1 && i < len(names) {
				state = names[i]
			}
		})
	})
	return state
}

// String is the canonical line.
func (f flow) String() string {
	var b strings.Builder
	name, ok := protoNames()[f.orig.proto]
	if !ok {
		name = "unknown"
	}
	family := "ipv4 2"
	if f.orig.src.Is6() {
		family = "ipv6 10"
	}
	fmt.Fprintf(&b, "%s %s %d", family, name, f.orig.proto)
	if f.state != "" {
		b.WriteString(" " + f.state)
	}
	f.orig.print(&b, "zone-orig")
	if f.status&statusSeenReply == 0 {
		b.WriteString(" [UNREPLIED]")
	}
	f.reply.print(&b, "zone-reply")
	if f.status&statusAssured != 0 {
		b.WriteString(" [ASSURED]")
	}
	fmt.Fprintf(&b, " mark=%d", f.mark)
	if f.zone != 0 {
		fmt.Fprintf(&b, " zone=%d", f.zone)
	}
	if f.helper != "" {
		b.WriteString(" helper=" + f.helper)
	}
	return b.String()
}

func (t tuple) print(b *strings.Builder, zone string) {
	fmt.Fprintf(b, " src=%s dst=%s", t.src, t.dst)
	switch {
	case t.proto == unix.IPPROTO_ICMP || t.proto == unix.IPPROTO_ICMPV6:
		fmt.Fprintf(b, " type=%d code=%d id=%d", t.typ, t.code, t.id)
	case t.proto == unix.IPPROTO_GRE:
		fmt.Fprintf(b, " srckey=0x%x dstkey=0x%x", t.sport, t.dport)
	case t.hasPort, t.proto == unix.IPPROTO_DCCP: // 0 where Linux tracks no DCCP: 6.18
		fmt.Fprintf(b, " sport=%d dport=%d", t.sport, t.dport)
	}
	if t.hasZone && t.zone != 0 {
		fmt.Fprintf(b, " %s=%d", zone, t.zone)
	}
}

// parseListed reads one line of conntrack -L -o extended.
func parseListed(line string) (flow, error) {
	words := strings.Fields(line)
	if len(words) < 4 || words[0] != "ipv4" {
		return flow{}, fmt.Errorf("%q is not an IPv4 entry of conntrack -o extended", line)
	}
	proto, err := strconv.ParseUint(words[3], 10, 8)
	if err != nil {
		return flow{}, fmt.Errorf("protocol %q", words[3])
	}
	f := flow{status: statusSeenReply | statusConfirmed, timeout: 600}
	f.orig.proto, f.reply.proto = uint8(proto), uint8(proto)
	t := &f.orig
	for _, w := range words[4:] {
		key, value, pair := strings.Cut(w, "=")
		if key == "src" && t.src.IsValid() {
			t = &f.reply
		}
		switch {
		case pair:
			err = f.pair(t, key, value)
		default:
			err = f.word(w)
		}
		if err != nil {
			return flow{}, fmt.Errorf("%q: %w", w, err)
		}
	}
	return f, nil
}

func (f *flow) word(w string) error {
	switch {
	case w == "[UNREPLIED]":
		f.status &^= statusSeenReply
	case w == "[ASSURED]":
		f.status |= statusAssured
	case slices.Contains(tcpStates(), w), slices.Contains(sctpStates(), w):
		f.state = w
	default:
		n, err := strconv.ParseUint(w, 10, 32)
		if err != nil {
			return fmt.Errorf("unknown word")
		}
		f.timeout = max(uint32(n), 1)
	}
	return nil
}

func (f *flow) pair(t *tuple, key, value string) error {
	switch key {
	case "src", "dst":
		addr, err := netip.ParseAddr(value)
		if key == "src" {
			t.src = addr
		} else {
			t.dst = addr
		}
		return err
	case "helper":
		f.helper = value
		return nil
	}
	n, err := strconv.ParseUint(value, 0, 64)
	if err != nil {
		return err
	}
	switch key {
	case "sport", "srckey":
		t.sport, t.hasPort = uint16(n), true
	case "dport", "dstkey":
		t.dport, t.hasPort = uint16(n), true
	case "type":
		t.typ = uint8(n)
	case "code":
		t.code = uint8(n)
	case "id": // of an ICMP tuple; the last one is the entry's own
		if t.proto == unix.IPPROTO_ICMP && t.id == 0 {
			t.id = uint16(n)
		}
	case "mark":
		f.mark = uint32(n)
	case "zone":
		f.zone = uint16(n)
	case "zone-orig", "zone-reply":
		t.zone, t.hasZone = uint16(n), true
	case "packets", "bytes", "use", "secctx", "delta-time", "timeout":
	default:
		return fmt.Errorf("unknown key")
	}
	return nil
}

// preload creates the entries of the snapshot's conntrack file.
func (c *conn) preload(host, text string) error {
	n := 0
	for line := range strings.Lines(text) {
		n++
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "ipv6") {
			continue
		}
		f, err := parseListed(line)
		if err != nil {
			return fmt.Errorf("%s/conntrack:%d: %w", host, n, err)
		}
		m := message{family: unix.AF_INET, attrs: f.attrs()}
		if err := c.do(ctNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m); err != nil {
			return fmt.Errorf("%s/conntrack:%d: create: %w", host, n, err)
		}
	}
	return nil
}

// attrs are what makes the entry. The reply is sent untranslated, and what
// differs as NAT: ctnetlink sets the bits that make the kernel translate only
// with a NAT attribute (nf_conntrack_netlink.c, ctnetlink_setup_nat).
func (f flow) attrs() []byte {
	plain := f.orig.inverse()
	b := attrNest(nil, ctaOrig, f.orig.attrs())
	b = attrNest(b, ctaReply, plain.attrs())
	b = attr32(b, ctaStatus, f.status)
	b = attr32(b, ctaTimeout, f.timeout)
	if f.reply.src != plain.src || f.reply.sport != plain.sport {
		b = attrNest(b, ctaNatDst, natRange(f.reply.src, f.reply.sport, f.reply.hasPort))
	}
	if f.reply.dst != plain.dst || f.reply.dport != plain.dport {
		b = attrNest(b, ctaNatSrc, natRange(f.reply.dst, f.reply.dport, f.reply.hasPort))
	}
	if f.mark != 0 {
		b = attr32(b, ctaMark, f.mark)
	}
	if f.zone != 0 {
		b = attr16(b, ctaZone, f.zone)
	}
	if i := slices.Index(tcpStates(), f.state); i >= 0 && f.orig.proto == unix.IPPROTO_TCP {
		state := attrNest(nil, ctaProtoinfoTCP, attr8(nil, 1, uint8(i)))
		b = attrNest(b, ctaProtoinfo, state)
	}
	if f.helper != "" {
		b = attrNest(b, ctaHelp, attrString(nil, 1, f.helper))
	}
	return b
}

func natRange(addr netip.Addr, port uint16, hasPort bool) []byte {
	b := attr(nil, ctaNatMin, addr.AsSlice())
	b = attr(b, ctaNatMax, addr.AsSlice())
	if !hasPort {
		return b
	}
	ports := attr16(attr16(nil, ctaPortMin, port), ctaPortMax, port)
	return attrNest(b, ctaNatProto, ports)
}

// inverse is the tuple of the untranslated reply.
func (t tuple) inverse() tuple {
	r := t
	r.src, r.dst, r.sport, r.dport = t.dst, t.src, t.dport, t.sport
	pairs := map[uint8]uint8{8: 0, 0: 8, 13: 14, 14: 13, 15: 16, 16: 15, 17: 18, 18: 17}
	if p, ok := pairs[t.typ]; ok && t.proto == unix.IPPROTO_ICMP {
		r.typ = p
	}
	return r
}

func (t tuple) attrs() []byte {
	ip := attr(attr(nil, ctaV4Src, t.src.AsSlice()), ctaV4Dst, t.dst.AsSlice())
	p := attr8(nil, ctaProtoNum, t.proto)
	switch {
	case t.proto == unix.IPPROTO_ICMP:
		p = attr16(p, ctaIcmpID, t.id)
		p = attr8(attr8(p, ctaIcmpType, t.typ), ctaIcmpCode, t.code)
	case t.hasPort:
		p = attr16(attr16(p, ctaSrcPort, t.sport), ctaDstPort, t.dport)
	}
	b := attrNest(nil, ctaTupleIP, ip)
	b = attrNest(b, ctaTupleProto, p)
	if t.hasZone {
		b = attr(b, ctaTupleZone, binary.BigEndian.AppendUint16(nil, t.zone))
	}
	return b
}
