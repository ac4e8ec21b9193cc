package packet

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestParseSentence(t *testing.T) {
	tests := []struct {
		text string
		want Sentence
	}{
		{"tcp 10.0.0.5:40000 to 10.96.0.1:443 in eth0", Sentence{Proto: TCP,
			Src: MustParseAddr("10.0.0.5"), SPort: 40000, Dst: MustParseAddr("10.96.0.1"), DPort: 443,
			In: "eth0", Given: GivenSPort | GivenDPort}},
		{"udp 10.0.0.5 to 8.8.8.8:53 out", Sentence{Proto: UDP, Src: MustParseAddr("10.0.0.5"),
			Dst: MustParseAddr("8.8.8.8"), DPort: 53, Local: true, Given: GivenDPort}},
		{"udp to 8.8.8.8:53 out mark 0x4000 uid 1000", Sentence{Proto: UDP,
			Dst: MustParseAddr("8.8.8.8"), DPort: 53, Local: true, Mark: 0x4000, UID: 1000,
			Given: GivenDPort | GivenMark | GivenUID}},
		{"tcp a > b", Sentence{}},
		{"icmp echo 10.0.0.1 > 10.0.0.2 id 7 ttl 1", Sentence{Proto: ICMP,
			Src: MustParseAddr("10.0.0.1"), Dst: MustParseAddr("10.0.0.2"), ICMPType: 8, ICMPID: 7, TTL: 1,
			Given: GivenICMP | GivenICMPID | GivenTTL}},
		{"tcp 10.0.0.1:1 to 10.0.0.2:2 flags SA in e out f forward", Sentence{Proto: TCP,
			Src: MustParseAddr("10.0.0.1"), SPort: 1, Dst: MustParseAddr("10.0.0.2"), DPort: 2, Flags: 0x12,
			In: "e", Out: "f", Forward: true, Given: GivenSPort | GivenDPort | GivenFlags}},
		{"47 10.0.0.1 to 10.0.0.2", Sentence{Proto: GRE, Src: MustParseAddr("10.0.0.1"),
			Dst: MustParseAddr("10.0.0.2")}},
	}
	for _, tt := range tests {
		got, err := ParseSentence(tt.text)
		if tt.want.Dst.IsZero() {
			if err == nil {
				t.Errorf("ParseSentence(%q) = %+v, want an error", tt.text, got)
			}
			continue
		}
		if err != nil || *got != tt.want {
			t.Errorf("ParseSentence(%q) = %+v, %v, want %+v", tt.text, got, err, tt.want)
		}
	}
}

func TestParseSentenceErrors(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", "not a protocol"},
		{"tcp 10.0.0.1:80", "destination is missing"},
		{"tcp 10.0.0.1:80 to", "an address is missing"},
		{"tcp 10.0.0.1:80 to 10.0.0.2:http", "in numbers"},
		{"tcp 10.0.0.1 to 10.0.0.2:80 via eth0", "not understood"},
		{"tcp 10.0.0.1 to 10.0.0.2:80 mark 0x1ffffffff", "32 bits"},
		{"icmp 10.0.0.1 to 10.0.0.2:80", "no ports"},
		{"udp 10.0.0.1 to 10.0.0.2:80 flags S", "tcp only"},
		{"udp 10.0.0.1 to 10.0.0.2:80 in eth0 uid 5", "add out"},
		{"udp 10.0.0.1 to ::1", "different families"},
		{"udp 10.0.0.1 to 10.0.0.2 ct maybe", "ct:"},
		{"udp 10.0.0.1 to 10.0.0.2 mac 1:2", "MAC"},
		{"udp 10.0.0.1 to 10.0.0.2 ttl 3 ttl 4", "ttl is said twice"},
		{"udp 10.0.0.1 to 10.0.0.2:53 dport 54", "dport is said twice"},
		{"icmp echo 10.0.0.1 to 10.0.0.2 type 3", "the icmp type is said twice"},
		{"udp 10.0.0.1 to 10.0.0.2 out eth0 out eth1", "out is said twice"},
	}
	for _, tt := range tests {
		_, err := ParseSentence(tt.text)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseSentence(%q): error %v, want one with %q", tt.text, err, tt.want)
		}
	}
}

// TestSentenceBytes checks that the bytes say what the sentence says.
func TestSentenceBytes(t *testing.T) {
	for _, text := range []string{"tcp 10.0.0.5:1 to 10.0.0.6:2", "udp 10.0.0.5 to 10.0.0.6:2 len 101",
		"icmp 10.0.0.5 to 10.0.0.6", "sctp 10.0.0.5 to 10.0.0.6:7", "gre 10.0.0.5 to 10.0.0.6"} {
		s, err := ParseSentence(text)
		if err != nil {
			t.Fatal(err)
		}
		s.Complete()
		b, err := s.Packet()
		if err != nil {
			t.Fatal(err)
		}
		p, ok := FromFrame(Frame(MAC{2}, MAC{4}, b))
		if !ok || !p.Is4() || p.Src() != s.Src || p.Dst() != s.Dst || p.Protocol() != s.Proto {
			t.Errorf("%s: got %x", text, b)
		}
		if got := Fold(Sum16(b[:20], 0)); got != 0 {
			t.Errorf("%s: header checksum %#x", text, got)
		}
		sum := uint32(0)
		if s.Proto == TCP || s.Proto == UDP {
			sum = PseudoSum(s.Src, s.Dst, s.Proto, len(b)-20)
		} else if s.Proto != ICMP {
			continue
		}
		if got := Fold(Sum16(b[20:], sum)); got != 0 {
			t.Errorf("%s: checksum %#x", text, got)
		}
	}
}

func FuzzParseSentence(f *testing.F) {
	f.Add("tcp 10.0.0.5:40000 to 10.96.0.1:443 in eth0 flags SA mac 1:2:3:4:5:6 to 2:2:2:2:2:2")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSentence(text)
		if err != nil {
			return
		}
		s.Complete()
		if b, err := s.Packet(); err == nil && len(b) < 20 {
			t.Errorf("%q: %d bytes", text, len(b))
		}
	})
}

func TestTCPFlags(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.Uint8().Draw(t, "flags")
		s, err := ParseSentence("tcp to 1.1.1.1:1 flags " + TCPFlags(n))
		if err != nil || s.Flags != n {
			t.Fatalf("flags %#x: %v, %v", n, s, err)
		}
	})
}
