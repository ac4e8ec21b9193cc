package ipset

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/packet"
)

// Reader reads the words of `ipset save`. Proto and Port look names up that this
// package has no list of; nil knows numbers alone.
type Reader struct {
	Proto func(name string) (uint8, error)
	Port  func(name string, proto uint8) (uint16, error)
}

// Words splits a line at blanks; what stands in double quotes is one word.
func Words(line string, buf []string) ([]string, error) {
	for i := 0; i < len(line); {
		switch c := line[i]; {
		case c == ' ' || c == '\t' || c == '\r':
			i++
		case c == '"':
			n := strings.IndexByte(line[i+1:], '"')
			if n < 0 {
				return nil, refuse("a quoted text does not end")
			}
			buf = append(buf, line[i+1:i+1+n])
			i += n + 2
		default:
			n := strings.IndexAny(line[i:], " \t\r\"")
			if n < 0 {
				n = len(line) - i
			}
			buf = append(buf, line[i:i+n])
			i += n
		}
	}
	return buf, nil
}

// words are what is left of a line.
type words struct {
	list []string
	i    int
}

func (w *words) next() (string, bool) {
	if w.i >= len(w.list) {
		return "", false
	}
	w.i++
	return w.list[w.i-1], true
}

// arg takes the argument of an option.
func (w *words) arg(option string) (string, error) {
	s, ok := w.next()
	if !ok {
		return "", refuse("%s needs a value", option)
	}
	return s, nil
}

func (w *words) number(option string, max uint64) (uint64, error) {
	s, err := w.arg(option)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil || strings.ContainsRune(s, '_') {
		return 0, refuse("%s: %q is not a number", option, cut(s))
	}
	if n > max {
		return 0, refuse("%s: %q is out of range (0-%d)", option, cut(s), max)
	}
	return n, nil
}

// Create reads what stands behind `create`: NAME TYPE [OPTIONS].
func (rd *Reader) Create(line []string) (*Set, error) {
	w := words{list: line}
	name, ok := w.next()
	typ, ok2 := w.next()
	if !ok || !ok2 {
		return nil, refuse("create needs a name and a type")
	}
	return rd.header(name, typ, &w)
}

// Header reads the options of a set, as `ipset list` prints them behind "Header:".
func (rd *Reader) Header(name, typ string, line []string) (*Set, error) {
	return rd.header(name, typ, &words{list: line})
}

func (rd *Reader) header(name, typ string, w *words) (*Set, error) {
	k := findKind(typ)
	if k == nil {
		return nil, refuse("unknown set type %q", cut(typ))
	}
	c := creating{k: k, w: w, rd: rd}
	for word, ok := w.next(); ok; word, ok = w.next() {
		if word == "-exist" || word == "-!" {
			continue
		}
		if !k.option(word) {
			return nil, refuse("%s: unknown option %q", k.name, cut(word))
		}
		if err := c.option(word); err != nil {
			return nil, err
		}
	}
	if k.class == classBitmap && !c.ranged {
		return nil, refuse("%s needs a range", k.name)
	}
	if err := c.mask(); err != nil {
		return nil, err
	}
	return NewSet(name, typ, c.o)
}

// creating is a set whose options are being read.
type creating struct {
	k       *kind
	w       *words
	rd      *Reader
	o       Options
	ranged  bool
	bitmask string
}

func (c *creating) option(word string) (err error) {
	switch word {
	case "counters":
		c.o.Counters = true
	case "comment":
		c.o.Comment = true
	case "skbinfo":
		c.o.SKBInfo = true
	case "forceadd":
		c.o.ForceAdd = true
	case "family":
		return c.family()
	case "-4":
		c.o.Family = Inet
	case "-6":
		c.o.Family = Inet6
	case "range":
		c.ranged = true
		return c.span()
	case "bitmask":
		c.bitmask, err = c.w.arg(word)
	default:
		return c.numeric(word)
	}
	return err
}

// bounds are the largest values of the options that are numbers.
func bound(word string) uint64 {
	switch word {
	case "timeout":
		return MaxTimeout
	case "bucketsize", "netmask":
		return 255
	}
	return 1<<32 - 1
}

func (c *creating) numeric(word string) error {
	n, err := c.w.number(word, bound(word))
	if err != nil {
		return err
	}
	v := uint32(n)
	switch word {
	case "hashsize":
		c.o.HashSize = max(v, minHashSize)
	case "maxelem":
		c.o.MaxElem, c.o.NoElem = v, v == 0
	case "bucketsize":
		c.o.BucketSize = max(uint8(v), initBucket)
	case "initval":
		c.o.InitVal, c.o.HasInitVal = v, true
	case "timeout":
		c.o.Timeout, c.o.HasTimeout = v, true
	case "netmask":
		c.o.Netmask = uint8(v)
	case "markmask":
		c.o.MarkMask = v
	case "size":
		c.o.Size = v
	}
	if v == 0 && (word == "netmask" || word == "markmask") {
		return refuse("%s can't be 0", word)
	}
	return nil
}

func (c *creating) family() error {
	s, err := c.w.arg("family")
	if err != nil {
		return err
	}
	switch s {
	case "inet", "ipv4":
		c.o.Family = Inet
	case "inet6", "ipv6":
		c.o.Family = Inet6
	default:
		return refuse("family %q is neither inet nor inet6", cut(s))
	}
	return nil
}

// span reads FROM-TO or a network, of addresses or of ports.
func (c *creating) span() error {
	s, err := c.w.arg("range")
	if err != nil {
		return err
	}
	if c.k.count(partPort) > 0 {
		from, to, ok := strings.Cut(s, "-")
		if !ok {
			return refuse("range: %q is not FROM-TO", cut(s))
		}
		if c.o.FirstPort, err = c.rd.port(from, 0); err != nil {
			return err
		}
		c.o.LastPort, err = c.rd.port(to, 0)
		return err
	}
	var e Entry
	if err := readAddr(&e, 0, s); err != nil {
		return err
	}
	l := loading{s: &Set{}, e: &e}
	switch {
	case !e.Addr[0].Is4():
		return refuse("range: %q is not of IPv4", cut(s))
	case e.HasPrefix[0] && e.Prefix[0] >= 32 || !e.HasPrefix[0] && e.To[0].IsZero():
		return refuse("range: %q is neither FROM-TO nor a network", cut(s))
	}
	first, last := l.span(0)
	c.o.First, c.o.Last = packet.V4(first), packet.V4(last)
	return nil
}

func (c *creating) mask() error {
	if c.bitmask == "" {
		return nil
	}
	a, err := parseAddr(c.bitmask)
	c.o.Bitmask = a
	return err
}

// Entry reads what stands behind `add NAME`. Exist tells that -exist was given.
func (rd *Reader) Entry(s *Set, line []string) (e Entry, exist bool, err error) {
	w := words{list: line}
	text, ok := w.next()
	if !ok {
		return e, false, refuse("add needs an element")
	}
	if err := rd.element(s, &e, text); err != nil {
		return e, false, err
	}
	for word, ok := w.next(); ok; word, ok = w.next() {
		if word == "-exist" || word == "-!" {
			exist = true
			continue
		}
		if err := readOption(s, &e, word, &w); err != nil {
			return e, false, err
		}
	}
	return e, exist, nil
}

// element reads ADDR,PORT and so on.
func (rd *Reader) element(s *Set, e *Entry, text string) error {
	k, ips := s.kind, 0
	for i, p := range k.parts {
		word, rest, more := strings.Cut(text, ",")
		if i == k.dims()-1 {
			word = text
		} else if !more {
			if k.name == "bitmap:ip,mac" {
				return readAddr(e, 0, text)
			}
			return refuse("%q is not an element of %s", cut(text), s.Type)
		}
		if err := rd.part(s, e, p, ips, word); err != nil {
			return err
		}
		if p == partIP || p == partNet {
			ips++
		}
		text = rest
	}
	return nil
}

func (rd *Reader) part(s *Set, e *Entry, p part, ip int, word string) (err error) {
	switch p {
	case partIP, partNet:
		return readAddr(e, ip, word)
	case partPort:
		return rd.readPort(s, e, word)
	case partMAC:
		if e.MAC, err = packet.ParseMAC(word); err != nil {
			return refuse("%q is not a MAC address", cut(word))
		}
		e.HasMAC = true
	case partMark:
		n, bad := strconv.ParseUint(word, 0, 32)
		if bad != nil {
			return refuse("%q is not a mark", cut(word))
		}
		e.Mark = uint32(n)
	case partIface:
		e.Iface, e.PhysDev = strings.CutPrefix(word, "physdev:")
	case partSet:
		e.Set = word
		if word == "" || len(word) > MaxName {
			return refuse("%q is not the name of a set", cut(word))
		}
	}
	return err
}

// readAddr reads ADDR, ADDR/LEN or ADDR-ADDR.
func readAddr(e *Entry, i int, s string) (err error) {
	if from, to, ok := strings.Cut(s, "-"); ok {
		if e.Addr[i], err = parseAddr(from); err != nil {
			return err
		}
		e.To[i], err = parseAddr(to)
		if err == nil && e.To[i].Is4() != e.Addr[i].Is4() {
			return refuse("%q is a range of two families", cut(s))
		}
		return err
	}
	addr, bits, ok := strings.Cut(s, "/")
	if e.Addr[i], err = parseAddr(addr); err != nil || !ok {
		return err
	}
	n, bad := strconv.ParseUint(bits, 10, 8)
	if bad != nil || n > 128 {
		return refuse("%q is not a prefix length", cut(bits))
	}
	e.Prefix[i], e.HasPrefix[i] = uint8(n), true
	return nil
}

func parseAddr(s string) (packet.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return packet.Addr{}, refuse("%q is not an address", cut(s))
	}
	if a.Is4In6() {
		return packet.Addr{}, refuse("the IPv4-mapped address %q is not supported", cut(s))
	}
	return packet.AddrFrom(a), nil
}

// readPort reads [PROTO:]PORT[-PORT] or icmp:TYPE.
func (rd *Reader) readPort(s *Set, e *Entry, word string) (err error) {
	e.Proto = packet.TCP
	if name, rest, ok := strings.Cut(word, ":"); ok {
		if e.Proto, err = rd.proto(name); err != nil {
			return err
		}
		word = rest
	}
	if s.kind.class == classHash && (e.Proto == packet.ICMP || e.Proto == packet.ICMPv6) {
		return readICMP(e, word)
	}
	from, to, ok := strings.Cut(word, "-")
	if e.Port, err = rd.port(from, e.Proto); err != nil || !ok {
		// A service may have a - in its name.
		if whole, bad := rd.port(word, e.Proto); bad == nil {
			e.Port, err = whole, nil
		}
		return err
	}
	e.HasPortTo = true
	e.PortTo, err = rd.port(to, e.Proto)
	return err
}

func readICMP(e *Entry, word string) error {
	names := icmpNames
	if e.Proto == packet.ICMPv6 {
		names = icmp6Names
	}
	for _, n := range names {
		if n.name == word {
			e.Port = n.n
			return nil
		}
	}
	typ, code, _ := strings.Cut(word, "/")
	t, err := strconv.ParseUint(typ, 10, 8)
	c, err2 := strconv.ParseUint(code, 10, 8)
	if err != nil || err2 != nil {
		return refuse("%q is not an ICMP type/code", cut(word))
	}
	e.Port = uint16(t<<8 | c)
	return nil
}

// proto reads a protocol by number or name.
func (rd *Reader) proto(s string) (uint8, error) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil && n != 0 {
		return uint8(n), nil
	}
	if s == "icmpv6" {
		return packet.ICMPv6, nil
	}
	for n, name := range protoNames {
		if name == s {
			return n, nil
		}
	}
	if rd.Proto != nil {
		if n, err := rd.Proto(s); err == nil && n != 0 {
			return n, nil
		}
	}
	return 0, refuse("%q is not a protocol", cut(s))
}

func (rd *Reader) port(s string, proto uint8) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err == nil {
		return uint16(n), nil
	}
	if rd.Port != nil && s != "" {
		if n, err := rd.Port(s, proto); err == nil {
			return n, nil
		}
	}
	return 0, refuse("%q is not a port", cut(s))
}

// readOption reads what follows an element.
func readOption(s *Set, e *Entry, word string, w *words) (err error) {
	var n uint64
	switch word {
	case "timeout":
		n, err = w.number(word, MaxTimeout)
		e.Timeout, e.HasTimeout = uint32(n), true
	case "packets":
		e.Packets, err = w.number(word, 1<<64-1)
		e.HasCounts = true
	case "bytes":
		e.Bytes, err = w.number(word, 1<<64-1)
		e.HasCounts = true
	case "comment":
		e.Comment, err = w.arg(word)
	case "skbmark", "skbprio", "skbqueue":
		e.HasInfo = true
		return readInfo(&e.Info, word, w)
	case "nomatch":
		e.NoMatch = true
	case "wildcard":
		e.Wildcard = true
	case "before", "after":
		return readNeighbour(s, e, word, w)
	default:
		return refuse("unknown option %q of an element", cut(word))
	}
	return err
}

func readNeighbour(s *Set, e *Entry, word string, w *words) error {
	name, err := w.arg(word)
	switch {
	case err != nil:
		return err
	case s.kind.class != classList:
		return refuse("%s has no %s", s.Type, word)
	case word == "before":
		e.Before = name
	default:
		e.After = name
	}
	return nil
}

// readInfo reads skbmark MARK[/MASK], skbprio MAJOR:MINOR and skbqueue N.
func readInfo(x *Info, word string, w *words) error {
	s, err := w.arg(word)
	if err != nil {
		return err
	}
	sep, base := "/", 0
	switch word {
	case "skbqueue":
		n, err := strconv.ParseUint(s, 0, 16)
		if err != nil {
			return refuse("%s: %q is not a number of 16 bits", word, cut(s))
		}
		x.Queue = uint16(n)
		return nil
	case "skbprio":
		sep, base = ":", 16
	}
	a, b, both := strings.Cut(s, sep)
	m, err := strconv.ParseUint(a, base, 32)
	n, err2 := uint64(1<<32-1), error(nil)
	if both {
		n, err2 = strconv.ParseUint(b, base, 32)
	}
	if err != nil || err2 != nil || word == "skbprio" && (!both || m > 0xffff || n > 0xffff) {
		return refuse("%s: %q is not what it should be", word, cut(s))
	}
	if word == "skbprio" {
		x.Prio = uint32(m<<16 | n)
		return nil
	}
	x.Mark, x.Mask = uint32(m), uint32(n)
	return nil
}
