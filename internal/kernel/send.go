package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ipv4 is what sending needs of a packet's header.
type ipv4 struct {
	src, dst netip.Addr
	proto    uint8
	tos, ttl uint8
	dontFrag bool
	payload  []byte
}

func parseIPv4(b []byte) (ipv4, error) {
	if len(b) < 20 || b[0]>>4 != 4 {
		return ipv4{}, errors.New("not an IPv4 packet")
	}
	n := int(b[0]&15) * 4
	if n < 20 || n > len(b) {
		return ipv4{}, errors.New("IPv4 header does not fit")
	}
	src, _ := netip.AddrFromSlice(b[12:16])
	dst, _ := netip.AddrFromSlice(b[16:20])
	return ipv4{src: src, dst: dst, proto: b[9], tos: b[1], ttl: b[8],
		dontFrag: b[6]&0x40 != 0, payload: b[n:]}, nil
}

// send has a program of the host send the question's packet. The name of the
// error that the program gets is no error of the question.
func (h *host) send(q *Question) (errno string, err error) {
	p, err := parseIPv4(q.Packet)
	if err != nil {
		return "", err
	}
	kind := q.Socket
	if kind == "" {
		kind = defaultSocket(p.proto)
	}
	switch kind {
	case "raw":
		err = h.sendRaw(q, p)
	case "icmp":
		err = h.sendICMP(q, p)
	case "udp":
		err = h.sendUDP(q, p)
	case "tcp":
		err = h.sendTCP(q, p)
	default:
		return "", fmt.Errorf("unknown socket %q", kind)
	}
	var no unix.Errno
	if errors.As(err, &no) {
		return unix.ErrnoName(no), nil
	}
	return "", err
}

func defaultSocket(proto uint8) string {
	switch proto {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	}
	return "raw"
}

// options sets the socket options of the question, and of the packet's header.
func (q *Question) options(fd int, p ipv4) error {
	discover := unix.IP_PMTUDISC_DONT
	if p.dontFrag {
		discover = unix.IP_PMTUDISC_DO
	}
	errs := []error{
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(q.Mark)),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TOS, int(p.tos)),
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, discover),
	}
	if p.ttl != 0 {
		errs = append(errs, unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TTL, int(p.ttl)))
		if p.proto != unix.IPPROTO_TCP { // a stream socket refuses it
			errs = append(errs,
				unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MULTICAST_TTL, int(p.ttl)))
		}
	}
	return errors.Join(errs...)
}

// sendRaw sends the packet's own header (IP_HDRINCL).
func (h *host) sendRaw(q *Question, p ipv4) error {
	fd, err := socketAs(q.UID, q.GID, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	spec := socketSpec{dev: q.Dev, transparent: q.Transparent}
	if q.Bound {
		spec.local = netip.AddrPortFrom(p.src, 0)
	}
	if err := errors.Join(spec.prepare(fd), q.options(fd, p)); err != nil {
		return err
	}
	return unix.Sendto(fd, q.Packet, 0, sockaddr4(netip.AddrPortFrom(p.dst, 0)))
}

// sendICMP sends the ICMP message as ping does.
func (h *host) sendICMP(q *Question, p ipv4) error {
	spec := socketSpec{proto: "icmp", local: netip.AddrPortFrom(p.src, 0), dev: q.Dev,
		uid: q.UID, gid: q.GID, transparent: q.Transparent}
	fd, err := spec.bound()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := q.options(fd, p); err != nil {
		return err
	}
	return unix.Sendto(fd, p.payload, 0, sockaddr4(netip.AddrPortFrom(p.dst, 0)))
}

// keep finds the socket that an earlier question left, or opens one.
func (h *host) keep(spec socketSpec) (int, error) {
	if fd, ok := h.kept[spec]; ok {
		return fd, nil
	}
	fd, err := spec.bound()
	if err != nil {
		return -1, err
	}
	h.kept[spec] = fd
	return fd, nil
}

func (q *Question) spec(proto string, p ipv4) socketSpec {
	port := binary.BigEndian.Uint16(p.payload)
	return socketSpec{proto: proto, local: netip.AddrPortFrom(p.src, port), dev: q.Dev,
		uid: q.UID, gid: q.GID, transparent: q.Transparent}
}

func (h *host) sendUDP(q *Question, p ipv4) error {
	if len(p.payload) < 8 || p.proto != unix.IPPROTO_UDP {
		return errors.New("socket udp: not a UDP packet")
	}
	fd, err := h.keep(q.spec("udp", p))
	if err != nil {
		return err
	}
	if err := q.options(fd, p); err != nil {
		return err
	}
	port := binary.BigEndian.Uint16(p.payload[2:])
	return unix.Sendto(fd, p.payload[8:], 0, sockaddr4(netip.AddrPortFrom(p.dst, port)))
}

// sendTCP sends a SYN by connecting; TCP_REPAIR gives it the packet's sequence
// number. Other segments belong to a connection whose state no packet tells.
//
// The socket that stays behind is not the one that sent: that would send its
// SYN again after a second.
func (h *host) sendTCP(q *Question, p ipv4) error {
	if len(p.payload) < 20 || p.proto != unix.IPPROTO_TCP {
		return errors.New("socket tcp: not a TCP packet")
	}
	if p.payload[13]&0x3f != 0x02 {
		return errors.New("socket tcp: a program can only be made to send a SYN; " +
			"use a raw socket for other segments")
	}
	spec := q.spec("tcp", p)
	if fd, ok := h.kept[spec]; ok {
		unix.Close(fd)
		delete(h.kept, spec)
	}
	port := binary.BigEndian.Uint16(p.payload[2:])
	peer := netip.AddrPortFrom(p.dst, port)
	local, err := q.syn(spec, p, peer)
	if err != nil {
		return err
	}
	spec.local = local
	fd, err := listing{proto: "tcp", state: "ESTAB", local: local, peer: peer,
		mark: q.Mark, tos: int(p.tos)}.connected(spec)
	if err == nil { // else the peer is one that no connection can have
		h.kept[q.spec("tcp", p)] = fd
	}
	return nil
}

// syn connects a socket, closes it without a word, and says what it was bound to.
func (q *Question) syn(spec socketSpec, p ipv4, peer netip.AddrPort) (netip.AddrPort, error) {
	var none netip.AddrPort
	fd, err := spec.bound()
	if err != nil {
		return none, err
	}
	defer unix.Close(fd)
	err = errors.Join(q.options(fd, p), setSequence(fd, p.payload), unix.SetNonblock(fd, true))
	if err != nil {
		return none, err
	}
	err = unix.Connect(fd, sockaddr4(peer))
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return none, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return none, err
	}
	in4 := sa.(*unix.SockaddrInet4)
	return netip.AddrPortFrom(netip.AddrFrom4(in4.Addr), uint16(in4.Port)), nil
}

// Values of linux/tcp.h.
const (
	tcpSendQueue   = 2
	tcpRepairOffNP = -1 // off, without a window probe
)

// setSequence has the socket's SYN carry the sequence number of segment.
func setSequence(fd int, segment []byte) error {
	seq := int(binary.BigEndian.Uint32(segment[4:]))
	if seq == 0 {
		return nil
	}
	return errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, 1),
		unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR_QUEUE, tcpSendQueue),
		unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_QUEUE_SEQ, seq),
		unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_REPAIR, tcpRepairOffNP))
}
