package snapshot

import (
	"math"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// ipvsConns are the connections of one file.
type ipvsConns struct {
	conns []ipvs.Conn
	// engines counts the templates of which a persistence engine keeps data.
	engines int
}

// parseIPVSConns reads `ipvsadm -L -c -n`, with or without --persistent-conn, or
// /proc/net/ip_vs_conn. The seconds left count from now.
func parseIPVSConns(file string, data []byte, now world.Instant) (*ipvsConns, error) {
	r := connReader{now: now, out: &ipvsConns{}}
	err := eachLine(file, data, func(p place, line string) error {
		r.wordList = wordList{p, strings.Fields(line)}
		switch r.peek() {
		case "IPVS", "pro":
			return nil
		case "Pro":
			r.hex = true
			return nil
		}
		return r.line()
	})
	if err != nil {
		return nil, err
	}
	return r.out, nil
}

// connReader reads connections line by line.
type connReader struct {
	wordList
	hex bool // /proc/net/ip_vs_conn
	now world.Instant
	out *ipvsConns
}

// line reads "TCP 14:57 ESTABLISHED CLIENT VIRTUAL REAL", or "TCP CLIENT PORT VIRTUAL PORT
// REAL PORT ESTABLISHED 897" of /proc.
func (r *connReader) line() error {
	var c ipvs.Conn
	proto, ok := map[string]uint8{"IP": 0, "TCP": packet.TCP, "UDP": packet.UDP,
		"SCTP": packet.SCTP}[r.peek()]
	if !ok {
		return r.errorf("%q is not a protocol that IPVS balances", r.peek())
	}
	r.next()
	c.Proto = proto
	read := r.text
	if r.hex {
		read = r.proc
	}
	if err := read(&c); err != nil {
		return err
	}
	if !r.empty() { // the persistence engine and what it keeps
		r.out.engines++
	}
	if err := r.check(&c); err != nil {
		return err
	}
	r.out.conns = append(r.out.conns, c)
	return nil
}

func (r *connReader) text(c *ipvs.Conn) (err error) {
	if err = r.expires(c, r.next()); err != nil {
		return err
	}
	c.State = r.next()
	for _, end := range []struct {
		what string
		to   *netip.AddrPort
	}{{"source", &c.Client}, {"virtual", &c.Virtual}, {"destination", &c.Real}} {
		e, err := ipvsEndOf(r.place, end.what, r.next())
		if err != nil {
			return err
		}
		if e.port < 0 {
			return r.errorf("%s: the port is missing", end.what)
		}
		*end.to = e.addrPort()
	}
	return nil
}

func (e *ipvsEnd) addrPort() netip.AddrPort {
	a := netip.AddrFrom16(e.addr)
	if e.family == trace.IPv4 {
		a = a.Unmap()
	}
	return netip.AddrPortFrom(a, uint16(max(e.port, 0)))
}

// expires reads minutes and seconds, "249:58".
func (r *connReader) expires(c *ipvs.Conn, s string) error {
	min, sec, ok := strings.Cut(s, ":")
	m, err := strconv.ParseUint(min, 10, 32)
	n, err2 := strconv.ParseUint(sec, 10, 8)
	if !ok || err != nil || err2 != nil || n > 59 || m > math.MaxUint32/60 {
		return r.errorf("expire: %q is not minutes:seconds", s)
	}
	c.Expires = r.now + world.Instant(m*60+n)*world.Second
	return nil
}

func (r *connReader) proc(c *ipvs.Conn) error {
	for _, end := range []struct {
		what string
		to   *netip.AddrPort
	}{{"FromIP", &c.Client}, {"ToIP", &c.Virtual}, {"DestIP", &c.Real}} {
		f, a, err := ipvsHexAddr(r.place, end.what, r.next())
		if err != nil {
			return err
		}
		port, err := ipvsPort(r.place, end.what, r.next(), 16)
		if err != nil {
			return err
		}
		*end.to = (&ipvsEnd{f, a, port}).addrPort()
	}
	c.State = r.next()
	n, err := ipvsNumber(r.place, "Expires", r.next(), math.MaxUint32)
	c.Expires = r.now + world.Instant(n)*world.Second
	return err
}

// check finds out whether it is a template, and looks whether all fits together. A template
// has no client's port, and stands in a state that its protocol does not have.
func (r *connReader) check(c *ipvs.Conn) error {
	c.Template = c.Client.Port() == 0 && ipvs.KnowsState(0, true, c.State)
	if !ipvs.KnowsState(c.Proto, c.Template, c.State) || c.Proto == 0 && !c.Template {
		return r.errorf("state: %q is not one that such a connection has", c.State)
	}
	if c.Client.Addr().Is4() != c.Virtual.Addr().Is4() {
		return r.errorf("the client and the service are of two families")
	}
	if c.Proto != 0 {
		return nil
	}
	b := c.Virtual.Addr().AsSlice()
	c.Mark = uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	c.Virtual = netip.AddrPort{}
	if c.Mark == 0 {
		return r.errorf("virtual: a template of protocol IP has the mark there, not zero")
	}
	return nil
}
