package snapshot

import (
	"bytes"
	"math"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// defaultPersistence is -p without a time. Its manual says 300; ipvsadm 1.31 sets 360.
const defaultPersistence = 360

// parseIPVSSave reads `ipvsadm -S -n`, or what ipvsadm -R takes: lines with -A or -a. The
// real servers come out in the order that the kernel's list has after these commands: the
// one that was added last first.
func parseIPVSSave(file string, data []byte) (*serviceList, error) {
	list := newServiceList(bytes.Count(data, []byte{'\n'}))
	var words, seen []string // one room for all lines
	var l saveLine
	err := eachLine(file, data, func(p place, text string) error {
		if strings.HasPrefix(text, "#") {
			return nil
		}
		words = splitOptions(words[:0], text)
		l = saveLine{wordList: wordList{p, words}, method: ipvs.Direct, seen: seen[:0]}
		l.accept("ipvsadm")
		err := l.read(list)
		seen = l.seen
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range list.services {
		list.reverse(i)
	}
	return list, nil
}

// splitOptions appends the words of a line; --option=value makes two.
func splitOptions(words []string, text string) []string {
	for w := range strings.FieldsSeq(text) {
		name, val, ok := strings.Cut(w, "=")
		if ok && strings.HasPrefix(name, "--") {
			words = append(words, name, val)
			continue
		}
		words = append(words, w)
	}
	return words
}

// reverse turns the real servers of a service round.
func (l *serviceList) reverse(service int) {
	dests := l.services[service].Dests
	slices.Reverse(dests)
	for i := range dests {
		l.dests[destKey{service, dests[i].Addr, dests[i].Port}] = i
	}
}

// saveLine is one command.
type saveLine struct {
	wordList
	server      bool // -a, not -A
	named       bool // -t, -u, --sctp-service or -f was there
	v6          bool
	svc         ipvs.Service
	flags, mask string
	real        ipvsEnd
	hasReal     bool
	method      ipvs.Method
	dest        ipvs.Dest
	tunnel      string // the last option of a tunnel
	seen        []string
}

func (l *saveLine) read(list *serviceList) error {
	switch cmd := l.next(); cmd {
	case "-A", "--add-service":
	case "-a", "--add-server":
		l.server = true
	default:
		return l.errorf("%q: a saved table has only -A and -a", cmd)
	}
	l.dest.Weight, l.svc.Scheduler = 1, "wlc"
	for !l.empty() {
		if err := l.option(l.next()); err != nil {
			return err
		}
	}
	if err := l.service(); err != nil {
		return err
	}
	if l.server {
		return l.addServer(list)
	}
	return l.addService(list)
}

// option reads one option.
func (l *saveLine) option(o string) error {
	read := l.serviceOption
	switch o {
	case "-t", "--tcp-service", "-u", "--udp-service", "--sctp-service", "-f",
		"--fwmark-service", "-6", "--ipv6":
		read = l.name
	case "-r", "--real-server", "-g", "--gatewaying", "-i", "--ipip", "-m", "--masquerading",
		"-w", "--weight", "-x", "--u-threshold", "-y", "--l-threshold":
		read = l.serverOption
	case "--tun-type", "--tun-port", "--tun-nocsum", "--tun-csum", "--tun-remcsum":
		l.tunnel, read = o, l.tunnelOption
	}
	if slices.Contains(l.seen, o) {
		return l.errorf("%s is there twice", o)
	}
	l.seen = append(l.seen, o)
	return read(o)
}

// name reads what names the service.
func (l *saveLine) name(o string) (err error) {
	if o == "-6" || o == "--ipv6" {
		l.v6 = true
		return nil
	}
	if l.named {
		return l.errorf("%s: the service has a name already", o)
	}
	l.named = true
	val, err := l.value(o)
	if err != nil {
		return err
	}
	switch o {
	case "-f", "--fwmark-service":
		l.svc.Mark, err = ipvsMark(l.place, o, val, 10)
		return err
	case "-u", "--udp-service":
		l.svc.Proto = packet.UDP
	case "--sctp-service":
		l.svc.Proto = packet.SCTP
	default:
		l.svc.Proto = packet.TCP
	}
	e, err := ipvsEndOf(l.place, o, val)
	l.svc.Family, l.svc.Addr, l.svc.Port = e.family, e.addr, uint16(max(e.port, 0))
	return err
}

// serviceOption reads an option of -A.
func (l *saveLine) serviceOption(o string) (err error) {
	switch o {
	case "-o", "--ops":
		l.svc.Flags |= ipvs.OnePacket
		return l.onlyFor(o, false)
	case "-p", "--persistent":
		l.svc.Timeout = defaultPersistence
		if l.empty() || strings.HasPrefix(l.peek(), "-") {
			return l.onlyFor(o, false)
		}
	case "-s", "--scheduler", "-M", "--netmask", "--pe", "-b", "--sched-flags":
	default:
		return l.errorf("%q is not an option of ipvsadm -A or -a", o)
	}
	val, err := l.value(o)
	if err != nil {
		return err
	}
	switch o {
	case "-p", "--persistent":
		n, err := ipvsNumber(l.place, o, val, math.MaxUint32)
		if err == nil && n == 0 {
			err = l.errorf("%s: 0 is no time", o)
		}
		l.svc.Timeout = uint32(n)
		return err
	case "-s", "--scheduler":
		l.svc.Scheduler, err = ipvsName(l.place, o, val)
	case "--pe":
		l.svc.PE, err = ipvsName(l.place, o, val)
	case "-M", "--netmask":
		l.mask = val
	default:
		l.flags = val
	}
	if err != nil {
		return err
	}
	return l.onlyFor(o, false)
}

// onlyFor refuses an option of real servers with services, or the other way.
func (l *saveLine) onlyFor(o string, server bool) error {
	if l.server != server {
		return l.errorf("%s: does not go with -%s", o, map[bool]string{true: "a", false: "A"}[l.server])
	}
	return nil
}

// serverOption reads an option of -a.
func (l *saveLine) serverOption(o string) error {
	if err := l.onlyFor(o, true); err != nil {
		return err
	}
	switch o {
	case "-g", "--gatewaying":
		l.method = ipvs.Direct
		return nil
	case "-i", "--ipip":
		l.method = ipvs.Tunnel
		return nil
	case "-m", "--masquerading":
		l.method = ipvs.Masq
		return nil
	}
	val, err := l.value(o)
	if err != nil {
		return err
	}
	if o == "-r" || o == "--real-server" {
		l.real, err = ipvsEndOf(l.place, o, val)
		l.hasReal = true
		return err
	}
	n, err := ipvsNumber(l.place, o, val, math.MaxInt32)
	switch o {
	case "-w", "--weight":
		l.dest.Weight = int(n)
	case "-x", "--u-threshold":
		l.dest.Upper = uint32(n)
	default:
		l.dest.Lower = uint32(n)
	}
	return err
}

// tunnelOption reads an option of a tunnel.
func (l *saveLine) tunnelOption(o string) error {
	d := &l.dest
	if err := l.onlyFor(o, true); err != nil {
		return err
	}
	switch o {
	case "--tun-nocsum":
		d.EncapFlags = 0
		return nil
	case "--tun-csum":
		d.EncapFlags = ipvs.EncapCsum
		return nil
	case "--tun-remcsum":
		d.EncapFlags = ipvs.EncapRemCsum
		return nil
	}
	val, err := l.value(o)
	if err != nil {
		return err
	}
	if o == "--tun-port" {
		n, err := ipvsPort(l.place, o, val, 10)
		d.EncapPort = uint16(n)
		return err
	}
	e, ok := encapOf(val)
	if !ok {
		return l.errorf("%s: %q is not ipip, gue or gre", o, val)
	}
	d.Encap = e
	return nil
}

func encapOf(word string) (ipvs.Encap, bool) {
	for _, e := range []ipvs.Encap{ipvs.IPIP, ipvs.GUE, ipvs.GRE} {
		if e.String() == word {
			return e, true
		}
	}
	return 0, false
}

// service completes what names the service.
func (l *saveLine) service() error {
	if !l.named {
		return l.errorf("no service is named: expected -t, -u, --sctp-service or -f")
	}
	if l.v6 {
		if l.svc.Mark == 0 {
			return l.errorf("-6: only goes with -f")
		}
		l.svc.Family = trace.IPv6
	}
	return nil
}

func (l *saveLine) addService(list *serviceList) (err error) {
	s := &l.svc
	s.Mask = allBits(s.Family)
	if s.Timeout == 0 && (l.mask != "" || s.PE != "") {
		return l.errorf("-M and --pe need -p")
	}
	if l.mask != "" {
		if s.Mask, err = ipvsMask(l.place, "-M", l.mask, s.Family); err != nil {
			return err
		}
	}
	if l.flags != "" {
		flags, err := ipvsFlags(l.place, "-b", l.flags, s.Scheduler)
		if err != nil {
			return err
		}
		s.Flags |= flags
	}
	return list.addService(l.place, *s)
}

// allBits is the length of an address.
func allBits(f trace.Family) int {
	if f == trace.IPv6 {
		return 128
	}
	return 32
}

func (l *saveLine) addServer(list *serviceList) error {
	service, ok := list.numbers[keyOf(&l.svc)]
	if !ok {
		return l.errorf("there is no -A for the service %s", l.svc.String())
	}
	if !l.hasReal {
		return l.errorf("-r: the real server is missing")
	}
	d := &l.dest
	d.Addr, d.Method = l.real.addr, l.method
	d.Port = uint16(max(l.real.port, 0))
	// ipvsadm does not ask: only NAT can change a port.
	if s := &list.services[service]; s.Mark == 0 && (l.real.port < 0 || d.Method != ipvs.Masq) {
		d.Port = s.Port
	}
	if err := l.checkTunnel(); err != nil {
		return err
	}
	return list.addDest(l.place, service, *d)
}

// checkTunnel sees that a tunnel's options fit.
func (l *saveLine) checkTunnel() error {
	d := &l.dest
	switch {
	case l.tunnel == "":
		return nil
	case d.Method != ipvs.Tunnel:
		return l.errorf("%s: only goes with -i", l.tunnel)
	case d.Encap == ipvs.GUE && d.EncapPort == 0:
		return l.errorf("--tun-type gue: needs --tun-port")
	case d.Encap != ipvs.GUE && d.EncapPort != 0:
		return l.errorf("--tun-port: only goes with --tun-type gue")
	case d.Encap != ipvs.GUE && d.EncapFlags&ipvs.EncapRemCsum != 0:
		return l.errorf("--tun-remcsum: only goes with --tun-type gue")
	case d.Encap == ipvs.IPIP && d.EncapFlags != 0:
		return l.errorf("--tun-csum: does not go with --tun-type ipip")
	}
	return nil
}
