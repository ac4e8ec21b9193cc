package snapshot

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// markerType is the Ethernet type of frames that mark a place in a queue.
const markerType = 0x88b5

// end is a packet socket on one end of a cable.
type end struct {
	t   testing.TB
	fd  int
	mac packet.MAC
}

func openEnd(t testing.TB, name string) *end {
	t.Helper()
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(all))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all,
		Ifindex: ifc.Index}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		t.Fatal(err)
	}
	return &end{t, fd, packet.MAC(ifc.HardwareAddr)}
}

func (e *end) send(b []byte) {
	if _, err := unix.Write(e.fd, b); err != nil {
		e.t.Fatal(err)
	}
}

func frame(dst, src packet.MAC, typ uint16, body []byte) []byte {
	b := append(append([]byte{}, dst[:]...), src[:]...)
	b = append(binary.BigEndian.AppendUint16(b, typ), body...)
	return append(b, make([]byte, max(0, 60-len(b)))...)
}

// until reads frames up to the marker and returns the ARP replies among them.
func (e *end) until() (replies []link.ARP) {
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(e.fd, buf, 0)
		if err != nil || n < 14 {
			e.t.Fatalf("read %d bytes: %v", n, err)
		}
		switch binary.BigEndian.Uint16(buf[12:]) {
		case markerType:
			return replies
		case packet.EtherARP:
			if a, ok := link.ParseARP(buf[14:n]); ok && a.Op == link.ARPReply {
				replies = append(replies, a)
			}
		}
	}
}

// pin keeps the thread on one CPU, so that its frames stay in one queue.
func pin(t testing.TB) {
	var set unix.CPUSet
	set.Set(0)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
}

// arpSwitches writes random settings of ARP.
func (r dice) arpSwitches(ns *namespace) {
	for _, k := range []struct {
		key  string
		vals []int
	}{{"arp_ignore", []int{0, 0, 1, 2, 3, 4, 8}}, {"arp_filter", []int{0, 1}},
		{"arp_accept", []int{0, 1, 2}}, {"proxy_arp", []int{0, 1}}, {"proxy_arp_pvlan", []int{0,
			1}},
		{"drop_gratuitous_arp", []int{0, 0, 0, 1}}, {"route_localnet", []int{0, 0, 1}},
		{"medium_id", []int{0, 0, 1, -1}}} {
		for _, dev := range []string{"all", "d0", "d1"} {
			if r.one(2) {
				ns.sysctl("conf/"+dev+"/"+k.key, k.vals[r.IntN(len(k.vals))])
			}
		}
	}
	ns.sysctl("neigh/d0/proxy_delay", 0)
	ns.sysctl("neigh/d0/gc_stale_time", 10000)
}

// TestARPKernel asks the kernel and the engine the same ARP questions and
// compares who is answered, and what is learnt.
func TestARPKernel(t *testing.T) {
	needRoot(t)
	seed, rounds := envUint("SEED", 1), envUint("ROUNDS", 30)
	asked := 0
	for i := seed; i < seed+rounds && !t.Failed(); i++ {
		inNamespace(t, func(ns *namespace) {
			pin(t)
			r := dice{rand.New(rand.NewPCG(i, 1))}
			ns.run(r.topology(), "ip", "-force", "-batch", "-")
			ns.run("link set p0 up\nlink set d0 up\nneigh add proxy "+r.addr()+" dev d0\n", "ip",
				"-force",
				"-batch", "-")
			r.switches(ns)
			r.arpSwitches(ns)
			ns.run(r.config(), "ip", "-force", "-batch", "-")
			asked += r.arpRound(t, ns, collect(ns), i)
		})
	}
	t.Logf("%d ARP packets compared with the kernel", asked)
}

func (r dice) arpRound(t *testing.T, ns *namespace, h *host, seed uint64) int {
	near, far := openEnd(t, "d0"), openEnd(t, "p0")
	defer unix.Close(near.fd)
	defer unix.Close(far.fd)
	w := &world.World{State: h.st.Fork(), Dice: &world.Dice{}, HZ: 250}
	bcast := packet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	for n := range 60 {
		a := link.ARP{Op: uint16(1 + min(1, r.IntN(4)/3)), SenderMAC: packet.MAC{2, 0, 0, 0, 1,
			byte(r.IntN(3))},
			Sender: packet.MustParseAddr(r.addr()), Target: packet.MustParseAddr(r.addr())}
		switch r.IntN(10) {
		case 0:
			a.Sender = packet.V4(0)
		case 1:
			a.Target = a.Sender
		case 2:
			a.Target = r.ownAddr(h)
		}
		to, typ := bcast, packet.Broadcast
		if r.one(3) {
			to, typ = near.mac, packet.Host
		}
		if r.one(2) {
			a.TargetMAC = a.SenderMAC
		}
		got := exchange(near, far, to, a)
		want, next, ok := h.arp(w, typ, a, got)
		for try := 0; try < 3 && !ok && len(got) == 0; try++ {
			// The neighbour table is shared by all namespaces and may be full for
			// a while: then the kernel does not answer.
			got = exchange(near, far, to, a)
			want, next, ok = h.arp(w, typ, a, got)
		}
		w = next
		if !ok {
			t.Errorf("seed %d packet %d: %+v to %v:\n kernel %+v\n engine %+v\n%s", seed, n, a,
				to, got, want,
				h.story(ns))
			return n
		}
	}
	compareLearnt(t, ns, h, w, seed)
	return 60
}

// arp asks the engine, on each way that a multipath route may take, for what the
// kernel answered.
func (h *host) arp(w *world.World, typ packet.Type, a link.ARP,
	got []link.ARP) (want link.ARPAnswer,
	next *world.World, ok bool) {
	d0 := h.links.ByName("d0").Index
	for i := 5; i >= 0; i-- {
		next = &world.World{State: w.State.Fork(), Dice: &world.Dice{Forced: []int{i}}, HZ: 250}
		want = h.links.ARP(next, h.fib, d0, typ, a)
		if want.Replies == (len(got) == 1) && (!want.Replies || got[0] == want.Reply) {
			return want, next, true
		}
	}
	return want, next, false
}

// exchange sends an ARP packet and returns what was answered. The markers follow
// it through the same queues, there and back.
func exchange(near, far *end, to packet.MAC, a link.ARP) []link.ARP {
	far.send(frame(to, a.SenderMAC, packet.EtherARP, a.Bytes()))
	far.send(frame(near.mac, far.mac, markerType, nil))
	near.until()
	near.send(frame(far.mac, near.mac, markerType, nil))
	return far.until()
}

// compareLearnt compares the neighbours of d0.
func compareLearnt(t *testing.T, ns *namespace, h *host, w *world.World, seed uint64) {
	d0 := h.links.ByName("d0").Index
	kernel, _, err := parseIPNeigh("ip-neigh", dump(ns, "-4 neigh show nud all"),
		finder(h.links.All()))
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kernel {
		if k.Dev != d0 || k.State == link.NoARPState || k.MAC == (packet.MAC{}) || k.Addr[12] >= 224 {
			continue
		}
		got, ok := h.links.Neighbour(w, d0, k.Addr)
		if !ok || got.MAC != k.MAC {
			t.Errorf("seed %d: neighbour %v: kernel %v, engine %v %v\n%s", seed, k.Addr, k.MAC,
				got.MAC, ok,
				fmt.Sprint(kernel))
		}
	}
}
