package kernel

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tap is a device whose wire we hold: what we write arrives, what it transmits
// we read. The device goes when the descriptor is closed.
type tap struct {
	name   string
	fd     int
	peers  []Port // the other ends of the cable or switch
	header int    // bytes before the IP header
}

// ifreq is struct ifreq with a short and with an int in its union.
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	value uint32
	_     [20]byte
}

const ethernetLen = 14

// openTap makes a device of a given index in the calling thread's namespace.
// layer3 devices (link_type none) carry IP packets without Ethernet header.
func openTap(name string, index int, layer3 bool) (*tap, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	if err := configureTap(fd, name, index, layer3); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("device %s, index %d: %w", name, index, err)
	}
	t := &tap{name: name, fd: fd}
	if !layer3 {
		t.header = ethernetLen
	}
	return t, nil
}

func configureTap(fd int, name string, index int, layer3 bool) error {
	if len(name) >= unix.IFNAMSIZ {
		return unix.EINVAL
	}
	want := int32(index)
	if err := ioctl(fd, unix.TUNSETIFINDEX, unsafe.Pointer(&want)); err != nil {
		return err
	}
	req := ifreq{value: unix.IFF_TAP | unix.IFF_NO_PI}
	if layer3 {
		req.value = unix.IFF_TUN | unix.IFF_NO_PI
	}
	copy(req.name[:], name)
	if err := ioctl(fd, unix.TUNSETIFF, unsafe.Pointer(&req)); err != nil {
		return err
	}
	// As a network card it computes checksums; collect does that for it.
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETOFFLOAD, unix.TUN_F_CSUM)
	if errno != 0 {
		return errno
	}
	return nil
}

// carrier plugs the cable in or out.
func (t *tap) carrier(on bool) error {
	var v int32
	if on {
		v = 1
	}
	return ioctl(t.fd, unix.TUNSETCARRIER, unsafe.Pointer(&v))
}

func ioctl(fd int, req uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

// inject puts a frame on the wire.
func (t *tap) inject(frame []byte) error {
	if _, err := unix.Write(t.fd, frame); err != nil {
		return fmt.Errorf("inject on %s: %w", t.name, err)
	}
	return nil
}

// collect hands every frame that the device transmitted to f; the bytes are
// valid until f returns.
func (t *tap) collect(buf []byte, f func([]byte)) error {
	for {
		n, err := unix.Read(t.fd, buf)
		switch {
		case err == unix.EAGAIN:
			return nil
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("read %s: %w", t.name, err)
		}
		if n > t.header {
			finishChecksum(buf[t.header:n])
		}
		f(buf[:n])
	}
}

func (t *tap) close() { unix.Close(t.fd) }
