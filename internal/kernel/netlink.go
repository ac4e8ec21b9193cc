package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// receiveBuffer holds the reports of one question; a longer trace than this
// would be lost, which the kernel then says (ENOBUFS).
const receiveBuffer = 64 << 20

// conn is a NETLINK_NETFILTER socket of one namespace.
type conn struct {
	fd  int
	seq uint32
	buf []byte
}

// message is one netlink message: subsystem and command in kind, the resource
// of its nfgenmsg (an nflog group), and the attributes behind it.
type message struct {
	kind   uint16
	family uint8
	res    uint16
	attrs  []byte
}

// dial opens a socket in the calling thread's namespace.
func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC,
		unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("netfilter socket: %w", err)
	}
	c := &conn{fd: fd, buf: make([]byte, 1<<18)}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("netfilter socket: %w", err)
	}
	return c, nil
}

func (c *conn) close() { unix.Close(c.fd) }

// join subscribes to a multicast group.
func (c *conn) join(group int) error {
	return unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
}

// request appends one message to b.
func (c *conn) request(b []byte, kind, flags uint16, m message) []byte {
	c.seq++
	start := len(b)
	b = append(b, make([]byte, unix.NLMSG_HDRLEN)...)
	b = append(b, m.family, 0)
	b = binary.BigEndian.AppendUint16(b, m.res)
	b = append(b, m.attrs...)
	h := b[start:]
	binary.NativeEndian.PutUint32(h[0:], uint32(len(h)))
	binary.NativeEndian.PutUint16(h[4:], kind)
	binary.NativeEndian.PutUint16(h[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(h[8:], c.seq)
	return b
}

func (c *conn) send(b []byte) error {
	return unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// do sends one acknowledged message.
func (c *conn) do(kind, flags uint16, m message) error {
	b := c.request(nil, kind, flags|unix.NLM_F_ACK, m)
	if err := c.send(b); err != nil {
		return err
	}
	return c.wait(c.seq, nil)
}

// dump sends a request and hands each message of the reply to f.
func (c *conn) dump(kind uint16, m message, f func(message)) error {
	if err := c.send(c.request(nil, kind, unix.NLM_F_DUMP, m)); err != nil {
		return err
	}
	return c.wait(c.seq, f)
}

// wait reads until the acknowledgement, error or end of the request seq.
func (c *conn) wait(seq uint32, f func(message)) error {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if err != nil {
			return err
		}
		done, err := c.reply(c.buf[:n], seq, f)
		if done || err != nil {
			return err
		}
	}
}

// waitBatch reads until the first error of a batch's messages, or the last one's
// acknowledgement. A kernel without the subsystem answers for the first one only.
func (c *conn) waitBatch(first, last uint32) error {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if err != nil {
			return err
		}
		for b := c.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			body, kind, seq, rest := cut(b)
			b = rest
			if kind != unix.NLMSG_ERROR || seq < first || seq > last {
				continue
			}
			if err := ackError(body); err != nil || seq == last {
				return err
			}
		}
	}
}

// reply reads the messages of one datagram that answer seq.
func (c *conn) reply(b []byte, seq uint32, f func(message)) (done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		body, kind, got, rest := cut(b)
		b = rest
		switch {
		case got != seq:
			continue
		case kind == unix.NLMSG_DONE:
			return true, nil
		case kind == unix.NLMSG_ERROR:
			return true, ackError(body)
		}
		if m, ok := parseMessage(kind, body); ok && f != nil {
			f(m)
		}
	}
	return false, nil
}

// poll hands every message that is waiting to f, and returns when none is.
func (c *conn) poll(f func(message)) error {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN:
			return nil
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("netfilter receive", err)
		}
		for b := c.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			body, kind, _, rest := cut(b)
			b = rest
			if m, ok := parseMessage(kind, body); ok && f != nil {
				f(m)
			}
		}
	}
}

// cut takes the first message off b. A length that lies ends the datagram.
func cut(b []byte) (body []byte, kind uint16, seq uint32, rest []byte) {
	n := int(binary.NativeEndian.Uint32(b))
	if n < unix.NLMSG_HDRLEN || n > len(b) {
		return nil, 0, 0, nil
	}
	kind = binary.NativeEndian.Uint16(b[4:])
	seq = binary.NativeEndian.Uint32(b[8:])
	return b[unix.NLMSG_HDRLEN:n], kind, seq, b[min(align4(n), len(b)):]
}

func parseMessage(kind uint16, body []byte) (message, bool) {
	if kind < unix.NLMSG_MIN_TYPE || len(body) < 4 {
		return message{}, false
	}
	return message{kind: kind, family: body[0],
		res: binary.BigEndian.Uint16(body[2:]), attrs: body[4:]}, true
}

func ackError(body []byte) error {
	if len(body) < 4 {
		return errors.New("short acknowledgement")
	}
	code := int32(binary.NativeEndian.Uint32(body))
	if code == 0 {
		return nil
	}
	return unix.Errno(-code)
}

func align4(n int) int { return (n + 3) &^ 3 }

// attr appends one attribute.
func attr(b []byte, typ uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	return append(b, make([]byte, align4(len(data))-len(data))...)
}

func attrNest(b []byte, typ uint16, data []byte) []byte {
	return attr(b, typ|unix.NLA_F_NESTED, data)
}

func attr8(b []byte, typ uint16, v uint8) []byte { return attr(b, typ, []byte{v}) }

func attr16(b []byte, typ, v uint16) []byte {
	return attr(b, typ, binary.BigEndian.AppendUint16(nil, v))
}

func attr32(b []byte, typ uint16, v uint32) []byte {
	return attr(b, typ, binary.BigEndian.AppendUint32(nil, v))
}

func attrString(b []byte, typ uint16, s string) []byte {
	return attr(b, typ, append([]byte(s), 0))
}

// eachAttr hands every attribute of b to f, its nesting bits removed.
func eachAttr(b []byte, f func(typ uint16, data []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER),
			b[4:n])
		b = b[min(align4(n), len(b)):]
	}
}

func be32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func be64(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

func byte0(b []byte) uint8 {
	if len(b) == 0 {
		return 0
	}
	return b[0]
}

func be16(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// cstring is an attribute's text without its final zero.
func cstring(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
