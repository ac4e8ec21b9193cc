package bench

import (
	"testing"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/walk"
)

func BenchmarkLoad(b *testing.B) {
	files := Large().Files()
	b.ReportAllocs()
	w := startWatch()
	for b.Loop() {
		load(b, files)
	}
	b.ReportMetric(w.ns()/float64(b.N)/1e6, "cpu-ms/op")
}

func BenchmarkFlow(b *testing.B) {
	h := load(b, Large().Files())
	c := Large()
	b.Run("new/first", func(b *testing.B) { benchNew(b, h, c.VIP(0)) })
	b.Run("new/last", func(b *testing.B) { benchNew(b, h, c.VIP(c.Services-1)) })
	b.Run("established", func(b *testing.B) {
		r := newRig(b, h)
		f := r.establish(1000, c.VIP(0))
		b.ReportAllocs()
		w := startWatch()
		for b.Loop() {
			r.walk(r.in, f)
		}
		b.ReportMetric(w.ns()/float64(b.N), "cpu-ns/op")
	})
}

func benchNew(b *testing.B, h *walk.Host, dst packet.Addr) {
	r := newRig(b, h)
	f := request(h, 1000, dst, synFlag)
	p, _ := packet.FromFrame(f)
	b.ReportAllocs()
	w := startWatch()
	for b.Loop() {
		r.walk(r.in, f)
		r.forget(p)
	}
	b.ReportMetric(w.ns()/float64(b.N), "cpu-ns/op")
}
