package cli

import (
	"bufio"
	"bytes"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// header is what an Ethernet frame begins with, as each kind of capture knows it.
const (
	wholeHeader  = "\x02\x00\x00\x00\x00\x10\x02\x00\x00\x00\x00\x01\x08\x00"
	sourceHeader = "\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x01\x08\x00"
	emptyHeader  = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08\x00"
)

func TestPcap(t *testing.T) {
	for _, c := range []struct {
		name  string
		link  layers.LinkType
		bytes string
		want  string
	}{
		{"Ethernet", layers.LinkTypeEthernet, wholeHeader + "packet", wholeHeader + "packet"},
		{"raw", 101, "packet", emptyHeader + "packet"},
		{"cooked", 113, "\x00\x00\x00\x01\x00\x06\x02\x00\x00\x00\x00\x01\x00\x00\x08\x00packet",
			sourceHeader + "packet"},
		{"cooked 2", 276, "\x08\x00\x00\x00\x00\x00\x00\x02\x00\x01\x00\x06\x02\x00\x00\x00\x00\x01" +
			"\x00\x00packet", sourceHeader + "packet"},
	} {
		for _, ng := range []bool{false, true} {
			got, err := pcapFrames(bufio.NewReader(bytes.NewReader(capture1(t, c.link, c.bytes, ng, 0))))
			if err != nil || len(got) != 1 || string(got[0].frame) != c.want {
				t.Errorf("%s, pcapng %v: got %v, %v; want %q", c.name, ng, got, err, c.want)
			}
		}
	}
}

func TestPcapErrors(t *testing.T) {
	for _, c := range []struct {
		name, want string
		file       []byte
	}{
		{"empty", "no header", nil},
		{"text", "not a pcap file", []byte("this is no capture at all, but text")},
		{"other link", "link type 105", capture1(t, 105, "packet", false, 0)},
		{"short cooked", "shorter", capture1(t, 113, "x", true, 0)},
		{"cut", "cut to 6 of 9 bytes", capture1(t, 101, "packet", false, 3)},
	} {
		_, err := pcapFrames(bufio.NewReader(bytes.NewReader(c.file)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}

// capture1 is a file of one packet, of which some bytes were not captured.
func capture1(t testing.TB, link layers.LinkType, b string, ng bool, lost int) []byte {
	t.Helper()
	var out bytes.Buffer
	ci := gopacket.CaptureInfo{CaptureLength: len(b), Length: len(b) + lost, Timestamp: testNow()}
	var err error
	if ng {
		var w *pcapgo.NgWriter
		if w, err = pcapgo.NewNgWriter(&out, link); err == nil {
			err = w.WritePacket(ci, []byte(b))
			_ = w.Flush()
		}
	} else {
		w := pcapgo.NewWriter(&out)
		if err = w.WriteFileHeader(1<<16, link); err == nil {
			err = w.WritePacket(ci, []byte(b))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// FuzzPcap reads anything: frames or an error.
func FuzzPcap(f *testing.F) {
	f.Add(capture1(f, 1, wholeHeader+"packet", false, 0))
	f.Add(capture1(f, 276, wholeHeader+"packet", true, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = pcapFrames(bufio.NewReader(bytes.NewReader(b)))
	})
}
