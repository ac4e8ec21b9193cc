package lab_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/hookpath/hookpath/lab"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// BenchmarkRoundTrip walks a connection's first packet, its answer and the data that follow
// over client, director and real server. The director has 10,000 services of ten real
// servers each.
func BenchmarkRoundTrip(b *testing.B) {
	dirs := demoDirs(b, "lvs-nat")
	for _, d := range dirs {
		if d.Name == "director" {
			d.Files["ipvsadm-save"] = append(d.Files["ipvsadm-save"], services(10_000)...)
		}
	}
	l := hosts(b, dirs)
	ip := spoken(b, "tcp 192.168.2.254:40000 to 192.168.2.110:80 out")
	q := &lab.Question{Host: l.Hosts[0], Local: &walk.Local{IP: ip}, Now: now, Reply: true, Data: true}
	from := l.Start()
	b.ReportAllocs()
	for b.Loop() {
		j := l.Walk(q, from, &world.Dice{})
		if host, how, _ := ended(j, j.DataSKB); j.Err != nil || j.DataSKB == 0 || how != trace.Delivered {
			b.Fatal(host, how, j.Err)
		}
	}
}

// services are ipvsadm's lines of many services.
func services(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		vip := fmt.Sprintf("172.%d.%d.%d:80", 16+i>>16, i>>8&255, i&255)
		fmt.Fprintf(&b, "-A -t %s -s wlc\n", vip)
		for k := range 10 {
			fmt.Fprintf(&b, "-a -t %s -r 10.%d.%d.%d:80 -m -w 1\n", vip, k, i>>8&255, i&255)
		}
	}
	return b.Bytes()
}
