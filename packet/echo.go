package packet

import "encoding/binary"

// Echo are the options with which a host answers a packet that had some. The zero
// Echo has none.
//
// Kernel: include/net/inet_sock.h, struct ip_options, as __ip_options_echo makes it.
type Echo struct {
	Data []byte // a multiple of four bytes
	// FirstHop is where the answer goes first, no address without a source route.
	FirstHop Addr

	record, stamp, route  int // where they begin in Data, plus one
	address, stampAddress bool
	time, strict          bool
}

// Echo returns the options of an answer to the packet. unicast tells whether an
// address is neither local nor a broadcast or multicast. It is false where the kernel
// answers nothing.
//
// Kernel: net/ipv4/ip_options.c, __ip_options_echo.
func (p *Packet) Echo(unicast func(Addr) bool) (Echo, bool) {
	var e Echo
	o := &p.Options
	if o.Len == 0 {
		return e, true
	}
	if o.Record != 0 && !e.echoRecord(p.option(o.Record), o) ||
		o.Stamp != 0 && !e.echoStamp(p.option(o.Stamp), o, unicast) {
		return Echo{}, false
	}
	if o.SourceRoute != 0 {
		e.echoRoute(p.option(o.SourceRoute), p.Src())
		e.strict = o.Strict && e.route != 0
	}
	for len(e.Data)%4 != 0 {
		e.Data = append(e.Data, optEnd)
	}
	return e, true
}

// Own is what the answer keeps of its options once Build has written them.
//
// Kernel: net/ipv4/ip_options.c, ip_options_build, IPCB(skb)->opt.
func (e *Echo) Own() IPOptions {
	at := func(n int) uint8 {
		if n == 0 {
			return 0
		}
		return uint8(20 + n - 1)
	}
	return IPOptions{Len: uint8(len(e.Data)), SourceRoute: at(e.route), Record: at(e.record),
		Stamp: at(e.stamp), Strict: e.strict, RecordNeeds: e.address,
		StampNeeds: e.stampAddress, TimeNeeds: e.time}
}

// option is the option that begins at an offset of the header.
func (p *Packet) option(at uint8) []byte {
	b := p.IP()[at:]
	return b[:b[1]]
}

// echoRecord goes on with the record where it stands, if this host has a place in it.
func (e *Echo) echoRecord(b []byte, o *IPOptions) bool {
	e.record = len(e.Data) + 1
	e.Data = append(e.Data, b...)
	n := int(b[2])
	if !o.RecordNeeds || n > len(b) {
		return true
	}
	e.Data[e.record+1] = byte(n + 4)
	e.address = true
	return n+3 <= len(b)
}

func (e *Echo) echoStamp(b []byte, o *IPOptions, unicast func(Addr) bool) bool {
	e.stamp = len(e.Data) + 1
	e.Data = append(e.Data, b...)
	n := int(b[2])
	if n > len(b) {
		return true
	}
	if o.StampNeeds {
		if n+3 > len(b) {
			return false
		}
		e.stampAddress = true
		n += 4
	}
	if o.TimeNeeds {
		if n+3 > len(b) {
			return false
		}
		n += e.echoTime(b, n, unicast)
	}
	e.Data[e.stamp+1] = byte(n)
	return true
}

// echoTime tells how far the pointer moves for the answer's own time.
func (e *Echo) echoTime(b []byte, n int, unicast func(Addr) bool) int {
	if b[3]&stampKind != stampPrespec {
		e.time = true
		return 4
	}
	if n+7 > len(b) || unicast(AddrFrom4(b[n-1:])) {
		return 0
	}
	e.time = true
	return 8
}

// echoRoute turns the way that the packet came by around.
func (e *Echo) echoRoute(b []byte, src Addr) {
	n := int(b[2])
	if n > len(b) {
		n = len(b) + 1
	}
	if n -= 4; n <= 3 {
		return
	}
	first := AddrFrom4(b[n-1:])
	out := append(make([]byte, 0, len(b)), b[0], 0, 4)
	for n -= 4; n > 3; n -= 4 {
		out = append(out, b[n-1:n+3]...)
	}
	// The last address is the sender's own place. RFC 1812 has a route that names the
	// sender there as well be mended.
	size := len(out) + 4
	if AddrFrom4(b[n+3:]) == src {
		size -= 4
	}
	if size-3 <= 3 {
		return
	}
	e.FirstHop, e.route = first, len(e.Data)+1
	out = append(out, 0, 0, 0, 0)[:size]
	out[1] = byte(size)
	e.Data = append(e.Data, out...)
}

// Build writes the options into an answer's header, behind whose 20 bytes they have
// their place. dst is where the answer goes in the end, ms the time since midnight.
//
// Kernel: net/ipv4/ip_options.c, ip_options_build.
func (e *Echo) Build(ip []byte, dst Addr, ms uint32) {
	o := ip[20:]
	copy(o, e.Data)
	if e.route != 0 {
		b := o[e.route-1:]
		copy(b[int(b[1])-4:], dst.Bytes())
	}
	if e.address {
		b := o[e.record-1:]
		copy(b[int(b[2])-5:], ip[12:16])
	}
	if e.stampAddress {
		b := o[e.stamp-1:]
		copy(b[int(b[2])-9:], ip[12:16])
	}
	if e.time {
		b := o[e.stamp-1:]
		binary.BigEndian.PutUint32(b[int(b[2])-5:], ms)
	}
}
