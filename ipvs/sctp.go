package ipvs

import (
	"encoding/binary"

	"github.com/hookpath/hookpath/world"
)

const (
	sctpEstablished = 8
	sctpClosed      = 13
	sctpStates      = 14
)

// Chunk types of SCTP (RFC 9260, 3.2) that decide.
const (
	chunkInit       = 1
	chunkAbort      = 6
	chunkCookieEcho = 10
	chunkCookieAck  = 11
)

// sctpLetters are those of the table: None, init 1, Init, cookie Sent, cookie Replied, cookie
// Wait, cooKie, cookie eChoed, Established, shutdown sent (s), received (r), ack sent (a),
// reJected, closeD.
const sctpLetters = "N1ISRWKCEsraJD"

func sctpNames() []string {
	return []string{"NONE", "INIT1", "INIT", "C-SENT", "C-REPLIED", "C-WAIT", "COOKIE",
		"C-ECHOED", "ESTABLISHED", "S-SENT", "S-RECEIVED", "S-ACK-SENT", "REJECTED", "CLOSED"}
}

// sctpMachine is how associations come and go. The events are data, init, init ack, cookie
// echo, cookie ack, shutdown, shutdown ack, shutdown complete, error, abort.
//
// Kernel: net/netfilter/ipvs/ip_vs_proto_sctp.c, sctp_states.
func sctpMachine() *machine {
	return &machine{letters: sctpLetters, names: sctpNames(), active: "E", established: 'E',
		next: [3][]string{
			FromClient: {"E1ISRWKCEsraJD", "1IISRWKCEsraII", "WWWSRKKCEsraJD", "RIIRRWKCEsraJD",
				"E1ISRWKEEsraJD", "r1ISRWKCrsraJD", "DIISRWKCEDrDJD", "DDDSRWKCEsrDJD",
				"D1ISRWKDEsraJD", "DDDDDJDDDDDDDD"},
			FromServer: {"E1ISRWKCEsraJD", "WWWWWWWWEWWWWW", "SSSSRWKCEsraJD", "CCCCCCCCEsraJD",
				"EEEEEEEEEsraJD", "ssssssssssraJD", "aaaaaWKCEaaaJD", "D1ISRWKCEsraJD",
				"DDDDDWKCEsraJD", "DJDDDDDDDDDDDD"},
			clientOnly: {"E1ISREKCEsraJD", "1IIIIIKCEsraII", "CCCCCCKCEsraJD", "EEEEEEKCEsraJD",
				"E1IEEWEEEsraJD", "r1ISRWKCrsraJD", "DIISRWKCDDrDJD", "DDDDDWKCEsDDJD",
				"D1ISRWKCEsraJD", "DDDDDJDDDDDDDD"},
		}}
}

func sctpTimes() [sctpStates]world.Instant {
	const (
		s     = world.Second
		retry = 61 * s
	)
	return [...]world.Instant{2 * s, 4 * s, retry, retry, retry, retry, retry, retry,
		sctpEstablished: 15 * 60 * s, 9: retry, 10: retry, 11: retry, 12: 4 * s, sctpClosed: retry}
}

// sctpEvent is the line of a table for a chunk's type.
//
// Kernel: net/netfilter/ipvs/ip_vs_proto_sctp.c, sctp_events.
func sctpEvent(chunk byte) int {
	events := [...]int{0, 1, 2, 0, 0, 0, chunkAbort: 9, 5, 6, 8, chunkCookieEcho: 3,
		chunkCookieAck: 4, 12: 0, 13: 0, 14: 7}
	if int(chunk) < len(events) {
		return events[chunk]
	}
	return 0
}

const sctpHeader = 12

// Kernel: net/netfilter/ipvs/ip_vs_proto_sctp.c, set_sctp_state.
func (t *Table) passSCTP(w *world.World, c *conn, d Direction, l4 []byte) {
	chunk, ok := sctpChunk(l4)
	if !ok {
		return
	}
	state := t.sctp.step(c.side(d), sctpEvent(chunk), c.state)
	t.enter(w, c, t.sctp, state)
	c.timeout = t.times.sctp[state]
}

// sctpChunk is the type of the chunk that decides: the first one, or an abort right behind
// a cookie.
func sctpChunk(l4 []byte) (byte, bool) {
	if len(l4) < sctpHeader+4 {
		return 0, false
	}
	first := l4[sctpHeader:]
	if first[0] != chunkCookieEcho && first[0] != chunkCookieAck {
		return first[0], true
	}
	n := int(binary.BigEndian.Uint16(first[2:]))
	if at := (n + 3) &^ 3; n >= 4 && len(first) >= at+4 && first[at] == chunkAbort {
		return chunkAbort, true
	}
	return first[0], true
}
