package bench

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/walk"
)

// BenchmarkFlow decides packets without observer, in memory that lasts: cpu-ns/op is
// the processor time of a packet, which other work on the machine disturbs less than
// ns/op.
func BenchmarkFlow(b *testing.B) {
	c := Large()
	h := load(b, c.Files())
	vips := make([]packet.Addr, 1024)
	for i := range vips {
		vips[i] = c.VIP(rand.IntN(c.Services))
	}
	first, last := []packet.Addr{c.VIP(0)}, []packet.Addr{c.VIP(c.Services - 1)}
	b.Run("new/first", func(b *testing.B) { benchNew(b, h, first) })
	b.Run("new/last", func(b *testing.B) { benchNew(b, h, last) })
	b.Run("new/random", func(b *testing.B) { benchNew(b, h, vips) })
	b.Run("new/forked", func(b *testing.B) { benchForked(b, h, first) })
	b.Run("established", func(b *testing.B) { benchEstablished(b, h, first, 1) })
	b.Run("established/100000", func(b *testing.B) { benchEstablished(b, h, vips, 100_000) })
	linear(h, true)
	defer linear(h, false)
	b.Run("linear/new/first", func(b *testing.B) { benchNew(b, h, first) })
	b.Run("linear/new/last", func(b *testing.B) { benchNew(b, h, last) })
}

// linear turns the index of a host's tables off, or on again.
func linear(h *walk.Host, on bool) {
	for _, p := range h.Programs() {
		p.Linear = on
	}
}

// benchNew decides the first packet of a connection to each address in turn. What the
// connection left is deleted at once, and that is measured too.
func benchNew(b *testing.B, h *walk.Host, vips []packet.Addr) {
	r := newRig(b, h)
	frames, packets := make([][]byte, len(vips)), make([]*packet.Packet, len(vips))
	for i, v := range vips {
		frames[i] = request(h, 1000, v, synFlag)
		packets[i], _ = packet.FromFrame(frames[i])
	}
	i := 0
	Measure(b, func() {
		r.walk(r.in, frames[i])
		r.forget(packets[i])
		if i++; i == len(vips) {
			i = 0
		}
	})
}

// benchForked gives each question a memory of its own, as trace does.
func benchForked(b *testing.B, h *walk.Host, vips []packet.Addr) {
	r := newRig(b, h)
	f := request(h, 1000, vips[0], synFlag)
	Measure(b, func() {
		r.k.World.State = h.Memory().Fork()
		r.walk(r.in, f)
	})
}

// benchEstablished decides the packets of so many connections in turn.
func benchEstablished(b *testing.B, h *walk.Host, vips []packet.Addr, n int) {
	r := newRig(b, h)
	frames := make([][]byte, n)
	for i := range frames {
		// Neighbouring connections are to other Services: no packet finds its own things
		// where the one before it looked.
		frames[i] = r.establish(uint16(1000+i/len(vips)), vips[i%len(vips)])
	}
	i := 0
	Measure(b, func() {
		r.walk(r.in, frames[i])
		if i++; i == n {
			i = 0
		}
	})
}

// BenchmarkWalk takes one packet through all tables with a trace and without text.
func BenchmarkWalk(b *testing.B) {
	for _, services := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("services=%d", services), func(b *testing.B) {
			c := Cluster{services, 3}
			h := load(b, c.Files())
			f := request(h, 1000, c.VIP(services-1), synFlag)
			Measure(b, func() { observed(b, h, f) })
		})
	}
}
