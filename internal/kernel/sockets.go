package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// listing is one line of ss -H -n -a -t -u -w -p -e --inet-sockopt.
type listing struct {
	proto, state string
	local, peer  netip.AddrPort
	dev          string
	uid          int
	transparent  bool
	mark         uint32
	tos          int
}

// parseSockets reads the IPv4 sockets of ss. Those of other families are left
// out, and TCP connections in states that no program holds open.
func parseSockets(host, text string) ([]listing, error) {
	var out []listing
	n := 0
	for line := range strings.Lines(text) {
		n++
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if strings.HasPrefix(line, "\t") { // --inet-sockopt has a line of its own
			if len(out) > 0 {
				out[len(out)-1].options(f)
			}
			continue
		}
		if len(f) < 6 {
			return nil, fmt.Errorf("%s/sockets:%d: %q has fewer than 6 columns", host, n, line)
		}
		l := listing{proto: f[0], state: f[1], uid: 0}
		var err4, err6 error
		l.local, l.dev, err4 = parseEndpoint(f[4])
		l.peer, _, err6 = parseEndpoint(f[5])
		if err4 != nil || err6 != nil {
			return nil, fmt.Errorf("%s/sockets:%d: cannot read %q, %q", host, n, f[4], f[5])
		}
		l.options(f[6:])
		out = append(out, l)
	}
	return slices.DeleteFunc(out, func(l listing) bool {
		return !l.local.Addr().Is4() || l.state == "TIME-WAIT"
	}), nil
}

func (l *listing) options(words []string) {
	for _, w := range words {
		if uid, ok := strings.CutPrefix(w, "uid:"); ok {
			l.uid, _ = strconv.Atoi(uid)
		}
		if mark, ok := strings.CutPrefix(w, "fwmark:"); ok {
			n, _ := strconv.ParseUint(mark, 0, 32)
			l.mark = uint32(n)
		}
	}
	l.transparent = l.transparent || slices.ContainsFunc(words, func(w string) bool {
		return strings.Trim(w, "(),") == "transparent"
	})
}

// parseEndpoint reads 0.0.0.0%eth0:68, *:80, [::]:22, 127.0.0.1:* .
func parseEndpoint(s string) (netip.AddrPort, string, error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return netip.AddrPort{}, "", fmt.Errorf("endpoint %q", s)
	}
	host, portText := s[:i], s[i+1:]
	host, dev, _ := strings.Cut(strings.Trim(host, "[]"), "%")
	dev = strings.TrimSuffix(dev, "]")
	if host == "*" {
		host = "::" // ss prints it for a socket of both families
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return netip.AddrPort{}, "", err
	}
	number := 0
	if portText != "*" {
		number, err = strconv.Atoi(portText)
		if err != nil {
			number, err = ipProtocol(portText)
		}
	}
	return netip.AddrPortFrom(addr, uint16(number)), dev, err
}

// ipProtocol is the number of a raw socket's protocol name.
func ipProtocol(name string) (int, error) {
	switch name {
	case "icmp":
		return unix.IPPROTO_ICMP, nil
	case "igmp":
		return unix.IPPROTO_IGMP, nil
	case "tcp":
		return unix.IPPROTO_TCP, nil
	case "udp":
		return unix.IPPROTO_UDP, nil
	}
	return 0, fmt.Errorf("protocol %q", name)
}

// mute has a socket drop all it receives. It is still found by look-ups (a
// match, TPROXY, no port unreachable), but never answers: what a socket's owner
// sends is a question of its own.
func mute(fd int) error {
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: 1, Filter: &drop})
}

// socketSpec is what decides which socket a look-up finds.
type socketSpec struct {
	proto       string
	local       netip.AddrPort
	dev         string
	uid, gid    uint32
	transparent bool
}

// bound opens a socket, as the user of the spec, and binds it.
func (s socketSpec) bound() (int, error) {
	kind, proto := unix.SOCK_DGRAM, 0
	switch s.proto {
	case "tcp":
		kind = unix.SOCK_STREAM
	case "raw":
		kind, proto = unix.SOCK_RAW, int(s.local.Port())
	case "icmp":
		kind, proto = unix.SOCK_RAW, unix.IPPROTO_ICMP
	}
	fd, err := socketAs(s.uid, s.gid, kind, proto)
	if err != nil {
		return -1, err
	}
	if err := s.prepare(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (s socketSpec) prepare(fd int) error {
	if s.dev != "" {
		if err := unix.BindToDevice(fd, s.dev); err != nil {
			return fmt.Errorf("bind to device %s: %w", s.dev, err)
		}
	}
	if s.transparent {
		if err := unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	sa := &unix.SockaddrInet4{Port: int(s.local.Port())}
	if s.local.Addr().Is4() {
		sa.Addr = s.local.Addr().As4()
	}
	if err := mute(fd); err != nil {
		return err
	}
	return unix.Bind(fd, sa)
}

// socketAs opens a socket whose owner (of xt_owner: its file's fsuid; of a rule's
// uidrange: its inode's uid) is uid and gid.
func socketAs(uid, gid uint32, kind, proto int) (int, error) {
	if uid != 0 || gid != 0 {
		unix.SetfsgidRetGid(int(gid))
		unix.SetfsuidRetUid(int(uid))
		defer func() {
			unix.SetfsuidRetUid(0)
			unix.SetfsgidRetGid(0)
		}()
	}
	return unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, proto)
}

// open makes one socket of the listing.
func (l listing) open() (int, error) {
	spec := socketSpec{proto: l.proto, local: l.local, dev: l.dev,
		uid: uint32(l.uid), transparent: l.transparent}
	if l.state != "LISTEN" && l.state != "UNCONN" {
		return l.connected(spec)
	}
	fd, err := spec.bound()
	if err != nil {
		return -1, err
	}
	if l.state == "LISTEN" {
		err = unix.Listen(fd, 128)
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(l.mark))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// connected makes a socket with a peer. TCP_REPAIR makes the connection
// without a handshake.
func (l listing) connected(spec socketSpec) (int, error) {
	if l.state != "ESTAB" {
		return -1, fmt.Errorf("cannot make a socket in state %s", l.state)
	}
	fd, err := spec.bound()
	if err != nil {
		return -1, err
	}
	if l.proto == "tcp" {
		err = unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, 1)
	}
	if err == nil { // the route to the peer may hang on both
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(l.mark)),
			unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TOS, l.tos))
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr4(l.peer))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func sockaddr4(a netip.AddrPort) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}
