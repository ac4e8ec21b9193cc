package snapshot

import (
	"testing"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
)

// BenchmarkIPVS reads 10,000 services with 100,000 real servers from three files: it takes
// less than a second.
func BenchmarkIPVS(b *testing.B) {
	l := newServiceList(0)
	for i := range uint32(10_000) {
		s := ipvs.Service{Proto: packet.TCP, Addr: packet.V4(0x0a600000 + i), Port: 80,
			Scheduler: "wlc", Mask: 32}
		if err := l.addService(place{}, s); err != nil {
			b.Fatal(err)
		}
		for j := range uint32(10) {
			d := ipvs.Dest{Addr: packet.V4(0x0af40000 + 10*i + j), Port: 8080, Weight: 1}
			if err := l.addDest(place{}, int(i), d); err != nil {
				b.Fatal(err)
			}
		}
	}
	files := map[string][]byte{"ipvs": []byte(listOf(l.services)),
		"ipvsadm-save": []byte(saveOf(l.services)),
		"ipvs-thresholds": []byte("Prot LocalAddress:Port Uthreshold Lthreshold ActiveConn InActConn\n" +
			"  -> RemoteAddress:Port\n")}
	for b.Loop() {
		if c := mustConfig(b, files); len(c.IPVS.Services) != 10_000 {
			b.Fatal(len(c.IPVS.Services))
		}
	}
}
