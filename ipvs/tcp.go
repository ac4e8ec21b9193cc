package ipvs

import "github.com/hookpath/hookpath/world"

// The states of TCP that other files name, with the kernel's numbers.
const (
	tcpNone = iota
	tcpEstablished
	tcpSynSent
	tcpSynRecv
	tcpFinWait
	tcpTimeWait
	tcpClose
	tcpCloseWait
	tcpLastAck
	tcpListen
	tcpSynAck
	tcpStates
)

// The letters of the tables below: None, Established, Sent (SYN), Received (SYN), Fin wait,
// Time wait, Closed, close Wait, last Ack, Listen, sYnack. The events are syn, fin, ack, rst.
const tcpLetters = "NESRFTCWALY"

// tcpNames are the states as ipvsadm and /proc/net/ip_vs_conn name them.
func tcpNames() []string {
	return []string{"NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT",
		"CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "SYNACK"}
}

// tcpMachine is how connections come and go.
//
// Kernel: net/netfilter/ipvs/ip_vs_proto_tcp.c, tcp_states and tcp_states_dos.
func tcpMachine(secure bool) *machine {
	m := &machine{letters: tcpLetters, names: tcpNames(), active: "ESRY", established: 'E',
		next: [3][]string{
			FromClient: {"REERRRRRRRR", "CWSTTTCWALT", "EESEFTCWCLE", "CCCRCCCCALR"},
			FromServer: {"SESRSSSSSLR", "TFSTFTCTALT", "EESEFTCWAEE", "CCSCCTCCCCC"},
			clientOnly: {"REERRRRRRRR", "CFSTFTCWALT", "EESEFTCWCLE", "CCCRCCCCALC"},
		}}
	if secure {
		m.next = [3][]string{
			FromClient: {"REERRRRRRRY", "CWSTTTCWALY", "EESRFTCWCLY", "CCCRCCCCALC"},
			FromServer: {"SESYSSSSSLY", "TFSTFTCTALT", "EESEFTCWAEE", "CCSCCTCCCCC"},
			clientOnly: {"YEERYYYYYYY", "CFSTFTCWALT", "EESEFTCWCLE", "CCCRCCCCALC"},
		}
	}
	return m
}

// tcpTimes are how long a connection stays in each state.
func tcpTimes() [tcpStates]world.Instant {
	const s = world.Second
	return [...]world.Instant{2 * s, 15 * 60 * s, 2 * 60 * s, 60 * s, 2 * 60 * s, 2 * 60 * s,
		10 * s, 60 * s, 30 * s, 2 * 60 * s, 120 * s}
}

// Bits of TCP's flags.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	_
	tcpACK
)

// Kernel: net/netfilter/ipvs/ip_vs_proto_tcp.c, set_tcp_state.
func (t *Table) passTCP(w *world.World, c *conn, d Direction, l4 []byte) {
	if len(l4) < 20 {
		return
	}
	side, state := c.side(d), uint8(tcpClose)
	if e := tcpEvent(l4[13]); e >= 0 {
		state = t.tcp.step(side, e, c.state)
	}
	t.enter(w, c, t.tcp, state)
	c.timeout = t.times.tcp[state]
}

// tcpEvent is the line of a table that flags look their state up in, -1 for none.
func tcpEvent(flags byte) int {
	switch {
	case flags&tcpRST != 0:
		return 3
	case flags&tcpSYN != 0:
		return 0
	case flags&tcpFIN != 0:
		return 1
	case flags&tcpACK != 0:
		return 2
	}
	return -1
}
