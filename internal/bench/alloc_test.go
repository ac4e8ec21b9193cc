package bench

import (
	"testing"

	"github.com/hookpath/hookpath/packet"
)

// TestHotPathAllocates guards the way of a packet that nobody observes: neither a
// connection's first packet nor a later one may cost memory.
func TestHotPathAllocates(t *testing.T) {
	c := Cluster{200, 3}
	h := load(t, c.Files())
	r := newRig(t, h)
	established := r.establish(1000, c.VIP(0))
	first := request(h, 1001, c.VIP(c.Services-1), synFlag)
	p, _ := packet.FromFrame(first)
	tests := []struct {
		name string
		walk func()
	}{
		{"established", func() { r.walk(r.in, established) }},
		{"new", func() { r.walk(r.in, first); r.forget(p) }},
	}
	for _, tt := range tests {
		for range 1000 { // the table's free places are used again after a while
			tt.walk()
		}
		if n := testing.AllocsPerRun(200, tt.walk); n != 0 {
			t.Errorf("%s: got %v allocations a packet, want none", tt.name, n)
		}
	}
}

// TestRulesTried holds the rules that a packet to the last Service is asked against
// those of the first: the index must not let it meet the Services between.
func TestRulesTried(t *testing.T) {
	c := Cluster{200, 3}
	h := load(t, c.Files())
	for _, n := range []int{0, c.Services - 1} {
		tr := observed(t, h, request(h, 1000, c.VIP(n), synFlag))
		if tr.Tried > 40 {
			t.Errorf("service %d: %d rules asked, want a few", n, tr.Tried)
		}
	}
}
