package walk_test

import (
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
)

// timestampRequest asks for the time, by a message of n bytes.
func timestampRequest(dst string, code byte, n int, opts ...byte) []byte {
	m := []byte{13, code, 0, 0, 0x12, 0x34, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14}[:n]
	sum := packet.Fold(packet.Sum16(m, 0))
	m[2], m[3] = byte(sum>>8), byte(sum)
	return onWire(optionPacket(dst, packet.ICMP, opts, m))
}

// TestTimestampAgainstKernel asks the host what time it is.
func TestTimestampAgainstKernel(t *testing.T) {
	for _, tt := range []struct {
		name, sysctl string
		frame        []byte
		sent         int
	}{
		{"whole", "", timestampRequest("10.0.0.1", 0, 20), 1},
		{"another device's address", "", timestampRequest("10.0.1.1", 0, 20), 1},
		{"with a code", "", timestampRequest("10.0.0.1", 3, 20), 1},
		{"longer", "", timestampRequest("10.0.0.1", 0, 22), 1},
		{"as short as can be", "", timestampRequest("10.0.0.1", 0, 12), 1},
		{"too short", "", timestampRequest("10.0.0.1", 0, 11), 0},
		{"too short for a header", "", timestampRequest("10.0.0.1", 0, 7), 0},
		{"record route", "", timestampRequest("10.0.0.1", 0, 20, 7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0), 1},
		{"echo is ignored", "net.ipv4.icmp_echo_ignore_all = 1\n",
			timestampRequest("10.0.0.1", 0, 20), 1},
		{"broadcast", "", timestampRequest("10.0.0.255", 0, 20), 0},
		{"broadcast, asked for", "net.ipv4.icmp_echo_ignore_broadcasts = 0\n",
			timestampRequest("10.0.0.255", 0, 20), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, map[string]string{"sysctl": tt.sysctl})
			p.clock = true
			p.agree(kernel.Question{In: "eth0", Frame: tt.frame})
			if p.sent != tt.sent {
				t.Errorf("%d frames left, want %d", p.sent, tt.sent)
			}
		})
	}
}

// TestReplyRateAgainstKernel asks more often than icmp_ratemask lets the host answer.
func TestReplyRateAgainstKernel(t *testing.T) {
	p := newPair(t, map[string]string{"sysctl": "net.ipv4.icmp_ratelimit = 30000\n" +
		"net.ipv4.icmp_ratemask = 16385\n"}) // types 0 and 14
	p.clock = true
	for range 5 {
		p.agree(kernel.Question{In: "eth0", Frame: timestampRequest("10.0.0.1", 0, 20)})
		p.agree(kernel.Question{In: "eth0", Frame: onWire(sentIP("10.0.0.9", "10.0.0.1", packet.ICMP, 9, 5))})
	}
	if p.sent == 0 || p.sent == 10 {
		t.Errorf("%d frames left", p.sent)
	}
}
