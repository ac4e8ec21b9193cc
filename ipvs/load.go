package ipvs

import (
	"fmt"
	"slices"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Load puts a snapshot's connections into memory, the templates first, since others hang on
// them. Servers whose counts the snapshot has keep those. The error names the connection.
func (t *Table) Load(w *world.World, conns []Conn) error {
	for _, templates := range []bool{true, false} {
		for i := range conns {
			if conns[i].Template != templates {
				continue
			}
			if err := t.load(w, &conns[i]); err != nil {
				return fmt.Errorf("%s %s > %s: %w", protoName(conns[i].Proto), conns[i].Client,
					conns[i].Virtual, err)
			}
		}
	}
	return nil
}

func (t *Table) load(w *world.World, from *Conn) error {
	c := conn{inKey: inKey{proto: from.Proto, client: packet.AddrFrom(from.Client.Addr()),
		virtual: packet.AddrFrom(from.Virtual.Addr()), cport: from.Client.Port(),
		vport: from.Virtual.Port()}, real: packet.AddrFrom(from.Real.Addr()),
		rport: from.Real.Port(), mark: from.Mark, server: -1}
	if from.Template && from.Proto == 0 {
		c.virtual = packet.V4(from.Mark)
	}
	svc := t.serviceOf(&c, from)
	if svc != nil {
		c.server = svc.serverOf(c.real, c.rport)
	}
	if err := t.loadState(&c, from); err != nil {
		return err
	}
	c.timeout = t.timeoutOf(&c, svc)
	t.settle(w, &c, svc)
	id := t.place(w, c)
	t.expireAt(w, t.conn(w, id), from.Expires)
	t.hash(w, id)
	return nil
}

// serviceOf is the service that a connection was made for, nil where it is gone.
func (t *Table) serviceOf(c *conn, from *Conn) *service {
	if from.Template && from.Proto == 0 {
		return t.byMark[markKey{trace.IPv4, from.Mark}]
	}
	if svc := t.service(trace.IPv4, 0, c.proto, c.virtual, c.vport); svc != nil {
		return svc
	}
	for _, svc := range t.services { // of a mark, which the list does not tell
		if svc.Mark != 0 && svc.serverOf(c.real, c.rport) >= 0 {
			return svc
		}
	}
	return nil
}

// serverOf is the number of a service's server with an address, -1 for none. A connection
// to a server of every port has the client's.
func (s *service) serverOf(addr packet.Addr, port uint16) int {
	i := slices.IndexFunc(s.Dests, func(d Dest) bool {
		return d.Addr == addr && (d.Port == port || d.Port == 0 || port == 0)
	})
	if i < 0 {
		return -1
	}
	return s.first + i
}

// loadState takes the state that ipvsadm names.
func (t *Table) loadState(c *conn, from *Conn) error {
	names := []string{"UDP"}
	switch {
	case from.Template:
		c.flags |= template
		names = []string{"NONE", "ASSURED"}
	case c.proto == packet.TCP:
		names = t.tcp.names
	case c.proto == packet.SCTP:
		names = t.sctp.names
	}
	state := slices.Index(names, from.State)
	if state < 0 && from.Template {
		state = 0
	}
	if state < 0 {
		return fmt.Errorf("state %q is not known", from.State)
	}
	c.state = uint8(state)
	return nil
}

// timeoutOf is how long a connection stays after its next packet.
func (t *Table) timeoutOf(c *conn, svc *service) world.Instant {
	switch {
	case c.is(template) && svc != nil:
		return world.Instant(svc.Timeout) * world.Second
	case c.proto == packet.TCP:
		return t.times.tcp[c.state]
	case c.proto == packet.SCTP:
		return t.times.sctp[c.state]
	}
	return t.times.udp
}

// settle binds a loaded connection to its server and to its template.
func (t *Table) settle(w *world.World, c *conn, svc *service) {
	if t.settings.conntrack {
		c.flags |= tracked
	}
	if c.server < 0 {
		return
	}
	c.method = t.servers[c.server].Method
	if c.method != Masq {
		c.flags |= noOutput
	}
	active := c.proto == packet.TCP && t.tcp.isActive(c.state) ||
		c.proto == packet.SCTP && t.sctp.isActive(c.state)
	if !active {
		c.flags |= inactive
	}
	if t.servers[c.server].Counts == (Counts{}) {
		t.bind(w, c)
	}
	if svc.Timeout == 0 || c.is(template) {
		return
	}
	if c.control = t.findTemplate(w, svc.templateKey(c.inKey)); c.control != 0 {
		t.conn(w, c.control).controls++
	}
}
