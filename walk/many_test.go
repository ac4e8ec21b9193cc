package walk_test

import (
	"encoding/binary"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
)

// sentIP is a packet that a program sends: UDP to port 9, or an echo request.
func sentIP(src, dst string, proto uint8, ttl byte, sport uint16) []byte {
	l4 := []byte{byte(sport >> 8), byte(sport), 0, 9, 0, 12, 0, 0, 1, 2, 3, 4}
	if proto == packet.ICMP {
		l4 = []byte{8, 0, 0, 0, byte(sport >> 8), byte(sport), 0, 1, 1, 2, 3, 4}
		binary.BigEndian.PutUint16(l4[2:], packet.Fold(packet.Sum16(l4, 0)))
	}
	h := make([]byte, 20)
	h[0], h[5], h[8], h[9] = 0x45, 3, ttl, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
	from, to := packet.MustParseAddr(src), packet.MustParseAddr(dst)
	copy(h[12:], from.Bytes())
	copy(h[16:], to.Bytes())
	packet.FixIP4(h)
	b := append(h, l4...)
	if proto == packet.UDP && !from.IsAny() {
		sum := packet.PseudoSum(from, to, packet.UDP, len(l4))
		binary.BigEndian.PutUint16(b[26:], packet.Fold(packet.Sum16(b[20:], sum)))
	}
	return b
}

// TestManyAgainstKernel sends to broadcast and multicast addresses, of which the host
// gets a copy itself, and receives such.
func TestManyAgainstKernel(t *testing.T) {
	for _, tt := range []struct{ name, rules, sysctl string }{
		{"plain", "", ""},
		{"echo to all", "", "net.ipv4.icmp_echo_ignore_broadcasts = 0\n"},
		{"masquerade", "*nat\n-A POSTROUTING -j SNAT --to-source 10.7.7.7\nCOMMIT\n", ""},
		{"type and device", "*mangle\n-A PREROUTING -m pkttype --pkt-type broadcast -j TOS --set-tos 8\n" +
			"-A PREROUTING -i eth0 -m pkttype --pkt-type multicast -j TTL --ttl-set 9\n" +
			"-A POSTROUTING -o eth1 -j MARK --set-mark 1\n-A PREROUTING -m mark --mark 1 -j DROP\nCOMMIT\n", ""},
		{"mac", "*filter\n-A INPUT -m mac --mac-source 02:00:00:00:00:01 -j DROP\n" +
			"-A INPUT -m mac ! --mac-source 02:00:00:00:00:01 -j REJECT\nCOMMIT\n", ""},
		{"dropped going out", "*mangle\n-A POSTROUTING -d 224.0.0.1 -j DROP\nCOMMIT\n", ""},
		{"owner", "*mangle\n-A POSTROUTING -m owner --uid-owner 0 -j TOS --set-tos 8\nCOMMIT\n", ""},
		{"state", "*filter\n-A INPUT -m conntrack --ctstate NEW -j DROP\n" +
			"-A OUTPUT -m conntrack --ctstate NEW -j ACCEPT\nCOMMIT\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{"sysctl": "net.ipv4.ip_forward = 1\n" + tt.sysctl,
				"ip-route": "224.0.0.0/4 dev eth1\n", "sockets": manySockets}
			if tt.rules != "" {
				files["iptables-save"] = tt.rules
			}
			p := newPair(t, files)
			port := uint16(2000)
			for _, dst := range []string{"10.0.0.255", "255.255.255.255", "224.0.0.1", "239.1.2.3",
				"10.0.1.255", "10.0.1.9"} {
				for _, src := range []string{"0.0.0.0", "10.0.0.1"} {
					for _, q := range []kernel.Question{{Socket: "udp"}, {Socket: "icmp"},
						{Socket: "raw"}, {Socket: "raw", Dev: "eth0"}, {Socket: "udp", Dev: "eth1"}} {
						port++
						q.Out, q.Packet = true, sentIP(src, dst, proto(q.Socket), 5, port)
						p.agree(q)
					}
				}
			}
			for i, dst := range []string{"10.0.0.255", "255.255.255.255", "224.0.0.1", "239.1.2.3"} {
				for _, pr := range []uint8{packet.UDP, packet.ICMP} {
					p.agree(kernel.Question{In: "eth0", Frame: many(dst, pr, uint16(3000+i))})
				}
			}
			if p.sent < 20 {
				t.Errorf("only %d frames left", p.sent)
			}
		})
	}
}

// TestLastMulticast sends one that must not leave the host.
func TestLastMulticast(t *testing.T) {
	p := newPair(t, map[string]string{"ip-route": "224.0.0.0/4 dev eth1\n"})
	for ttl := range byte(2) {
		for _, dst := range []string{"224.0.0.1", "239.1.2.3"} {
			p.agree(kernel.Question{Out: true, Socket: "raw",
				Packet: sentIP("10.0.0.1", dst, packet.UDP, ttl, 77)})
		}
	}
	if p.sent != 3 { // a group that was not joined is not looked at
		t.Errorf("%d frames left, want 3", p.sent)
	}
}

const manySockets = "udp UNCONN 0 0 10.0.0.1:9 0.0.0.0:* \n"

func proto(socket string) uint8 {
	if socket == "icmp" {
		return packet.ICMP
	}
	return packet.UDP
}

// many is a frame of 10.0.0.9 to a broadcast or multicast address.
func many(dst string, proto uint8, port uint16) []byte {
	to := packet.MustParseAddr(dst)
	mac := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	if to[12]>>4 == 14 {
		mac = []byte{1, 0, 0x5e, to[13] & 0x7f, to[14], to[15]}
	}
	frame := append(mac, 2, 0, 0, 0, 0, 9, 8, 0)
	return append(frame, sentIP("10.0.0.9", dst, proto, 5, port)...)
}
