package target_test

import (
	"errors"
	"math/rand/v2"
	"sort"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/target"
)

// samples are rules of each target, for the tests that go over all of them. A
// target that can't be run has the word that its error names.
var samples = map[string][]sample{
	"AUDIT":       {{"filter", "INPUT", "-j AUDIT --type drop", ""}},
	"CHECKSUM":    {{"mangle", "FORWARD", "-j CHECKSUM --checksum-fill", ""}},
	"CLASSIFY":    {{"mangle", "FORWARD", "-j CLASSIFY --set-class 1:5", ""}},
	"CLUSTERIP":   {{"filter", "INPUT", "-j CLUSTERIP", "CLUSTERIP"}},
	"CONNSECMARK": {{"mangle", "INPUT", "-j CONNSECMARK --save", ""}},
	"CONNMARK": {
		{"mangle", "FORWARD", "-j CONNMARK --set-xmark 0x12/0xff", ""},
		{"mangle", "FORWARD", "-j CONNMARK --set-mark 0x12 --left-shift-mark 3", ""},
		{"mangle", "FORWARD", "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xf0", ""},
		{"mangle", "FORWARD", "-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xf0", ""}},
	"CT": {{"raw", "PREROUTING", "-j CT --zone 3", ""}, {"raw", "PREROUTING", "-j CT --notrack", ""},
		{"raw", "PREROUTING", "-p tcp -j CT --helper ftp", ""},
		{"raw", "PREROUTING", "-p udp -j CT --helper amanda", ""},
		{"raw", "PREROUTING", "-p tcp -j CT --timeout x", "--timeout"}},
	"DNAT": {{"nat", "PREROUTING", "-p tcp -j DNAT --to-destination 10.1.1.1:80", ""}},
	"DSCP": {{"mangle", "FORWARD", "-j DSCP --set-dscp 0x2a", ""}},
	"ECN": {{"mangle", "FORWARD", "-p tcp -j ECN --ecn-tcp-remove", ""},
		{"mangle", "FORWARD", "-p tcp -j ECN --ecn-tcp-cwr 1 --ecn-ip-ect 2", ""}},
	"HMARK": {{"mangle", "FORWARD", "-j HMARK --hmark-tuple src --hmark-mod 9 --hmark-rnd 1", ""},
		{"mangle", "FORWARD", "-j HMARK --hmark-tuple ct,src --hmark-mod 9 --hmark-rnd 1", ""}},
	"IDLETIMER": {{"filter", "INPUT", "-j IDLETIMER --timeout 5 --label x", ""}},
	"LED":       {{"filter", "INPUT", "-j LED --led-trigger-id x --led-delay inf", ""}},
	"LOG":       {{"filter", "INPUT", "-j LOG --log-prefix \"a b\"", ""}},
	"MARK": {{"mangle", "FORWARD", "-j MARK --set-xmark 0x12/0xff", ""},
		{"mangle", "FORWARD", "-j MARK --and-mark 0xf", ""}},
	"MASQUERADE": {{"nat", "POSTROUTING", "-j MASQUERADE", ""}},
	"NETMAP":     {{"nat", "PREROUTING", "-j NETMAP --to 10.7.0.0/16", ""}},
	"NFLOG":      {{"filter", "INPUT", "-j NFLOG --nflog-group 3", ""}},
	"NFQUEUE":    {{"filter", "INPUT", "-j NFQUEUE --queue-balance 1:4 --queue-bypass", ""}},
	"NOTRACK":    {{"raw", "PREROUTING", "-j NOTRACK", ""}},
	"RATEEST": {{"filter", "INPUT",
		"-j RATEEST --rateest-name x --rateest-interval 1s --rateest-ewmalog 4s", ""}},
	"REDIRECT": {{"nat", "PREROUTING", "-p tcp -j REDIRECT --to-ports 80", ""}},
	"REJECT": {{"filter", "FORWARD", "-j REJECT --reject-with icmp-admin-prohibited", ""},
		{"filter", "FORWARD", "-p tcp -j REJECT --reject-with tcp-reset", ""}},
	"SECMARK":  {{"security", "INPUT", "-j SECMARK --selctx x:y", ""}},
	"SNAT":     {{"nat", "POSTROUTING", "-j SNAT --to-source 10.1.1.1-10.1.1.9", ""}},
	"SYNPROXY": {{"filter", "INPUT", "-p tcp -j SYNPROXY --mss 1460", "SYNPROXY"}},
	"TCPMSS": {{"mangle", "FORWARD",
		"-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --set-mss 500", ""},
		{"mangle", "FORWARD", "-p tcp -m tcp --tcp-flags SYN SYN -j TCPMSS --clamp-mss-to-pmtu", ""}},
	"TCPOPTSTRIP": {{"mangle", "FORWARD", "-p tcp -j TCPOPTSTRIP --strip-options 2,8", ""},
		{"mangle", "FORWARD", "-p tcp -j TCPOPTSTRIP --strip-options 3,8", ""}},
	"TEE":    {{"mangle", "FORWARD", "-j TEE --gateway 10.0.0.5 --oif eth1", ""}},
	"TOS":    {{"mangle", "FORWARD", "-j TOS --xor-tos 0x3c", ""}},
	"TPROXY": {{"mangle", "PREROUTING", "-p tcp -j TPROXY --on-port 8080 --tproxy-mark 1/3", ""}},
	"TRACE":  {{"raw", "PREROUTING", "-j TRACE", ""}},
	"TTL": {{"mangle", "FORWARD", "-j TTL --ttl-set 7", ""},
		{"mangle", "FORWARD", "-j TTL --ttl-dec 7", ""}},
	"ULOG": {{"filter", "INPUT", "-j ULOG --ulog-nlgroup 3", "ULOG"}},
}

type sample struct{ table, chain, rule, unsupported string }

// elsewhere are targets whose tests need more than this rig, or that are only read.
var elsewhere = map[string]string{
	"SET": "set_test.go", "HL": "IPv6", "SNPT": "IPv6", "DNPT": "IPv6",
}

// TestEachHasSamples fails for a target that the tests below would pass over.
func TestEachHasSamples(t *testing.T) {
	all := target.All()
	for _, x := range all {
		if len(samples[x.Name]) == 0 && elsewhere[x.Name] == "" {
			t.Errorf("%s has no sample", x.Name)
		}
	}
	if !sort.SliceIsSorted(all, func(i, j int) bool { return all[i].Name < all[j].Name }) {
		t.Error("the list is not sorted by name")
	}
}

// TestUnsupported sees that what can't be run is refused when the host is built.
func TestUnsupported(t *testing.T) {
	for name, list := range samples {
		for _, s := range list {
			r := &rig{t: t}
			err := r.rest(s.table, s.chain, s.rule)
			if s.unsupported == "" {
				if err != nil {
					t.Errorf("%s: %s: %v", name, s.rule, err)
				}
				continue
			}
			if err == nil || !strings.Contains(err.Error(), s.unsupported) ||
				!strings.Contains(err.Error(), "not supported") {
				t.Errorf("%s: %s: got %v, want that %s is not supported", name, s.rule, err,
					s.unsupported)
			}
		}
	}
	var un *link.UnsupportedError
	if err := newULOG(t); !errors.As(err, &un) {
		t.Errorf("Validate: got %v, want an UnsupportedError", err)
	}
}

// newULOG asks a target that can't be run directly.
func newULOG(t *testing.T) error {
	for _, x := range target.All() {
		if x.Name == "ULOG" {
			return x.New().(xtables.Validator).Validate(&xtables.Build{
				Rooms: &xtables.Rooms{Kernel: xtables.Kernel{Major: 6, Minor: 18}}})
		}
	}
	t.Fatal("no ULOG")
	return nil
}

// TestEffects holds what targets declare against what they do: a field that is not
// declared keeps its value, the others get the one that is declared.
func TestEffects(t *testing.T) {
	for name, list := range samples {
		for i, s := range list {
			if s.unsupported != "" {
				continue
			}
			r := newRig(t, s.table, s.chain, s.rule)
			d := draw{rand.New(rand.NewPCG(uint64(i), uint64(len(name))))}
			changed := 0
			for n := 0; n < 200 && !t.Failed(); n++ {
				changed += r.effects(d, s)
			}
			if t.Failed() {
				return
			}
			if changed == 0 && len(r.target.Effects()) > 0 && s.table != "nat" {
				t.Errorf("%s: no packet was changed", s.rule)
			}
		}
	}
}

// effects acts on one random packet, with or without a connection.
func (r *rig) effects(d draw, s sample) (changed int) {
	hook := trace.Prerouting
	for ; hook.String() != s.chain; hook++ {
	}
	p, _ := packet.FromIP(d.packet("10.0.1.9"))
	p.In, p.Mark, p.Priority = eth0, d.Uint32(), d.Uint32()
	if s.table != "raw" && d.one(2) {
		r.track(p)
		if f := r.rooms.Conntrack.Get(r.world, p.CT.Flow); f != nil {
			f.Mark = d.Uint32()
		}
	}
	before := r.fields(hook, p)
	if r.matches(hook, p) == trace.DropIt {
		return 0
	}
	after := r.fields(hook, p)
	_, st := before[field.L4], before[field.L4].st
	if st == field.HotDrop || s.matchesOther(before) {
		return 0
	}
	for id := range before {
		if before[id] != after[id] {
			changed = 1
		}
		r.declared(s, field.ID(id), before[id], after[id])
	}
	return changed
}

// matchesOther tells whether the rule passes the packet over.
func (s sample) matchesOther(before [field.NumIDs]known) bool {
	isTCP := before[field.Proto].v == field.U(uint64(packet.TCP))
	return strings.Contains(s.rule, "-p tcp") && !isTCP ||
		strings.Contains(s.rule, "--tcp-flags") && before[field.TCPFlags].v.Lo&2 == 0
}

func (r *rig) track(p *packet.Packet) {
	r.rooms.Conntrack.In(r.world, nil, p, trace.Prerouting)
}

type known struct {
	v  field.Value
	st field.Status
}

func (r *rig) fields(hook trace.Hook, p *packet.Packet) (out [field.NumIDs]known) {
	e := r.env(hook, p)
	for id := range out {
		if id == 0 || field.ID(id) == field.SrcType || field.ID(id) == field.DstType {
			continue
		}
		out[id].v, out[id].st = e.Field(field.ID(id))
	}
	return out
}

// declared checks one field.
func (r *rig) declared(s sample, id field.ID, before, after known) {
	for _, e := range r.target.Effects() {
		if e.ID != id {
			continue
		}
		switch e.Op {
		case field.Forget, field.Fresh:
			return
		}
		want, _ := e.Apply(before.v)
		if before.st == field.Known && want != after.v {
			r.t.Errorf("%s: %s: %x became %x, declared is %x", s.rule, id, before.v, after.v, want)
		}
		return
	}
	if before != after {
		r.t.Errorf("%s: %s: %x became %x, which is not declared", s.rule, id, before, after)
	}
}

// tcpPacket is a segment of 10.0.0.9:sport to 10.0.1.9:80.
func tcpPacket(sport uint16, flags uint8) *packet.Packet {
	d := draw{rand.New(rand.NewPCG(1, 1))}
	h := []byte{0x45, 0, 0, 40, 0, 1, 0, 0, 64, packet.TCP, 0, 0, 10, 0, 0, 9, 10, 0, 1, 9,
		byte(sport >> 8), byte(sport), 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x20, 0, 0, 0, 0, 0}
	packet.FixIP4(h)
	for d.sum(h, 20, packet.TCP); h[36] == 0 && h[37] == 0; {
		d.sum(h, 20, packet.TCP)
	}
	p, _ := packet.FromIP(h)
	p.In = eth0
	return p
}

const syn, ackFlag = 2, 16

// TestVerdicts looks at what becomes of a packet, and at what the walk is asked to do.
func TestVerdicts(t *testing.T) {
	tests := []struct {
		table, chain, rule string
		want               trace.Verdict
		moved              moved
	}{
		{"filter", "FORWARD", "-j REJECT", trace.DropIt, moved{unreachable: 1, typ: 3, code: 3}},
		{"filter", "FORWARD", "-j REJECT --reject-with icmp-net-unreachable", trace.DropIt,
			moved{unreachable: 1, typ: 3, code: 0}},
		{"filter", "FORWARD", "-j REJECT --reject-with icmp-host-unreachable", trace.DropIt,
			moved{unreachable: 1, typ: 3, code: 1}},
		{"filter", "FORWARD", "-j REJECT --reject-with icmp-proto-unreachable", trace.DropIt,
			moved{unreachable: 1, typ: 3, code: 2}},
		{"filter", "FORWARD", "-j REJECT --reject-with icmp-net-prohibited", trace.DropIt,
			moved{unreachable: 1, typ: 3, code: 9}},
		{"filter", "FORWARD", "-j REJECT --reject-with icmp-host-prohibited", trace.DropIt,
			moved{unreachable: 1, typ: 3, code: 10}},
		{"filter", "FORWARD", "-j REJECT --reject-with icmp-admin-prohibited", trace.DropIt,
			moved{unreachable: 1, typ: 3, code: 13}},
		{"filter", "FORWARD", "-p tcp -j REJECT --reject-with tcp-reset", trace.DropIt,
			moved{resets: 1}},
		{"filter", "FORWARD", "-j NFQUEUE --queue-num 3", trace.Queue, moved{}},
		{"filter", "FORWARD", "-j LOG", trace.Continue, moved{}},
		{"filter", "FORWARD", "-j NFLOG", trace.Continue, moved{}},
		{"mangle", "FORWARD", "-j TEE --gateway 10.0.0.5", trace.Continue,
			moved{gateway: packet.MustParseAddr("10.0.0.5")}},
		{"mangle", "FORWARD", "-j TEE --gateway 10.0.0.5 --oif eth1", trace.Continue,
			moved{gateway: packet.MustParseAddr("10.0.0.5"), out: eth1}},
		{"mangle", "FORWARD", "-j TEE --gateway 10.0.0.5 --oif eth5", trace.Continue,
			moved{gateway: packet.MustParseAddr("10.0.0.5")}},
	}
	for _, tt := range tests {
		r := newRig(t, tt.table, tt.chain, tt.rule)
		if got := r.do(trace.Forward, tcpPacket(4000, syn)); got != tt.want || r.moved != tt.moved {
			t.Errorf("%s: got %s %+v, want %s %+v", tt.rule, got, r.moved, tt.want, tt.moved)
		}
	}
}

// TestTPROXY looks for the socket that a packet is given to.
func TestTPROXY(t *testing.T) {
	tests := []struct {
		rule  string
		sport uint16
		flags uint8
		want  trace.Verdict
		local uint16 // port of the socket
	}{
		{"--on-port 8080", 5000, syn, trace.Accept, 8080},
		{"--on-port 8080 --on-ip 10.0.0.1", 5000, syn, trace.Accept, 8080},
		{"--on-port 8081", 5000, syn, trace.DropIt, 0},
		{"--on-port 8082", 5000, syn, trace.DropIt, 0},
		{"--on-port 0", 5000, syn, trace.DropIt, 0},
		{"--on-port 8080", 4000, ackFlag, trace.Accept, 80},
		{"--on-port 8080", 4000, syn, trace.Accept, 80},
		{"--on-port 8080", 4001, ackFlag, trace.Accept, 80},
		{"--on-port 8080", 4001, syn, trace.Accept, 8080},
		{"--on-port 8082", 4001, syn, trace.Accept, 80},
	}
	for _, tt := range tests {
		r := newRig(t, "mangle", "PREROUTING", "-p tcp -j TPROXY "+tt.rule+" --tproxy-mark 0x1/0x3")
		p := tcpPacket(tt.sport, tt.flags)
		p.Mark = 0xff
		got := r.do(trace.Prerouting, p)
		s, _ := r.rooms.Sockets.Get(r.world, p.Socket)
		mark := uint32(0xff)
		if tt.want == trace.Accept {
			mark = 0xfd
		}
		if got != tt.want || s.LPort != tt.local || p.Mark != mark {
			t.Errorf("%s from %d flags %#x: got %s, socket of port %d, mark %#x", tt.rule, tt.sport,
				tt.flags, got, s.LPort, p.Mark)
		}
	}
}

// TestConnmark copies marks.
func TestConnmark(t *testing.T) {
	const nf, ct = 0x12345678, 0x0000abcd
	tests := []struct {
		rule           string
		wantNF, wantCT uint32
	}{
		{"--set-xmark 0xf0/0xff", nf, 0xabf0},
		{"--set-mark 0x1 --left-shift-mark 8", nf, 0x100},
		{"--set-xmark 0x0/0x0 --right-shift-mark 4", nf, 0xabc},
		{"--save-mark", nf, nf},
		{"--save-mark --nfmask 0xff --ctmask 0xff", nf, 0xab78},
		{"--save-mark --nfmask 0xff00 --ctmask 0xff --right-shift-mark 8", nf, 0xab56},
		{"--restore-mark", ct, ct},
		{"--restore-mark --nfmask 0xff --ctmask 0xff", 0x123456cd, ct},
		{"--restore-mark --nfmask 0xff --ctmask 0xffff", 0x1234fdcd, ct},
		{"--restore-mark --nfmask 0xff0000 --ctmask 0xff --left-shift-mark 16", 0x12cd5678, ct},
		{"--restore-mark --mask 0xf", 0x1234567d, ct},
	}
	for _, tt := range tests {
		r := newRig(t, "mangle", "PREROUTING", "-j CONNMARK "+tt.rule)
		p := tcpPacket(5000, syn)
		r.track(p)
		p.Mark = nf
		f := r.rooms.Conntrack.Ref(r.world, p.CT.Flow)
		f.Mark = ct
		r.do(trace.Prerouting, p)
		if p.Mark != tt.wantNF || f.Mark != tt.wantCT {
			t.Errorf("%s: got %#x, connection %#x, want %#x, %#x", tt.rule, p.Mark, f.Mark, tt.wantNF,
				tt.wantCT)
		}
		p = tcpPacket(5000, syn)
		p.Mark = nf
		if r.do(trace.Prerouting, p); p.Mark != nf {
			t.Errorf("%s: without a connection the mark became %#x", tt.rule, p.Mark)
		}
	}
}

// TestCT sees in which zone a connection is tracked.
func TestCT(t *testing.T) {
	tests := []struct {
		rule  string
		mark  uint32
		zone  conntrack.Zone
		state trace.CTState
	}{
		{"-j CT --zone 7", 0, conntrack.Zone{ID: 7}, trace.StateNew},
		{"-j CT --zone-orig 7", 0, conntrack.Zone{ID: 7, Dir: conntrack.ZoneOrig}, trace.StateNew},
		{"-j CT --zone-reply 7", 0, conntrack.Zone{ID: 7, Dir: conntrack.ZoneReply}, trace.StateNew},
		{"-j CT --zone mark", 9, conntrack.Zone{ID: 9}, trace.StateNew},
		{"-j CT --zone-orig mark", 0x10009, conntrack.Zone{ID: 9, Dir: conntrack.ZoneOrig},
			trace.StateNew},
		{"-j CT --notrack", 0, conntrack.Zone{}, trace.StateUntracked},
		{"-j CT --notrack --zone 4", 0, conntrack.Zone{}, trace.StateUntracked},
		{"-j NOTRACK", 0, conntrack.Zone{}, trace.StateUntracked},
		{"-j CT --ctevents new,destroy", 0, conntrack.Zone{}, trace.StateNew},
	}
	for _, tt := range tests {
		r := newRig(t, "raw", "PREROUTING", tt.rule)
		p := tcpPacket(5000, syn)
		p.Mark = tt.mark
		r.do(trace.Prerouting, p)
		r.track(p)
		var zone conntrack.Zone
		if f := r.rooms.Conntrack.Get(r.world, p.CT.Flow); f != nil {
			zone = f.Zone
		}
		if got := r.rooms.Conntrack.State(r.world, p); got != tt.state || zone != tt.zone {
			t.Errorf("%s: got %s in zone %v, want %s in %v", tt.rule, got, zone, tt.state, tt.zone)
		}
	}
}

// TestNAT sees to what a connection is mapped.
func TestNAT(t *testing.T) {
	tests := []struct {
		chain, rule, want string // the source and destination of replies
	}{
		{"PREROUTING", "-p tcp -j DNAT --to-destination 10.7.0.1:8080", "10.7.0.1:8080 10.0.0.9:5000"},
		{"PREROUTING", "-j DNAT --to-destination 10.7.0.1", "10.7.0.1:80 10.0.0.9:5000"},
		{"PREROUTING", "-p tcp -j DNAT --to-destination :81", "10.0.1.9:81 10.0.0.9:5000"},
		{"PREROUTING", "-p tcp -j DNAT --to-destination 10.7.0.1:1080-1090/80",
			"10.7.0.1:1080 10.0.0.9:5000"},
		{"PREROUTING", "-p tcp -j REDIRECT --to-ports 3128", "10.0.0.1:3128 10.0.0.9:5000"},
		{"OUTPUT", "-p tcp -j REDIRECT --to-ports 3128", "127.0.0.1:3128 10.0.0.9:5000"},
		{"PREROUTING", "-j NETMAP --to 10.7.0.0/16", "10.7.1.9:80 10.0.0.9:5000"},
		{"POSTROUTING", "-j NETMAP --to 10.7.0.0/16", "10.0.1.9:80 10.7.0.9:5000"},
		{"POSTROUTING", "-j SNAT --to-source 10.7.0.1", "10.0.1.9:80 10.7.0.1:5000"},
		{"POSTROUTING", "-p tcp -j SNAT --to-source 10.7.0.1:600-700", ""},
		{"POSTROUTING", "-j MASQUERADE", "10.0.1.9:80 10.0.1.1:5000"},
		{"POSTROUTING", "-p tcp -j MASQUERADE --to-ports 7000", "10.0.1.9:80 10.0.1.1:7000"},
	}
	for _, tt := range tests {
		r := newRig(t, "nat", tt.chain, tt.rule)
		p := tcpPacket(5000, syn)
		r.track(p)
		p.Out = eth1
		hook := trace.Prerouting
		for ; hook.String() != tt.chain; hook++ {
		}
		if v := r.do(hook, p); v != trace.Accept {
			t.Errorf("%s: got %s", tt.rule, v)
		}
		reply := r.rooms.Conntrack.Get(r.world, p.CT.Flow).Tuples[conntrack.Reply]
		got := endpoint(reply.Src, reply.SPort) + " " + endpoint(reply.Dst, reply.DPort)
		if tt.want != "" && got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.chain, tt.rule, got, tt.want)
		}
	}
}

// TestTeeCopy looks at the copy that TEE sends.
func TestTeeCopy(t *testing.T) {
	for _, tt := range []struct {
		hook trace.Hook
		ttl  uint8
	}{{trace.Prerouting, 63}, {trace.Input, 63}, {trace.Forward, 64}, {trace.Output, 64}} {
		p := tcpPacket(5000, syn)
		p.CT.Flow = 3
		q := target.TeeCopy(p, tt.hook)
		if q.TTL() != tt.ttl || q.IP()[6] != 0x40 || q.CT != (packet.CT{Info: packet.Untracked}) ||
			packet.Fold(packet.Sum16(q.IP()[:20], 0)) != 0 {
			t.Errorf("%s: ttl %d, flags %#x, ct %v", tt.hook, q.TTL(), q.IP()[6], q.CT)
		}
		if p.TTL() != 64 || p.IP()[6] != 0 || p.CT.Flow != 3 {
			t.Errorf("%s: the packet itself changed", tt.hook)
		}
	}
}

// TestTCPMSSBackends sees that only legacy rules need a test for SYN.
func TestTCPMSSBackends(t *testing.T) {
	for header, want := range map[string]bool{"": false, "# Generated by iptables-save v1.8.9 (nf_tables)\n": true} {
		_, err := xtables.Parse(header+"*mangle\n-A FORWARD -p tcp -j TCPMSS --set-mss 500\nCOMMIT\n",
			xtables.ParseOptions{File: "t", Force: true,
				Catalog: xtables.NewCatalog(trace.IPv4, nil, target.All())})
		if (err == nil) != want {
			t.Errorf("header %q: got %v", header, err)
		}
	}
}
