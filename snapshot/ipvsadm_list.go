package snapshot

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// ipvsColumns are what a list tells of real servers beside address and port.
type ipvsColumns []string

func (c ipvsColumns) has(name string) bool { return slices.Contains(c, name) }

// ipvsListing is one list of services, in the order of the file.
type ipvsListing struct {
	*serviceList
	columns ipvsColumns
	hex     bool // /proc/net/ip_vs
}

// parseIPVSList reads `ipvsadm -L -n` with --nosort, --thresholds, --persistent-conn or
// --tun-info, or /proc/net/ip_vs, whose times are ticks of which a second has hz.
func parseIPVSList(file string, data []byte, hz int) (*ipvsListing, error) {
	l := &ipvsListing{serviceList: newServiceList(bytes.Count(data, []byte{'\n'})),
		columns: ipvsColumns{"Forward", "Weight", "ActiveConn", "InActConn"}}
	r := listReader{list: l, hz: hz}
	var words []string
	err := eachLine(file, data, func(p place, line string) error {
		words = words[:0] // one room for all lines
		for w := range strings.FieldsSeq(line) {
			words = append(words, w)
		}
		r.wordList = wordList{p, words}
		return r.line(line)
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// listReader reads a list line by line.
type listReader struct {
	wordList
	list *ipvsListing
	hz   int
	// headed tells that a heading said how addresses are written.
	headed bool
}

func (r *listReader) line(text string) error {
	switch {
	case strings.HasPrefix(text, "IP Virtual Server version"):
		return nil
	case r.peek() == "Prot":
		return r.heading(r.words[1:])
	case r.peek() == "->":
		r.next()
		if r.peek() == "RemoteAddress:Port" {
			// Only ipvsadm has this column 28 wide.
			r.list.hex, r.headed = strings.Contains(text, "RemoteAddress:Port Forward"), true
			return r.heading(r.words)
		}
		return r.server()
	}
	return r.service()
}

// heading takes the names of columns from one of the two lines of the heading.
func (r *listReader) heading(names []string) error {
	if len(names) < 2 || names[1] == "Scheduler" {
		return nil
	}
	for _, name := range names[1:] {
		switch name {
		case "Forward", "TunnelInfo", "Weight", "ActiveConn", "InActConn", "PersistConn",
			"Uthreshold", "Lthreshold":
		default:
			return r.errorf("column %q: a list with --stats or --rate does not tell what is needed",
				name)
		}
	}
	r.list.columns = slices.Clone(names[1:])
	return nil
}

// service reads "TCP  10.0.0.1:80 sh (sh-port) persistent 300".
func (r *listReader) service() (err error) {
	var s ipvs.Service
	proto := r.next()
	end := r.next()
	if !r.headed {
		r.list.hex, r.headed = isHexEnd(proto, end), true
	}
	switch proto {
	case "FWM":
		if err = r.markService(&s, end); err != nil {
			return err
		}
	case "TCP", "UDP", "SCTP":
		e, err := r.end("service", end)
		if err != nil {
			return err
		}
		s.Family, s.Addr, s.Port = e.family, e.addr, uint16(max(e.port, 0))
		s.Proto = map[string]uint8{"TCP": packet.TCP, "UDP": packet.UDP, "SCTP": packet.SCTP}[proto]
	default:
		return r.errorf("%q is not a line of ipvsadm -L -n", proto)
	}
	if s.Scheduler, err = ipvsName(r.place, "scheduler", r.next()); err != nil {
		return err
	}
	s.Mask = allBits(s.Family)
	for !r.empty() {
		if err := r.word(&s, r.next()); err != nil {
			return err
		}
	}
	return r.list.addService(r.place, s)
}

// isHexEnd tells the form of /proc by its first service, where no heading tells it.
func isHexEnd(proto, end string) bool {
	host, _, _ := strings.Cut(end, ":")
	if proto == "FWM" {
		return len(end) == 8 && end[0] != '-' // ipvsadm writes no zeros before
	}
	return len(host) == 8 && !strings.Contains(host, ".")
}

func (r *listReader) end(what, s string) (ipvsEnd, error) {
	if r.list.hex {
		return ipvsHexEnd(r.place, what, s)
	}
	return ipvsEndOf(r.place, what, s)
}

func (r *listReader) markService(s *ipvs.Service, mark string) (err error) {
	base := 10
	if r.list.hex {
		base = 16
	}
	if s.Mark, err = ipvsMark(r.place, "FWM", mark, base); err != nil {
		return err
	}
	if _, twice := r.list.numbers[serviceKey{mark: s.Mark}]; twice && r.list.hex {
		return r.unsupported("FWM "+mark, "/proc/net/ip_vs does not tell which of two services "+
			"with one mark is that of IPv6: ipvsadm -L -n does")
	}
	if r.accept("IPv6") {
		s.Family = trace.IPv6
	}
	return nil
}

// word reads what follows the scheduler.
func (r *listReader) word(s *ipvs.Service, w string) (err error) {
	switch {
	case w == "ops":
		s.Flags |= ipvs.OnePacket
	case w == "persistent":
		return r.persistence(s)
	case w == "mask" && s.Timeout != 0:
		s.Mask, err = ipvsMask(r.place, w, r.next(), s.Family)
	case w == "pe" && s.Timeout != 0:
		s.PE, err = ipvsName(r.place, w, r.next())
	case strings.HasPrefix(w, "(") && strings.HasSuffix(w, ")"):
		flags, err := ipvsFlags(r.place, "flags", w[1:len(w)-1], s.Scheduler)
		s.Flags |= flags
		return err
	default:
		return r.errorf("%q is not understood", w)
	}
	return err
}

// persistence reads "persistent 300", or "persistent 30000 FFFFFF00" of /proc.
func (r *listReader) persistence(s *ipvs.Service) error {
	n, err := ipvsNumber(r.place, "persistent", r.next(), math.MaxUint32)
	if err != nil {
		return err
	}
	s.Timeout = uint32(n)
	if r.list.hex {
		s.Timeout = uint32(n / uint64(r.hz))
	}
	if s.Timeout == 0 {
		return r.errorf("persistent: %d is no time", n)
	}
	if !r.list.hex {
		return nil
	}
	return r.hexMask(s)
}

// hexMask reads a mask of /proc. That of IPv6 is a prefix length with its bytes turned
// round, by which a mark's service shows that it is one of IPv6: as a netmask it would
// have gaps, but for 128, which is the netmask of one bit.
func (r *listReader) hexMask(s *ipvs.Service) error {
	word := r.next()
	n, err := strconv.ParseUint(word, 16, 32)
	if err != nil {
		return r.errorf("mask: %q is not a number as /proc writes it", word)
	}
	if bits, ok := maskBits(uint32(n)); ok && s.Family == trace.IPv4 && (s.Mark == 0 || bits != 1) {
		s.Mask = bits
		return nil
	}
	length, low := n>>24, n&0xffffff
	if low != 0 || length < 1 || length > 128 || s.Mark == 0 && s.Family == trace.IPv4 {
		return r.unsupported("mask "+word, "the netmask has gaps")
	}
	s.Family, s.Mask = trace.IPv6, int(length)
	return nil
}

// server reads a real server's line, whose arrow is taken.
func (r *listReader) server() error {
	number := len(r.list.services) - 1
	if number < 0 {
		return r.errorf("a real server stands before the first service")
	}
	e, err := r.end("real server", r.next())
	if err != nil {
		return err
	}
	d := ipvs.Dest{Addr: e.addr, Port: uint16(max(e.port, 0)), Method: ipvs.Tunnel}
	for _, name := range r.list.columns {
		if err := r.column(&d, name, r.next()); err != nil {
			return err
		}
	}
	if !r.empty() {
		return r.errorf("%q: more than the heading has columns", r.peek())
	}
	s := &r.list.services[number]
	if r.list.hex && s.Mark != 0 && e.family == trace.IPv6 && s.Family == trace.IPv4 {
		return r.turnIPv6(number, d)
	}
	return r.list.addDest(r.place, number, d)
}

// turnIPv6 makes a mark's service of /proc, which does not tell the family, one of IPv6.
func (r *listReader) turnIPv6(number int, d ipvs.Dest) error {
	s := &r.list.services[number]
	old := keyOf(s)
	s.Family, s.Mask = trace.IPv6, allBits(trace.IPv6)
	if _, ok := r.list.numbers[keyOf(s)]; ok {
		return r.errorf("the service %s is there twice", s.String())
	}
	delete(r.list.numbers, old)
	r.list.numbers[keyOf(s)] = number
	return r.list.addDest(r.place, number, d)
}

// column reads one column.
func (r *listReader) column(d *ipvs.Dest, name, val string) (err error) {
	count := func(to *int32) {
		var n uint64
		n, err = ipvsNumber(r.place, name, val, math.MaxInt32)
		*to = int32(n)
	}
	var n int32
	switch name {
	case "Forward":
		return r.forward(d, val)
	case "TunnelInfo":
		return r.tunnelInfo(d, val)
	case "Weight":
		count(&n)
		d.Weight = int(n)
	case "Uthreshold":
		count(&n)
		d.Upper = uint32(n)
	case "Lthreshold":
		count(&n)
		d.Lower = uint32(n)
	case "ActiveConn":
		count(&d.Counts.Active)
	case "InActConn":
		count(&d.Counts.Inactive)
	default:
		count(&d.Counts.Persistent)
	}
	return err
}

func (r *listReader) forward(d *ipvs.Dest, val string) error {
	for _, m := range []ipvs.Method{ipvs.Masq, ipvs.Tunnel, ipvs.Direct} {
		if val == m.String() {
			d.Method = m
			return nil
		}
	}
	if val == ipvs.LocalNode.String() {
		return r.unsupported("Forward: Local", "only kernels before 2.6.37 say so")
	}
	return r.errorf("Forward: %q is not Masq, Tunnel or Route", val)
}

// tunnelInfo reads "n/a", "ipip", "gre:+c", "gue:6080:r+c".
func (r *listReader) tunnelInfo(d *ipvs.Dest, val string) (err error) {
	if val == "n/a" {
		return nil
	}
	parts := strings.Split(val, ":")
	encap, ok := encapOf(parts[0])
	want := map[ipvs.Encap]int{ipvs.IPIP: 1, ipvs.GRE: 2, ipvs.GUE: 3}[encap]
	if !ok || len(parts) != want {
		return r.errorf("TunnelInfo: %q is not understood", val)
	}
	d.Encap = encap
	if encap == ipvs.GUE {
		port, err := ipvsPort(r.place, "TunnelInfo", parts[1], 10)
		if err != nil {
			return err
		}
		d.EncapPort = uint16(port)
	}
	if encap == ipvs.IPIP {
		return nil
	}
	switch sum := parts[len(parts)-1]; sum {
	case "-c":
	case "+c":
		d.EncapFlags = ipvs.EncapCsum
	case "r+c":
		d.EncapFlags = ipvs.EncapRemCsum
	default:
		return r.errorf("TunnelInfo: %q is not -c, +c or r+c", sum)
	}
	return nil
}
