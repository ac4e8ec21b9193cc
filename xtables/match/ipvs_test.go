package match_test

import (
	"testing"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// TestIPVS asks about a client's packet on its way to the real server.
func TestIPVS(t *testing.T) {
	for _, tt := range []struct {
		rule string
		want answer
	}{
		{"--vproto tcp", yes}, {"! --vproto tcp", no}, {"--vproto udp", no},
		{"--vaddr 10.0.0.0/24", yes}, {"--vaddr 10.1.0.9", no}, {"! --vaddr 10.1.0.9", yes},
		{"--vport 80", yes}, {"--vport 8080", no}, {"! --vport 8080", yes},
		{"--vmethod MASQ", yes}, {"--vmethod GATE", no}, {"! --vmethod GATE", yes},
		{"--vportctl 80", no}, {"! --vportctl 80", yes},
		{"--vdir ORIGINAL", no}, // conntrack knows nothing of it
		{"--ipvs --vport 80", yes},
	} {
		r := newRig(t, "filter", chainRules("OUTPUT", "-m ipvs "+tt.rule)...)
		syn := packetOf{src: "10.0.0.9", dst: "10.0.0.1", sport: 1000, dport: 80, flags: 2}
		p := syn.build(t)
		d := r.rooms.IPVS.In(r.world, &ipvs.Header{Family: trace.IPv4, Proto: packet.TCP,
			Src: p.Src(), Dst: p.Dst(), L4: p.L4()})
		if d.Action != ipvs.Forward {
			t.Fatalf("%+v", d)
		}
		stranger := syn.build(t)
		stranger.IPVS = true
		if got := r.askPacket(trace.Output, stranger); got == yes {
			t.Errorf("-m ipvs %s: matches a packet of no connection", tt.rule)
		}
		v := r.rooms.IPVS.View(r.world, d.Conn)
		ipvs.Rewrite(p, false, v.Real, v.RPort)
		if got := r.askPacket(trace.Output, p); got == yes {
			t.Errorf("-m ipvs %s: matches a packet that IPVS has not seen", tt.rule)
		}
		p.IPVS = true
		if got := r.askPacket(trace.Output, p); got != tt.want {
			t.Errorf("-m ipvs %s: %s, want %s", tt.rule, got, tt.want)
		}
	}
}
