package packet

import "encoding/binary"

// IPv4 options that a host acts on.
//
// Kernel: include/uapi/linux/ip.h, IPOPT_*.
const (
	optEnd         = 0
	optNop         = 1
	optRecordRoute = 7
	optTimestamp   = 68
	optLooseRoute  = 131
	optCIPSO       = 134
	optStrictRoute = 137
	optRouterAlert = 148
)

// What a timestamp option asks for.
const (
	stampTime     = 0 // IPOPT_TS_TSONLY
	stampBoth     = 1 // IPOPT_TS_TSANDADDR
	stampPrespec  = 3 // IPOPT_TS_PRESPEC: of the addresses that stand there
	stampKind     = 0xf
	stampOverflow = 4 // bits to shift
)

// IPOptions are a packet's IPv4 options as a host understood them on receiving it:
// where each begins, in bytes from the header's start, zero for none. The zero value
// is a packet whose options nobody has looked at, as one that was sent here.
//
// Kernel: include/net/inet_sock.h, struct ip_options.
type IPOptions struct {
	Len                                uint8 // of all options together
	SourceRoute, Record, Stamp, CIPSO  uint8
	Strict                             bool // the source route is a strict one
	RouterAlert                        bool
	RecordNeeds, StampNeeds, TimeNeeds bool // an address or a time is still to be written
	Changed                            bool // the header's checksum is to be mended
	// Nexthop is where the source route goes on to, no address where it does not.
	Nexthop Addr
}

// OptionHost is what options ask of the host that got them.
type OptionHost interface {
	// SpecDst is the address by which the sender knows the host (fib_compute_spec_dst).
	SpecDst() Addr
	// IsUnicast tells whether an address is neither local nor a broadcast or multicast.
	IsUnicast(Addr) bool
	// Milliseconds are those since midnight UT (inet_current_timestamp).
	Milliseconds() uint32
}

// HasCIPSO tells whether a packet carries a CIPSO label, which a host checks by
// settings that no snapshot has.
func (p *Packet) HasCIPSO() bool {
	ip := p.IP()
	end := min(int(ip[0]&0xf)*4, len(ip))
	for at := 20; at < end && ip[at] != optEnd; {
		switch {
		case ip[at] == optCIPSO:
			return true
		case ip[at] == optNop:
			at++
		case at+1 >= end || ip[at+1] < 2:
			return false
		default:
			at += int(ip[at+1])
		}
	}
	return false
}

// CompileOptions reads the options of an IPv4 packet, writes into them what the host
// has to say, and keeps what it found in p.Options. It returns where a bad option
// stands, counted from the header's start, zero when all are good.
//
// Kernel: net/ipv4/ip_options.c, __ip_options_compile.
func (p *Packet) CompileOptions(h OptionHost) (bad uint8) {
	ip := p.IP()
	end := min(int(ip[0]&0xf)*4, len(ip))
	p.Options = IPOptions{Len: uint8(end - 20)}
	c := optionCompiler{ip[:end], h, &p.Options}
	for at := 20; at < end; {
		switch ip[at] {
		case optEnd:
			c.clear(at + 1)
			return 0
		case optNop:
			at++
			continue
		}
		if at+2 > end || ip[at+1] < 2 || at+int(ip[at+1]) > end {
			return uint8(at)
		}
		if off := c.one(at, ip[at:at+int(ip[at+1])]); off >= 0 {
			return uint8(at + off)
		}
		at += int(ip[at+1])
	}
	return 0
}

// optionCompiler is one run of __ip_options_compile.
type optionCompiler struct {
	ip   []byte // the header
	host OptionHost
	o    *IPOptions
}

// good says that nothing is wrong with an option; other results are the offset in it
// of what is.
const good = -1

// clear writes zeros behind the end of the options.
func (c *optionCompiler) clear(from int) {
	for i := from; i < len(c.ip); i++ {
		if c.ip[i] != optEnd {
			c.ip[i], c.o.Changed = optEnd, true
		}
	}
}

// one reads the option b, which begins at at.
func (c *optionCompiler) one(at int, b []byte) int {
	switch b[0] {
	case optLooseRoute, optStrictRoute:
		return c.sourceRoute(uint8(at), b)
	case optRecordRoute:
		return c.record(uint8(at), b)
	case optTimestamp:
		return c.stamp(uint8(at), b)
	case optRouterAlert:
		if len(b) < 4 {
			return 1
		}
		c.o.RouterAlert = b[2]|b[3] == 0
	}
	return good
}

func (c *optionCompiler) sourceRoute(at uint8, b []byte) int {
	switch {
	case len(b) < 3:
		return 1
	case b[2] < 4:
		return 2
	case c.o.SourceRoute != 0:
		return 0
	}
	c.o.Strict, c.o.SourceRoute = b[0] == optStrictRoute, at
	return good
}

func (c *optionCompiler) record(at uint8, b []byte) int {
	switch {
	case c.o.Record != 0:
		return 0
	case len(b) < 3:
		return 1
	case b[2] < 4:
		return 2
	}
	if n := int(b[2]); n <= len(b) {
		if n+3 > len(b) {
			return 2
		}
		put(b[n-1:], c.host.SpecDst())
		b[2] += 4
		c.o.Changed, c.o.RecordNeeds = true, true
	}
	c.o.Record = at
	return good
}

func (c *optionCompiler) stamp(at uint8, b []byte) int {
	switch {
	case c.o.Stamp != 0:
		return 0
	case len(b) < 4:
		return 1
	case b[2] < 5:
		return 2
	}
	off := good
	if int(b[2]) <= len(b) {
		off = c.write(b)
	} else if b[3]&stampKind != stampPrespec {
		off = c.overflow(b)
	}
	if off == good {
		c.o.Stamp = at
	}
	return off
}

// overflow counts a host that found no room for its time.
func (c *optionCompiler) overflow(b []byte) int {
	if b[3]>>stampOverflow == 15 {
		return 3
	}
	b[3] += 1 << stampOverflow
	c.o.Changed = true
	return good
}

// write puts the time, and where it is asked for the address, into a timestamp option
// with room.
func (c *optionCompiler) write(b []byte) int {
	n, kind := int(b[2]), b[3]&stampKind
	if n+3 > len(b) || (kind == stampBoth || kind == stampPrespec) && n+7 > len(b) {
		return 2
	}
	switch kind {
	case stampTime:
		c.time(b, n-1, 4)
	case stampBoth:
		put(b[n-1:], c.host.SpecDst())
		c.o.StampNeeds = true
		c.time(b, n+3, 8)
	case stampPrespec:
		if !c.host.IsUnicast(AddrFrom4(b[n-1:])) {
			c.time(b, n+3, 8)
		}
	}
	return good
}

// time writes the time and moves the option's pointer by size.
func (c *optionCompiler) time(b []byte, at int, size byte) {
	binary.BigEndian.PutUint32(b[at:], c.host.Milliseconds())
	b[2] += size
	c.o.TimeNeeds, c.o.Changed = true, true
}

// NextSource returns the addresses that are left of the packet's source route and
// the offset in the option of the first; whole is false where the last is cut short.
// CompileOptions must have found one.
func (p *Packet) NextSource() (addrs []Addr, whole bool) {
	b := p.option(p.Options.SourceRoute)
	for n := int(b[2]); n <= len(b); n += 4 {
		if n+3 > len(b) {
			return addrs, false
		}
		addrs = append(addrs, AddrFrom4(b[n-1:]))
	}
	return addrs, true
}

// ForwardOptions finishes the options of a packet that is forwarded and mends its
// checksum. source is the address with which this host would send it, asked anew
// because the destination may change on the way.
//
// Kernel: net/ipv4/ip_options.c, ip_forward_options.
func (p *Packet) ForwardOptions(source func() Addr) {
	o, ip := &p.Options, p.IP()
	if o.RecordNeeds {
		b := ip[o.Record:]
		put(b[int(b[2])-5:], source())
		o.Changed = true
	}
	if !o.Nexthop.IsZero() {
		p.forwardRoute(source)
		if o.StampNeeds {
			b := ip[o.Stamp:]
			put(b[int(b[2])-9:], source())
		}
	}
	if o.Changed {
		o.Changed = false
		FixIP4(ip)
	}
}

// forwardRoute sends the packet to the next address of its source route and leaves
// this host's own in its place.
func (p *Packet) forwardRoute(source func() Addr) {
	b := p.option(p.Options.SourceRoute)
	for n := int(b[2]); n+3 <= len(b); n += 4 {
		if AddrFrom4(b[n-1:]) != p.Options.Nexthop {
			continue
		}
		copy(p.IP()[16:20], p.Options.Nexthop.Bytes())
		put(b[n-1:], source())
		b[2] = byte(n + 4)
		p.Options.Changed = true
		return
	}
}

// put writes an IPv4 address.
func put(b []byte, a Addr) { copy(b[:4], a[12:]) }
