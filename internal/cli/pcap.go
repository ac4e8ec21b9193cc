package cli

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxFrames bounds what is read from a capture.
const maxFrames = 1 << 20

// linkEthernet is LINKTYPE_ETHERNET.
const linkEthernet = 1

// readPcap reads the Ethernet frames of a pcap file.
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

func pcapFrames(r io.Reader) ([][]byte, error) {
	var head [24]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("no pcap header: %w", err)
	}
	order, err := pcapOrder(head[:4])
	if err != nil {
		return nil, err
	}
	if t := order.Uint32(head[20:]) & 0xffff; t != linkEthernet {
		return nil, fmt.Errorf("link type %d: only Ethernet (%d) is read", t, linkEthernet)
	}
	var out [][]byte
	for {
		b, err := pcapFrame(r, order)
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case err != nil:
			return nil, fmt.Errorf("packet %d: %w", len(out)+1, err)
		case len(out) == maxFrames:
			return nil, fmt.Errorf("more than %d packets", maxFrames)
		}
		out = append(out, b)
	}
}

// pcapOrder finds the byte order by the magic number.
func pcapOrder(magic []byte) (binary.ByteOrder, error) {
	switch string(magic) {
	case "\xd4\xc3\xb2\xa1", "\x4d\x3c\xb2\xa1":
		return binary.LittleEndian, nil
	case "\xa1\xb2\xc3\xd4", "\xa1\xb2\x3c\x4d":
		return binary.BigEndian, nil
	case "\x0a\x0d\x0d\x0a":
		return nil, errors.New("a pcapng file: convert it with editcap -F pcap")
	}
	return nil, errors.New("not a pcap file")
}

// pcapFrame reads one packet; io.EOF at the end.
func pcapFrame(r io.Reader, order binary.ByteOrder) ([]byte, error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n, whole := order.Uint32(head[8:]), order.Uint32(head[12:])
	switch {
	case n > maxPacket:
		return nil, fmt.Errorf("%d bytes are more than %d", n, maxPacket)
	case n < whole:
		return nil, fmt.Errorf("cut to %d of %d bytes: capture with -s 0", n, whole)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return b, nil
}
