package snapshot

import (
	"fmt"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// manySets is a file with one set of n networks.
func manySets(n int) []byte {
	var b strings.Builder
	b.WriteString("create s hash:net hashsize 524288 maxelem 4000000 bucketsize 12 initval 0x1\n")
	for i := range n {
		fmt.Fprintf(&b, "add s 10.%d.%d.%d\n", i>>16, i>>8&255, i&255)
	}
	return []byte(b.String())
}

// BenchmarkReadSet reads a set of a million entries.
func BenchmarkReadSet(b *testing.B) {
	data := manySets(1e6)
	b.ReportAllocs()
	for b.Loop() {
		sets, err := parseIPSet("f", data, setNow)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ipset.New(&world.Schema{}, sets); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTestSet asks it, at random places.
func BenchmarkTestSet(b *testing.B) {
	sets, err := parseIPSet("f", manySets(1e6), setNow)
	if err != nil {
		b.Fatal(err)
	}
	var schema world.Schema
	live, err := ipset.New(&schema, sets)
	if err != nil {
		b.Fatal(err)
	}
	w := &world.World{State: schema.NewState(), Now: setNow, HZ: 250}
	ip := make([]byte, 40)
	ip[0], ip[9] = 0x45, packet.TCP
	copy(ip[12:], []byte{10, 1, 2, 3})
	p, _ := packet.FromIP(ip)
	q, at := ipset.Query{Dims: 1, Src: 1}, ipset.Place{}
	n := uint32(1)
	b.ReportAllocs()
	for b.Loop() {
		n = n*1664525 + 1013904223
		copy(p.IP()[13:16], []byte{byte(n >> 29), byte(n >> 20), byte(n >> 12)})
		if in, _ := live.Test(w, p, &q, &at); !in {
			b.Fatal("not in the set")
		}
	}
}
