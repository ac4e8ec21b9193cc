package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/report"
)

// seen is a packet of a capture in the making: a sentence, and who is on its link.
type seen struct {
	sentence string
	ours     bool // the host sends it
}

// dockerCapture is what tcpdump sees on eth0 of the demo docker-host: the shop that a container
// has, asked by one who may and one who may not; a ping; a query of the host itself.
func dockerCapture() []seen {
	return []seen{
		{"tcp 198.51.100.7:40000 to 192.0.2.20:8080 flags S", false},
		{"tcp 192.0.2.20:8080 to 198.51.100.7:40000 flags SA", true},
		{"tcp 198.51.100.7:40000 to 192.0.2.20:8080 flags A", false},
		{"tcp 203.0.113.9:40001 to 192.0.2.20:8080 flags S", false},
		{"tcp 192.0.2.20:8080 to 203.0.113.9:40001 flags RA", true},
		{"icmp echo 198.51.100.7 to 192.0.2.20 id 7", false},
		{"icmp echo-reply 192.0.2.20 to 198.51.100.7 id 7", true},
		{"udp 192.0.2.20:5353 to 198.51.100.53:53", true},
		{"udp 198.51.100.53:53 to 192.0.2.20:5353", false},
		{"tcp 192.0.2.20:8080 to 198.51.100.7:40000 flags PA", true},
	}
}

// captureFile writes a capture of a kind of link.
func captureFile(t *testing.T, link layers.LinkType, all []seen) string {
	t.Helper()
	var out bytes.Buffer
	w := pcapgo.NewWriter(&out)
	if err := w.WriteFileHeader(1<<16, link); err != nil {
		t.Fatal(err)
	}
	for i, s := range all {
		b := linked(t, link, s)
		ci := gopacket.CaptureInfo{CaptureLength: len(b), Length: len(b),
			Timestamp: testNow().Add(time.Duration(i) * time.Millisecond)}
		if err := w.WritePacket(ci, b); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(t.TempDir(), "x.pcap")
	if err := os.WriteFile(name, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// linked is a packet with the header of its kind of link.
func linked(t testing.TB, link layers.LinkType, s seen) []byte {
	t.Helper()
	q, err := packet.ParseSentence(s.sentence)
	if err != nil {
		t.Fatal(err)
	}
	q.Complete()
	ip, err := q.Packet()
	if err != nil {
		t.Fatal(err)
	}
	host, gateway := packet.MAC{0x52, 0x54, 0, 0x20, 0, 2}, packet.MAC{0x52, 0x54, 0, 0xfe, 0, 1}
	if !s.ours {
		host, gateway = gateway, host
	}
	kind := byte(0)
	if s.ours {
		kind = outgoing
	}
	switch link {
	case layers.LinkTypeEthernet:
		return packet.Frame(gateway, host, ip)
	case linkCooked:
		return append(append([]byte{0, kind, 0, 1, 0, 6}, append(host[:], 0, 0, 8, 0)...), ip...)
	case linkCookedTwo:
		return append(append([]byte{8, 0, 0, 0, 0, 0, 0, 2, 0, 1, kind, 6}, append(host[:], 0, 0)...), ip...)
	}
	return ip
}

// traced runs trace on the demo and returns what it prints, with its status.
func traced(args ...string) (string, int) {
	var out, errs bytes.Buffer
	status := Run(&Env{Out: &out, Err: &errs, Now: testNow}, append([]string{"trace", "-s",
		"demo:docker-host"}, args...))
	return out.String() + errs.String(), status
}

func TestCapture(t *testing.T) {
	for name, link := range map[string]layers.LinkType{"Ethernet": layers.LinkTypeEthernet, "raw": linkRaw,
		"cooked": linkCooked, "cooked 2": linkCookedTwo} {
		t.Run(name, func(t *testing.T) {
			file := captureFile(t, link, dockerCapture())
			got, status := traced("--pcap", file, "--in", "eth0")
			if status != exitDropped {
				t.Errorf("status %d", status)
			}
			for _, want := range []string{
				`^LOSES     4 conversations, 10 packets; lost: 1 packet of 1 conversation\.$`,
				`^  2 >   2 <  tcp 198\.51\.100\.7:40000 > 192\.0\.2\.20:8080 +sent by br-3f1c0a9d52e7; answers`,
				`^  1 >   1 <  tcp 203\.0\.113\.9:40001 > 192\.0\.2\.20:8080 +1 lost, the first is packet 4$`,
				`^  1 >   1 <  icmp 198\.51\.100\.7 > 192\.0\.2\.20 +delivered to the kernel$`,
				`^packet 4, after 0\.003 s: tcp 203\.0\.113\.9:40001 > 192\.0\.2\.20:8080$`,
				`^REJECTED  The packet is refused on docker-host; the sender is told\.$`,
				`^WHERE     docker-host, filter DOCKER-USER rule 1: `,
			} {
				if !regexp.MustCompile("(?m)" + want).MatchString(got) {
					t.Errorf("no match for %s in\n%s", want, got)
				}
			}
			if strings.Contains(got, "not walked") {
				t.Error(got)
			}
		})
	}
}

// TestCapturePacket tells one packet whole, with what the ones before left behind.
func TestCapturePacket(t *testing.T) {
	file := captureFile(t, layers.LinkTypeEthernet, dockerCapture())
	got, status := traced("--pcap", file, "--in", "eth0", "--packet", "3")
	if status != exitOK || !strings.Contains(got, "ESTABLISHED tcp 198.51.100.7:40000") {
		t.Errorf("status %d\n%s", status, got)
	}
	if got, status = traced("--pcap", file, "--packet", "11"); status != exitUsage ||
		!strings.Contains(got, "has 10 packets") {
		t.Errorf("status %d\n%s", status, got)
	}
	if got, _ = traced("--pcap", file, "--in", "eth0", "--json"); strings.Count(got, "\n") < 7 {
		t.Error(got)
	}
	if got, _ = traced("--pcap", file, "--in", "eth0", "-q"); strings.Count(got, "\n") < 4 ||
		strings.Contains(got, "WHERE") {
		t.Error(got)
	}
}

// FuzzCapture walks two frames of anything, as arrived and as sent: an error or an answer.
func FuzzCapture(f *testing.F) {
	e := &Env{Out: io.Discard, Err: io.Discard, Now: testNow}
	l, err := loadHosts(e, []string{"demo:docker-host"})
	if err != nil {
		f.Fatal(err)
	}
	for i, s := range dockerCapture()[:4] {
		f.Add(linked(f, layers.LinkTypeEthernet, s), linked(f, layers.LinkTypeEthernet, dockerCapture()[i+1]))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		c, err := newCapturing(&traceFlags{in: "eth0", format: "text"}, e, l, []captured{{frame: a},
			{frame: b, sent: true}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range c.all {
			if c.walk(i) != nil {
				return
			}
		}
		c.told.Text(report.Style{}, false)
	})
}
