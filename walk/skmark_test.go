package walk_test

import (
	"bytes"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// TestSocketMarkAgainstKernel has rules take the marks of sockets: of the snapshot, and of
// programs that questions had send.
func TestSocketMarkAgainstKernel(t *testing.T) {
	const sockets = "udp UNCONN 0 0 10.0.0.1:9 0.0.0.0:* ino:1 sk:1 fwmark:0x7 <->\n" +
		"udp UNCONN 0 0 0.0.0.0:10 0.0.0.0:* ino:2 sk:2 fwmark:0x8 <->\n" +
		"udp UNCONN 0 0 10.0.0.1:11 0.0.0.0:* ino:3 sk:3 <->\n"
	const rules = "*mangle\n-A PREROUTING -j MARK --set-mark 3\n" +
		"-A PREROUTING -m socket --restore-skmark -j TTL --ttl-set 50\n" +
		"-A PREROUTING -m mark --mark 0 -j TOS --set-tos 4\n" +
		"-A PREROUTING -m mark --mark 7 -j TOS --set-tos 8\n" +
		"-A PREROUTING -m mark --mark 8 -j TOS --set-tos 16\nCOMMIT\n"
	p := newPair(t, map[string]string{"sockets": sockets, "iptables-save": rules})
	from := func(port byte) []byte {
		ip := sentIP("10.0.0.9", "10.0.0.1", packet.UDP, 9, 2000)
		ip[23], ip[26], ip[27] = port, 0, 0
		return onWire(ip)
	}
	send := func(mark uint32) {
		p.agree(kernel.Question{Out: true, Socket: "udp", Mark: mark,
			Packet: sentIP("10.0.0.1", "10.0.0.9", packet.UDP, 9, 12)})
	}
	ask := func(port, ttl, tos byte) {
		t.Helper()
		tr, _ := p.agree(kernel.Question{In: "eth0", Frame: from(port)})
		for _, e := range tr.Events {
			if d, ok := e.(*trace.Deliver); ok && !bytes.Equal([]byte{ttl, tos},
				[]byte{d.Frame[8], d.Frame[1]}) {
				t.Errorf("port %d: ttl %d, tos %d", port, d.Frame[8], d.Frame[1])
			}
		}
	}
	ask(9, 50, 8)
	ask(10, 9, 0) // bound to no address: not found, not marked
	ask(11, 50, 4)
	ask(12, 9, 0) // port unreachable
	send(7)
	ask(12, 50, 8)
	send(8)
	ask(12, 50, 16)
}
