package ipvs

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// Direction is which way a packet of a connection goes.
type Direction uint8

// The directions: from the client, and from the real server. The third is that of a client
// whose answers do not pass here.
const (
	FromClient Direction = iota
	FromServer
	clientOnly
)

// machine is a protocol's states: a table of the next state by direction, event and present
// state, each a letter of letters.
type machine struct {
	letters string
	next    [3][]string // by direction, a line an event
	names   []string
	active  string // letters of the states that count as active
	// established is the letter of the state that assures a template.
	established byte
}

// step returns the state behind an event.
func (m *machine) step(d Direction, event int, state uint8) uint8 {
	to := m.next[d][event][state]
	return m.number(to)
}

func (m *machine) number(letter byte) uint8 {
	for i := range len(m.letters) {
		if m.letters[i] == letter {
			return uint8(i)
		}
	}
	return 0
}

func (m *machine) isActive(state uint8) bool {
	for i := range len(m.active) {
		if m.number(m.active[i]) == state {
			return true
		}
	}
	return false
}

// pass changes a connection's state and time as a packet of it passes. l4 is the transport
// header with what follows it.
//
// Kernel: net/netfilter/ipvs/ip_vs_core.c, ip_vs_set_state.
func (t *Table) pass(w *world.World, c *conn, d Direction, l4 []byte) {
	switch c.proto {
	case packet.TCP:
		t.passTCP(w, c, d, l4)
	case packet.UDP:
		c.timeout = t.times.udp
		if d == FromServer {
			t.assure(w, c)
		}
	case packet.SCTP:
		t.passSCTP(w, c, d, l4)
	}
}

// side is the table that a packet's direction looks its state up in: without answers
// another one.
func (c *conn) side(d Direction) Direction {
	switch {
	case !c.is(noOutput):
		return d
	case d == FromServer:
		c.flags &^= noOutput
		return d
	}
	return clientOnly
}

// enter brings a connection into a state, and into its server's counts as active or not.
func (t *Table) enter(w *world.World, c *conn, m *machine, state uint8) {
	if state == c.state {
		return
	}
	if n := t.countsOf(w, c.server); n != nil {
		switch active := m.isActive(state); {
		case !c.is(inactive) && !active:
			n.Active, n.Inactive = n.Active-1, n.Inactive+1
			c.flags |= inactive
		case c.is(inactive) && active:
			n.Active, n.Inactive = n.Active+1, n.Inactive-1
			c.flags &^= inactive
		}
	}
	if state == m.number(m.established) {
		t.assure(w, c)
	}
	c.state = state
}
