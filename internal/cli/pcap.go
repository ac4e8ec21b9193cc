package cli

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/hookpath/hookpath/packet"
)

// maxFrames bounds what is read from a capture.
const maxFrames = 1 << 20

// readPcap reads the packets of a pcap or pcapng file as Ethernet frames.
func readPcap(name string) ([][]byte, error) {
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

func openCapture(r *bufio.Reader) (capture, func(gopacket.CaptureInfo) layers.LinkType, error) {
	magic, err := r.Peek(4)
	if err != nil {
		return nil, nil, errors.New("not a pcap file: it has no header")
	}
	if string(magic) == "\x0a\x0d\x0d\x0a" {
		ng, err := pcapgo.NewNgReader(r, pcapgo.NgReaderOptions{WantMixedLinkType: true})
		if err != nil {
			return nil, nil, err
		}
		return ng, func(ci gopacket.CaptureInfo) layers.LinkType {
			if i, err := ng.Interface(ci.InterfaceIndex); err == nil {
				return i.LinkType
			}
			return layers.LinkTypeNull
		}, nil
	}
	p, err := pcapgo.NewReader(r)
	if err != nil {
		return nil, nil, fmt.Errorf("not a pcap file: %w", err)
	}
	p.SetSnaplen(maxPacket)
	return p, func(gopacket.CaptureInfo) layers.LinkType { return p.LinkType() }, nil
}

func pcapFrames(r *bufio.Reader) ([][]byte, error) {
	c, linkType, err := openCapture(r)
	if err != nil {
		return nil, err
	}
	var out [][]byte
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
		frame, err := ethernet(b, linkType(ci))
		if err != nil {
			return nil, fmt.Errorf("packet %d: %w", len(out)+1, err)
		}
		out = append(out, frame)
	}
}

// Link types of a capture that are not layers' own constants.
const (
	linkRaw       = layers.LinkType(101)
	linkIPv4      = layers.LinkType(228)
	linkCooked    = layers.LinkType(113) // tcpdump -i any
	linkCookedTwo = layers.LinkType(276) // the same, newer
)

// ethernet makes an Ethernet frame of a captured packet. What the capture does not have
// of the header is zero, and the walk takes the frame for the host's own.
func ethernet(b []byte, t layers.LinkType) ([]byte, error) {
	header, src, proto := 0, packet.MAC{}, uint16(0x0800)
	switch t {
	case layers.LinkTypeEthernet:
		return b, nil
	case linkRaw, linkIPv4, 12, 14:
	case linkCooked:
		if len(b) < 16 {
			return nil, errors.New("shorter than its cooked header")
		}
		header, proto = 16, binary.BigEndian.Uint16(b[14:])
		copy(src[:], b[6:12])
	case linkCookedTwo:
		if len(b) < 20 {
			return nil, errors.New("shorter than its cooked header")
		}
		header, proto = 20, binary.BigEndian.Uint16(b)
		copy(src[:], b[12:18])
	default:
		return nil, fmt.Errorf("link type %d: Ethernet, raw IP and Linux cooked captures are read", t)
	}
	out := make([]byte, packet.EthernetLen, packet.EthernetLen+len(b)-header)
	copy(out[6:], src[:])
	binary.BigEndian.PutUint16(out[12:], proto)
	return append(out, b[header:]...), nil
}
