package walk_test

import (
	"encoding/binary"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
)

// errorAbout is an ICMP error of a router about a packet of this host.
func errorAbout(from string, typ, code byte, info uint32, quoted []byte) []byte {
	m := append([]byte{typ, code, 0, 0, 0, 0, 0, 0}, quoted...)
	binary.BigEndian.PutUint32(m[4:], info)
	binary.BigEndian.PutUint16(m[2:], packet.Fold(packet.Sum16(m, 0)))
	ip := optionPacket("10.0.0.1", packet.ICMP, nil, m)
	a := packet.MustParseAddr(from)
	copy(ip[12:], a.Bytes())
	packet.FixIP4(ip)
	return onWire(ip)
}

// big is sentIP of n bytes.
func big(src, dst string, proto uint8, sport uint16, n int) []byte {
	b := sentIP(src, dst, proto, 64, sport)
	b = append(b, make([]byte, n-len(b))...)
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	if proto == packet.UDP {
		binary.BigEndian.PutUint16(b[24:], uint16(n-20))
		b[26], b[27] = 0, 0
		if src != "0.0.0.0" {
			a, c := packet.MustParseAddr(src), packet.MustParseAddr(dst)
			sum := packet.PseudoSum(a, c, packet.UDP, n-20)
			binary.BigEndian.PutUint16(b[26:], packet.Fold(packet.Sum16(b[20:], sum)))
		}
	}
	packet.FixIP4(b)
	return b
}

// learnedRoutes lead to the same nets by one router; two tables and two ways share none of
// what is learnt.
const learnedRoutes = "10.9.0.0/16 via 10.0.0.5 dev eth0\n" +
	"10.8.0.0/16 nexthop via 10.0.0.5 dev eth0 weight 1 nexthop via 10.0.1.9 dev eth1 weight 1\n" +
	"10.9.0.0/16 via 10.0.0.5 dev eth0 table 7\n" +
	"10.7.0.0/16 via 10.0.0.5 dev eth0 mtu lock 1200\n"

// learners are packets of the host that an error may quote.
func learners() map[string][]byte {
	as := func(proto, typ byte) []byte {
		b := big("10.0.0.1", "10.9.0.1", packet.ICMP, 5, 1000)[:60]
		b[9], b[20] = proto, typ
		packet.FixIP4(b)
		return b
	}
	udp := func(dst string, port uint16) []byte {
		return big("10.0.0.1", dst, packet.UDP, port, 1000)[:60]
	}
	elsewhere := udp("10.9.0.1", 2000)
	elsewhere[15] = 77
	packet.FixIP4(elsewhere)
	return map[string][]byte{"socket": udp("10.9.0.1", 2000), "no socket": udp("10.9.0.1", 2001),
		"marked socket": udp("10.9.0.1", 2002), "locked": udp("10.7.0.1", 2000),
		"two ways": udp("10.8.0.1", 2000), "short": udp("10.9.0.1", 2000)[:27],
		"as short as can be": udp("10.9.0.1", 2000)[:28], "not its own": elsewhere,
		"echo": as(packet.ICMP, 8), "echo reply": as(packet.ICMP, 0), "tcp": as(packet.TCP, 0),
		"raw socket": as(99, 0), "gre": as(packet.GRE, 0), "on link": udp("10.0.0.9", 2000)}
}

// TestLearnedAgainstKernel tells the host of small MTUs and better routers, and sends and
// forwards packets then.
func TestLearnedAgainstKernel(t *testing.T) {
	const sockets = "udp UNCONN 0 0 10.0.0.1:2000 0.0.0.0:* ino:1 sk:1 <->\n" +
		"udp UNCONN 0 0 10.0.0.1:2002 0.0.0.0:* ino:2 sk:2 fwmark:0x7 <->\n" +
		"raw UNCONN 0 0 0.0.0.0:99 0.0.0.0:* ino:3 sk:3 <->\n"
	const accept = "net.ipv4.conf.all.accept_redirects = 1\nnet.ipv4.conf.eth0.accept_redirects = 1\n" +
		"net.ipv4.conf.all.send_redirects = 0\n"
	const forward = "net.ipv4.ip_forward = 1\n"
	mtu := func(n uint32) func([]byte) []byte {
		return func(q []byte) []byte { return errorAbout("10.0.0.5", 3, 4, n, q) }
	}
	redirect := func(from string, code byte, to uint32) func([]byte) []byte {
		return func(q []byte) []byte { return errorAbout(from, 5, code, to, q) }
	}
	for _, tt := range []struct {
		name, sysctl string
		tell         func(quoted []byte) []byte
		whole        bool // about each kind of packet, not the one of a socket alone
	}{
		{"mtu", forward + accept, mtu(700), true},
		{"mtu, for others too", forward + accept + "net.ipv4.ip_forward_use_pmtu = 1\n", mtu(700), false},
		{"mtu below the least", forward + accept, mtu(300), true},
		{"mtu above", forward + accept, mtu(1600), false},
		{"no mtu", forward + accept, mtu(0), false},
		{"mtu not believed", forward + accept + "net.ipv4.ip_no_pmtu_disc = 1\n", mtu(700), false},
		{"mtu not taken", forward + accept + "net.ipv4.ip_no_pmtu_disc = 2\n", mtu(700), false},
		{"mtu strict", forward + accept + "net.ipv4.ip_no_pmtu_disc = 3\n", mtu(700), false},
		{"least", forward + accept + "net.ipv4.route.min_pmtu = 800\n", mtu(700), false},
		{"redirect", forward + accept, redirect("10.0.0.5", 1, 0x0a000009), true},
		{"redirect of a net", accept, redirect("10.0.0.5", 0, 0x0a000009), false},
		{"redirect with a wrong code", accept, redirect("10.0.0.5", 4, 0x0a000009), false},
		{"redirect by another", accept, redirect("10.0.0.9", 1, 0x0a000009), false},
		{"redirect to itself", accept, redirect("10.0.0.5", 1, 0x0a000005), false},
		{"redirect to here", accept, redirect("10.0.0.5", 1, 0x0a000001), false},
		{"redirect to a stranger", accept, redirect("10.0.0.5", 1, 0x0a00004d), false},
		{"redirect off link", accept + "net.ipv4.conf.all.shared_media = 0\n" +
			"net.ipv4.conf.eth0.shared_media = 0\n", redirect("10.0.0.5", 1, 0x0a000109), false},
		{"redirect to no gateway", accept + "net.ipv4.conf.all.shared_media = 0\n" +
			"net.ipv4.conf.eth0.shared_media = 0\n", redirect("10.0.0.5", 1, 0x0a000009), false},
		{"redirect, not secure", accept + "net.ipv4.conf.all.shared_media = 0\n" +
			"net.ipv4.conf.eth0.shared_media = 0\nnet.ipv4.conf.all.secure_redirects = 0\n" +
			"net.ipv4.conf.eth0.secure_redirects = 0\n", redirect("10.0.0.5", 1, 0x0a000009), false},
		{"redirects off", "net.ipv4.conf.all.accept_redirects = 0\n" +
			"net.ipv4.conf.eth0.accept_redirects = 0\n", redirect("10.0.0.5", 1, 0x0a000009), false},
		{"redirects off for routers", forward + "net.ipv4.conf.all.accept_redirects = 0\n",
			redirect("10.0.0.5", 1, 0x0a000009), false},
	} {
		for name, quoted := range learners() {
			if !tt.whole && name != "socket" {
				continue
			}
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				p := newPair(t, map[string]string{"sockets": sockets, "ip-route": learnedRoutes,
					"ip-rule.json": learnedRules, "sysctl": tt.sysctl})
				p.teach(tt.tell(quoted), packet.AddrFrom4(quoted[16:]))
			})
		}
	}
}

// learnedRules send what has a mark by a table of its own.
const learnedRules = `[{"priority":0,"src":"all","table":"local"},
{"priority":10,"src":"all","fwmark":"0x7","table":"7"},
{"priority":32766,"src":"all","table":"main"},{"priority":32767,"src":"all","table":"default"}]`

// teach tells the host, and sees what it does with packets to the quoted address, and to
// others, then.
func (p *pair) teach(frame []byte, to packet.Addr) {
	p.t.Helper()
	p.agree(kernel.Question{In: "eth0", Frame: frame})
	for _, dst := range []string{to.String(), "10.9.0.2"} {
		for _, mark := range []uint32{0, 7} {
			p.agree(kernel.Question{Out: true, Socket: "udp", Mark: mark,
				Packet: big("10.0.0.1", dst, packet.UDP, 3000, 1000)})
			p.agree(kernel.Question{Out: true, Socket: "raw", Mark: mark,
				Packet: big("10.0.0.1", dst, packet.UDP, 3000, 1000)})
		}
		for _, df := range []byte{0, 0x40} {
			f := onWire(big("10.0.1.9", dst, packet.UDP, 7, 1000))
			copy(f, []byte{2, 0, 0, 0, 1, 1})
			f[20] = df
			packet.FixIP4(f[14:])
			p.agree(kernel.Question{In: "eth1", Frame: f})
		}
	}
}
