package walk_test

import (
	"context"
	"os"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
)

// arpRequest asks who has 10.0.x.x, from 10.0.0.9.
func arpRequest(target [4]byte) []byte {
	b := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9, 8, 6,
		0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0}
	return append(b, target[:]...)
}

// TestWireAgainstKernel holds what a host says on the wire for itself against the
// kernel: ARP answers and requests, and redirects to a better way.
func TestWireAgainstKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("SKIPPED: needs root for network namespaces")
	}
	redirects := "net.ipv4.conf.all.send_redirects = 1\nnet.ipv4.conf.eth0.send_redirects = 1\n"
	tests := []struct {
		name, sysctl string
		frames       [][]byte
		sent         int // frames that leave in all: a case without any proves nothing
	}{
		{"own address", "", [][]byte{arpRequest([4]byte{10, 0, 0, 1})}, 1},
		{"address of another device", "", [][]byte{arpRequest([4]byte{10, 0, 1, 1})}, 1},
		{"address of another device, arp_ignore", "net.ipv4.conf.eth0.arp_ignore = 1\n",
			[][]byte{arpRequest([4]byte{10, 0, 1, 1}), arpRequest([4]byte{10, 0, 0, 1})}, 1},
		{"nobody's address", "", [][]byte{arpRequest([4]byte{10, 0, 0, 77}),
			arpRequest([4]byte{10, 0, 0, 1})}, 1},
		{"unknown next hop, asked for once", "", [][]byte{datagram("10.0.1.77", 10),
			datagram("10.0.1.77", 10), datagram("10.0.1.78", 10)}, 2},
		{"redirect", redirects, [][]byte{datagram("10.0.0.5", 10)}, 2},
		{"no redirect: another device", redirects, [][]byte{datagram("10.0.1.9", 10)}, 1},
		{"no redirect: off", "net.ipv4.conf.all.send_redirects = 0\n" +
			"net.ipv4.conf.eth0.send_redirects = 0\n", [][]byte{datagram("10.0.0.5", 10)}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run, err := kernel.Open(context.Background(), kernel.Scenario{Backend: kernel.Legacy,
				Hosts: []kernel.Host{{Name: "r", Files: map[string]string{"ip-link.json": teeLinks,
					"ip-addr.json": teeAddrs, "ip-neigh.json": teeNeighs,
					"sysctl": "net.ipv4.ip_forward = 1\n" + tt.sysctl}}}})
			if err != nil {
				t.Fatal(err)
			}
			defer run.Close()
			host := collected(t, run)
			state, sent := host.Memory().Fork(), 0
			for i, frame := range tt.frames {
				a, err := run.Ask(kernel.Question{In: "eth0", Frame: frame, Seq: "s"})
				if err != nil || a.Err != "" {
					t.Fatal(err, a.Err)
				}
				sent += len(a.Out)
				if got, want := walked(t, host, state, frame), left(a); got != want {
					t.Errorf("frame %d:\n got %s\nwant %s", i, got, want)
				}
			}
			if sent != tt.sent {
				t.Errorf("the kernel sent %d frames, want %d", sent, tt.sent)
			}
		})
	}
}

// arpReply says that 10.0.x.x is at a MAC address that ends in its last octet.
func arpReply(sender [4]byte) []byte {
	mac := []byte{2, 0, 0, 0, sender[2], sender[3]}
	b := append([]byte{2, 0, 0, 0, 1, 1}, mac...)
	b = append(b, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2)
	b = append(append(b, mac...), sender[:]...)
	return append(b, 2, 0, 0, 0, 1, 1, 10, 0, 1, 1)
}

// TestWaitingAgainstKernel holds packets until their next hop answers, or asks itself.
func TestWaitingAgainstKernel(t *testing.T) {
	toEth1 := func(b []byte) []byte { copy(b, []byte{2, 0, 0, 0, 1, 1}); return b }
	request := arpRequest([4]byte{10, 0, 1, 1})
	copy(request[6:], []byte{2, 0, 0, 0, 1, 77})
	copy(request[22:], []byte{2, 0, 0, 0, 1, 77, 10, 0, 1, 77})
	for _, tt := range []struct {
		name   string
		answer []byte
		sent   int
	}{
		{"a reply", toEth1(arpReply([4]byte{10, 0, 1, 77})), 6},
		{"another's reply", toEth1(arpReply([4]byte{10, 0, 1, 78})), 4},
		{"its own request", request, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newPair(t, map[string]string{"sysctl": "net.ipv4.ip_forward = 1\n"})
			p.ordered = true
			for i := range 3 {
				frame := datagram("10.0.1.77", 10+i)
				p.agree(kernel.Question{In: "eth0", Frame: frame})
			}
			p.agree(kernel.Question{In: "eth0", Frame: datagram("10.0.1.78", 1400)})
			p.agree(kernel.Question{In: "eth1", Frame: tt.answer})
			p.agree(kernel.Question{In: "eth0", Frame: datagram("10.0.1.77", 20)})
			if p.sent != tt.sent {
				t.Errorf("%d frames left, want %d", p.sent, tt.sent)
			}
		})
	}
}
