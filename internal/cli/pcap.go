package cli

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/hookpath/hookpath/packet"
)

// maxFrames bounds what is read from a capture.
const maxFrames = 1 << 20

// captured is a packet of a capture, as an Ethernet frame.
type captured struct {
	frame []byte
	at    time.Time
	dev   string // the interface that it was seen on, where the capture names it
	index int    // its number, where the capture has that; zero for none
	sent  bool   // the capture says that its host sent it
	bare  bool   // there was no Ethernet header
}

// readPcap reads the packets of a pcap or pcapng file.
func readPcap(name string) ([]captured, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	frames, err := pcapFrames(bufio.NewReader(f))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return frames, nil
}

// capture is a file of packets, in either format.
type capture interface {
	ReadPacketData() ([]byte, gopacket.CaptureInfo, error)
}

// wire is what a packet was seen on: the kind of link, and the interface's name if there is one.
type wire struct {
	link layers.LinkType
	name string
}

func openCapture(r *bufio.Reader) (capture, func(gopacket.CaptureInfo) wire, error) {
	magic, err := r.Peek(4)
	if err != nil {
		return nil, nil, errors.New("not a pcap file: it has no header")
	}
	if string(magic) == "\x0a\x0d\x0d\x0a" {
		ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if err != nil {
			return nil, nil, err
		}
		return ng, func(ci gopacket.CaptureInfo) wire {
			if i, err := ng.Interface(ci.InterfaceIndex); err == nil {
				return wire{i.LinkType, i.Name}
			}
			return wire{layers.LinkTypeNull, ""}
		}, nil
	}
	p, err := pcapgo.NewReader(r)
	if err != nil {
		return nil, nil, fmt.Errorf("not a pcap file: %w", err)
	}
	p.SetSnaplen(maxPacket)
	return p, func(gopacket.CaptureInfo) wire { return wire{p.LinkType(), ""} }, nil
}

func pcapFrames(r *bufio.Reader) ([]captured, error) {
	c, wireOf, err := openCapture(r)
	if err != nil {
		return nil, err
	}
	var out []captured
	for {
		b, ci, err := c.ReadPacketData()
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("packet %d: %w", len(out)+1, err)
		case len(out) == maxFrames:
			return nil, fmt.Errorf("more than %d packets", maxFrames)
		case len(b) > maxPacket:
			return nil, fmt.Errorf("packet %d: %d bytes are more than %d", len(out)+1, len(b), maxPacket)
		case ci.CaptureLength < ci.Length:
			return nil, fmt.Errorf("packet %d: cut to %d of %d bytes: capture with -s 0", len(out)+1,
				ci.CaptureLength, ci.Length)
		}
		seen := wireOf(ci)
		p, err := ethernet(b, seen.link)
		if err != nil {
			return nil, fmt.Errorf("packet %d: %w", len(out)+1, err)
		}
		p.at, p.dev = ci.Timestamp, seen.name
		out = append(out, p)
	}
}

// Link types of a capture that are not layers' own constants.
const (
	linkRaw       = layers.LinkType(101)
	linkIPv4      = layers.LinkType(228)
	linkCooked    = layers.LinkType(113) // tcpdump -i any
	linkCookedTwo = layers.LinkType(276) // the same, newer
)

// outgoing is the type of a cooked packet that the host itself sent (PACKET_OUTGOING).
const outgoing = 4

// ethernet makes an Ethernet frame of a captured packet. What the capture does not have
// of the header is zero, and the walk takes the frame for the host's own.
func ethernet(b []byte, t layers.LinkType) (captured, error) {
	c := captured{bare: true}
	header, src, proto := 0, packet.MAC{}, uint16(packet.EtherIPv4)
	switch t {
	case layers.LinkTypeEthernet:
		return captured{frame: b}, nil
	case linkRaw, linkIPv4, 12, 14:
	case linkCooked:
		if len(b) < 16 {
			return c, errors.New("shorter than its cooked header")
		}
		header, proto = 16, binary.BigEndian.Uint16(b[14:])
		c.sent = binary.BigEndian.Uint16(b) == outgoing
		copy(src[:], b[6:12])
	case linkCookedTwo:
		if len(b) < 20 {
			return c, errors.New("shorter than its cooked header")
		}
		header, proto = 20, binary.BigEndian.Uint16(b)
		c.index, c.sent = int(binary.BigEndian.Uint32(b[4:])), b[10] == outgoing
		copy(src[:], b[12:18])
	default:
		return c, fmt.Errorf("link type %d: Ethernet, raw IP and Linux cooked captures are read", t)
	}
	c.frame = make([]byte, packet.EthernetLen, packet.EthernetLen+len(b)-header)
	copy(c.frame[6:], src[:])
	binary.BigEndian.PutUint16(c.frame[12:], proto)
	c.frame = append(c.frame, b[header:]...)
	return c, nil
}
