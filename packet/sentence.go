package packet

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Sentence is a question about one packet as people say it: "tcp 10.0.0.5:40000 to
// 10.96.0.1:443 in eth0". What was not said has its Given bit clear.
type Sentence struct {
	Proto        uint8
	Src, Dst     Addr // the zero Src was left out
	SPort, DPort uint16
	ICMPType     uint8
	ICMPCode     uint8
	ICMPID       uint16
	Flags        uint8 // of TCP
	Mark         uint32
	TTL, TOS     uint8
	Len          int
	UID, GID     uint32
	MACSrc       MAC
	MACDst       MAC
	VLAN         uint16
	CT           string // the state that tracking is to find: new, established ...
	In           string // interface, or host:interface
	Out          string // the same; empty with Local for any
	Local        bool   // sent by a program on the host
	ToHost       bool   // for this host, whatever the routes say where they are open
	Forward      bool   // for another host
	Given        Given
}

// Given tells which parts of a Sentence were said.
type Given uint32

// The parts.
const (
	GivenSPort Given = 1 << iota
	GivenDPort
	GivenICMP
	GivenICMPID
	GivenFlags
	GivenMark
	GivenTTL
	GivenTOS
	GivenLen
	GivenUID
	GivenGID
	GivenMAC
	GivenVLAN
)

// Has tells whether a part was said.
func (s *Sentence) Has(g Given) bool { return s.Given&g != 0 }

// sentenceProtos are the words that a sentence begins with.
var sentenceProtos = map[string]uint8{"tcp": TCP, "udp": UDP, "icmp": ICMP, "sctp": SCTP,
	"dccp": DCCP, "udplite": UDPLite, "gre": GRE, "esp": ESP, "ah": AH, "igmp": IGMP, "ipip": IPIP}

// icmpWords are the ICMP types that have a name in a sentence.
var icmpWords = map[string]uint8{"echo": 8, "echo-request": 8, "ping": 8, "echo-reply": 0,
	"pong": 0, "unreachable": 3, "destination-unreachable": 3, "redirect": 5,
	"time-exceeded": 11, "parameter-problem": 12, "timestamp": 13}

// ParseSentence reads a sentence. The notation "tcp a:1 > b:2" is one, too.
func ParseSentence(text string) (*Sentence, error) {
	p := sentenceParser{words: strings.Fields(text), s: &Sentence{}}
	if len(p.words) > 200 {
		return nil, fmt.Errorf("the sentence has more than 200 words")
	}
	if err := p.proto(); err != nil {
		return nil, err
	}
	if err := p.ends(); err != nil {
		return nil, err
	}
	for len(p.words) > 0 {
		if err := p.option(); err != nil {
			return nil, err
		}
	}
	return p.s, p.check()
}

type sentenceParser struct {
	words []string
	s     *Sentence
	said  []string // options
}

// once refuses what is said twice: one of the two would be ignored.
func (p *sentenceParser) once(option string) error {
	if slices.Contains(p.said, option) {
		return fmt.Errorf("%s is said twice", option)
	}
	p.said = append(p.said, option)
	return nil
}

func (p *sentenceParser) peek() string {
	if len(p.words) == 0 {
		return ""
	}
	return p.words[0]
}

func (p *sentenceParser) next() string {
	w := p.peek()
	if len(p.words) > 0 {
		p.words = p.words[1:]
	}
	return w
}

// proto reads the protocol and what an ICMP sentence says behind it.
func (p *sentenceParser) proto() error {
	w := p.next()
	if w == "proto" {
		w = p.next()
	}
	n, ok := sentenceProtos[strings.ToLower(w)]
	if !ok {
		v, err := strconv.ParseUint(w, 10, 8)
		if err != nil {
			return fmt.Errorf("%q is not a protocol: a packet is written as "+
				"\"tcp 10.0.0.5:40000 to 10.0.0.1:80 in eth0\"", w)
		}
		n = uint8(v)
	}
	p.s.Proto = n
	if typ, ok := icmpWords[p.peek()]; ok && n == ICMP {
		p.next()
		return p.icmp(typ)
	}
	return nil
}

func (p *sentenceParser) icmp(typ uint8) error {
	p.s.ICMPType = typ
	p.s.Given |= GivenICMP
	return p.once("the icmp type")
}

// ends reads "[SOURCE] to DESTINATION".
func (p *sentenceParser) ends() (err error) {
	if w := p.peek(); w != "to" && w != ">" {
		if p.s.Src, p.s.SPort, err = p.end(GivenSPort, "sport"); err != nil {
			return err
		}
	}
	if w := p.next(); w != "to" && w != ">" {
		return fmt.Errorf("the destination is missing: write \"to ADDRESS:PORT\" behind the " +
			"source (the shell takes an unquoted >)")
	}
	p.s.Dst, p.s.DPort, err = p.end(GivenDPort, "dport")
	return err
}

// end reads ADDRESS or ADDRESS:PORT, whose port an option could give too.
func (p *sentenceParser) end(bit Given, option string) (Addr, uint16, error) {
	w := p.next()
	if w == "" {
		return Addr{}, 0, fmt.Errorf("an address is missing at the end of the sentence")
	}
	if a, err := netip.ParseAddr(strings.Trim(w, "[]")); err == nil && a.Zone() == "" {
		return AddrFrom(a), 0, nil
	}
	ap, err := netip.ParseAddrPort(w)
	if err != nil || ap.Addr().Zone() != "" {
		return Addr{}, 0, fmt.Errorf("%q is not ADDRESS or ADDRESS:PORT, in numbers", w)
	}
	p.s.Given |= bit
	p.said = append(p.said, option)
	return AddrFrom(ap.Addr()), ap.Port(), nil
}

// option reads one part behind the destination.
func (p *sentenceParser) option() error {
	s, w := p.s, p.next()
	if w != "out" { // as in "out out eth1"
		if err := p.once(w); err != nil {
			return err
		}
	}
	switch w {
	case "in":
		return p.word(w, &s.In)
	case "out":
		if isSentenceWord(p.peek()) {
			s.Local = true
			return nil
		}
		if s.Out != "" {
			return fmt.Errorf("out is said twice")
		}
		return p.word(w, &s.Out)
	case "local":
		s.ToHost = true
	case "forward":
		s.Forward = true
	case "flags":
		return p.flags()
	case "ct":
		return p.state()
	case "mac":
		return p.macs()
	case "echo", "echo-request", "echo-reply", "ping", "pong", "unreachable", "time-exceeded":
		if s.Proto != ICMP {
			return fmt.Errorf("%q says something about icmp only", w)
		}
		return p.icmp(icmpWords[w])
	default:
		return p.number(w)
	}
	return nil
}

// isSentenceWord tells a keyword (or the end) from the name of a device.
func isSentenceWord(w string) bool {
	switch w {
	case "", "in", "out", "local", "forward", "flags", "ct", "mac", "mark", "ttl", "tos", "len", "uid",
		"gid", "vlan", "type", "code", "id", "sport", "dport", "proto":
		return true
	}
	return false
}

func (p *sentenceParser) word(option string, into *string) error {
	w := p.next()
	dev := w[strings.LastIndexByte(w, ':')+1:]
	if dev == "" || len(dev) > 15 || strings.Contains(dev, "/") {
		return fmt.Errorf("%s: %q is not the name of an interface", option, w)
	}
	*into = w
	return nil
}

// number reads the options whose argument is a number.
func (p *sentenceParser) number(option string) error {
	s := p.s
	widths := map[string]int{"mark": 32, "ttl": 8, "tos": 8, "len": 16, "uid": 32, "gid": 32,
		"vlan": 12, "type": 8, "code": 8, "id": 16, "sport": 16, "dport": 16}
	bits, ok := widths[option]
	if !ok {
		return fmt.Errorf("%q is not understood: expected in, out, local, forward, mark, flags, "+
			"ttl, tos, len, uid, gid, mac, vlan, ct, type, code or id", option)
	}
	n, err := strconv.ParseUint(p.peek(), 0, bits)
	if err != nil {
		return fmt.Errorf("%s: %q is not a number of %d bits", option, p.peek(), bits)
	}
	p.next()
	switch option {
	case "mark":
		s.Mark, s.Given = uint32(n), s.Given|GivenMark
	case "ttl":
		s.TTL, s.Given = uint8(n), s.Given|GivenTTL
	case "tos":
		s.TOS, s.Given = uint8(n), s.Given|GivenTOS
	case "len":
		s.Len, s.Given = int(n), s.Given|GivenLen
	case "uid":
		s.UID, s.Given = uint32(n), s.Given|GivenUID
	case "gid":
		s.GID, s.Given = uint32(n), s.Given|GivenGID
	case "vlan":
		s.VLAN, s.Given = uint16(n), s.Given|GivenVLAN
	case "sport":
		s.SPort, s.Given = uint16(n), s.Given|GivenSPort
	case "dport":
		s.DPort, s.Given = uint16(n), s.Given|GivenDPort
	case "type":
		return p.icmp(uint8(n))
	case "code":
		s.ICMPCode, s.Given = uint8(n), s.Given|GivenICMP
	case "id":
		s.ICMPID, s.Given = uint16(n), s.Given|GivenICMPID
	}
	return nil
}

// tcpLetters are the letters of TCP's flags from the lowest bit on.
const tcpLetters = "FSRPAUEC"

// flags reads letters (SA) or names (SYN,ACK).
func (p *sentenceParser) flags() error {
	w := strings.ToUpper(p.next())
	p.s.Given |= GivenFlags
	names := map[string]uint8{"FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 16, "URG": 32,
		"ECE": 64, "CWR": 128, "NONE": 0}
	if n, ok := flagNames(w, names); ok {
		p.s.Flags = n
		return nil
	}
	for _, c := range w {
		i := strings.IndexRune(tcpLetters, c)
		if i < 0 {
			return fmt.Errorf("flags: %q is not a list of the letters %s or of names", w, tcpLetters)
		}
		p.s.Flags |= 1 << i
	}
	if w == "" {
		return fmt.Errorf("flags: the value is missing")
	}
	return nil
}

func flagNames(w string, names map[string]uint8) (n uint8, ok bool) {
	for _, f := range strings.Split(w, ",") {
		bit, ok := names[f]
		if !ok {
			return 0, false
		}
		n |= bit
	}
	return n, true
}

func (p *sentenceParser) state() error {
	w := strings.ToLower(p.next())
	switch w {
	case "new", "established", "related", "invalid", "untracked":
		p.s.CT = w
		return nil
	}
	return fmt.Errorf("ct: %q is not new, established, related, invalid or untracked", w)
}

// macs reads "AA to BB": the frame's source and destination.
func (p *sentenceParser) macs() (err error) {
	if p.s.MACSrc, err = ParseMAC(p.next()); err != nil {
		return err
	}
	if w := p.next(); w != "to" && w != ">" {
		return fmt.Errorf("mac: write \"mac SOURCE to DESTINATION\"")
	}
	p.s.Given |= GivenMAC
	p.s.MACDst, err = ParseMAC(p.next())
	return err
}

// ParseMAC reads six hexadecimal octets with colons between them.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	parts := strings.Split(s, ":")
	if len(parts) != len(m) {
		return m, fmt.Errorf("%q is not a MAC address", s)
	}
	for i, x := range parts {
		n, err := strconv.ParseUint(x, 16, 8)
		if err != nil || len(x) > 2 {
			return MAC{}, fmt.Errorf("%q is not a MAC address", s)
		}
		m[i] = byte(n)
	}
	return m, nil
}

// check refuses what does not go together.
func (p *sentenceParser) check() error {
	s := p.s
	// "out eth1" without a device in is a program that sends by eth1.
	s.Local = s.Local || s.Out != "" && s.In == ""
	switch {
	case s.Local && s.In != "":
		return fmt.Errorf("in and out exclude each other for a packet that a program sends")
	case s.Local && s.ToHost && s.Forward, s.ToHost && s.Forward:
		return fmt.Errorf("local and forward exclude each other")
	case s.Src != (Addr{}) && s.Src.Is4() != s.Dst.Is4():
		return fmt.Errorf("source and destination are of different families")
	case !HasPorts(s.Proto) && s.Has(GivenSPort|GivenDPort):
		return fmt.Errorf("protocol %d has no ports", s.Proto)
	case s.Has(GivenFlags) && s.Proto != TCP:
		return fmt.Errorf("flags are of tcp only")
	case s.Has(GivenICMP|GivenICMPID) && s.Proto != ICMP:
		return fmt.Errorf("type, code and id are of icmp only")
	case s.Has(GivenUID|GivenGID) && !s.Local:
		return fmt.Errorf("uid and gid belong to a packet that a program sends: add out")
	}
	return nil
}
