package snapshot

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/socket"
)

// socketKinds are the first column of ss.
var socketKinds = map[string]socket.Socket{
	"tcp": {Proto: packet.TCP}, "udp": {Proto: packet.UDP}, "sctp": {Proto: packet.SCTP},
	"dccp": {Proto: packet.DCCP}, "raw": {Raw: true}, "icmp6": {Raw: true, V6: true},
	"???": {Raw: true}, "udplite": {Proto: packet.UDPLite},
	"tcp6": {Proto: packet.TCP, V6: true}, "udp6": {Proto: packet.UDP, V6: true},
}

// socketStates are the second column of ss.
var socketStates = map[string]socket.State{"LISTEN": socket.Listen, "UNCONN": socket.Unconnected,
	"ESTAB": socket.Connected, "TIME-WAIT": socket.Gone, "SYN-SENT": socket.Connected,
	"SYN-RECV": socket.Connected, "FIN-WAIT-1": socket.Connected, "FIN-WAIT-2": socket.Connected,
	"CLOSE-WAIT": socket.Connected, "LAST-ACK": socket.Connected, "CLOSING": socket.Connected,
	"CLOSED": socket.Gone, "NEW-SYN-RECV": socket.Connected, "UNKNOWN": socket.Unconnected}

// parseSockets reads `ss -n -a -t -u -w -S -p -e --inet-sockopt`, with or without
// its heading, and tells apart what is not read: unix, netlink and packet
// sockets are passed over, since no IP packet is handed to them by address.
func parseSockets(file string, data []byte) ([]socket.Socket, error) {
	out := []socket.Socket{}
	err := textLines(file, data, func(p place, line string) error {
		w := &wordList{p, strings.Fields(line)}
		if indented(line) {
			if len(out) > 0 {
				socketWords(w, &out[len(out)-1])
			}
			return nil
		}
		switch w.peek() {
		case "Netid", "u_str", "u_dgr", "u_seq", "nl", "p_raw", "p_dgr", "v_str", "v_dgr", "xdp",
			"tipc", "mptcp":
			return nil
		}
		s, err := socketLine(w)
		out = append(out, s)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// socketLine reads "tcp LISTEN 0 128 10.0.0.1%eth0:80 0.0.0.0:* users:(...)".
func socketLine(w *wordList) (socket.Socket, error) {
	s, ok := socketKinds[w.peek()]
	if !ok {
		return s, w.errorf("%q is not a kind of socket", w.peek())
	}
	w.next()
	if s.State, ok = socketStates[w.peek()]; !ok {
		return s, w.errorf("%q is not a socket's state", w.peek())
	}
	s.Request = w.peek() == "SYN-RECV" || w.peek() == "NEW-SYN-RECV"
	w.next()
	w.next() // Recv-Q
	w.next() // Send-Q
	if err := localEnd(w, &s); err != nil {
		return s, err
	}
	if err := peerEnd(w, &s); err != nil {
		return s, err
	}
	if s.State == socket.Unconnected && !s.Peer.IsAny() {
		s.State = socket.Connected
	}
	socketWords(w, &s)
	return s, nil
}

func localEnd(w *wordList, s *socket.Socket) error {
	text := w.next()
	a, dev, port, v6, ok := socketEnd(text)
	if !ok {
		return w.errorf("%q is not a socket's local end", text)
	}
	s.Local, s.DevName, s.V6 = a, dev, s.V6 || v6
	if !s.Raw {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil && port != "*" {
			return w.errorf("%q is not a port", port)
		}
		s.LPort = uint16(n)
		return nil
	}
	if s.Proto, ok = rawProtocol(port); !ok {
		return w.errorf("%q is not a raw socket's protocol", port)
	}
	return nil
}

func rawProtocol(s string) (uint8, bool) {
	if s == "*" {
		return 0, true
	}
	for _, p := range []struct {
		name string
		n    uint8
	}{{"icmp", packet.ICMP}, {"ipv6-icmp", packet.ICMPv6}, {"igmp", packet.IGMP}, {"raw", 255}} {
		if s == p.name {
			return p.n, true
		}
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return uint8(n), err == nil
}

func peerEnd(w *wordList, s *socket.Socket) error {
	text := w.next()
	a, _, port, _, ok := socketEnd(text)
	if !ok {
		return w.errorf("%q is not a socket's other end", text)
	}
	s.Peer = a
	if port == "*" || s.Raw {
		return nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return w.errorf("%q is not a port", port)
	}
	s.PPort = uint16(n)
	return nil
}

// socketEnd reads "10.0.0.1%eth0:80", "[::1]:80", "*:80" and "*:*". The addresses
// that stand for any are zero.
func socketEnd(s string) (a packet.Addr, dev, port string, v6, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return a, "", "", false, false
	}
	host, port := s[:i], s[i+1:]
	host, dev, _ = strings.Cut(host, "%")
	dev = strings.TrimSuffix(dev, "]")
	host = strings.Trim(host, "[]")
	if host == "*" {
		return a, dev, port, true, port != ""
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return a, "", "", false, false
	}
	v6 = ip.Is6()
	if !ip.IsUnspecified() {
		a = packet.AddrFrom(ip)
	}
	return a, dev, port, v6, port != ""
}

// socketWords reads what follows the ends. What is not named says nothing of who
// receives: timers, memory, congestion control.
func socketWords(w *wordList, s *socket.Socket) {
	for !w.empty() {
		word := strings.TrimSuffix(w.next(), ")")
		key, val, _ := strings.Cut(word, ":")
		switch key {
		case "users":
			s.Process, s.PID = owner(val)
		case "uid":
			n, _ := strconv.ParseUint(val, 10, 32)
			s.UID = uint32(n)
		case "ino":
			s.Inode, _ = strconv.ParseUint(val, 10, 64)
		case "fwmark":
			n, _ := strconv.ParseUint(val, 0, 32)
			s.Mark = uint32(n)
		case "v6only":
			s.V6, s.V6Only = true, val == "1"
		case "transparent":
			s.Transparent = true
		case "freebind":
			s.FreeBind = true
		case "inet-sockopt":
			s.McastAllOff = !contains(w.words, "mc_all") && !s.V6
		}
	}
}

func contains(words []string, s string) bool {
	for _, w := range words {
		if strings.TrimSuffix(w, ")") == s {
			return true
		}
	}
	return false
}

// owner reads the first of (("sshd",pid=7,fd=3),...).
func owner(s string) (name string, pid int) {
	_, rest, ok := strings.Cut(s, `(("`)
	if !ok {
		return "", 0
	}
	name, rest, _ = strings.Cut(rest, `"`)
	if _, rest, ok = strings.Cut(rest, "pid="); ok {
		digits, _, _ := strings.Cut(rest, ",")
		pid, _ = strconv.Atoi(digits)
	}
	return name, pid
}
