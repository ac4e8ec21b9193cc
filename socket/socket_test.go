package socket

import (
	"testing"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

var addr = packet.MustParseAddr

func at(proto uint8, st State, local string, port uint16) Socket {
	s := Socket{Proto: proto, State: st, LPort: port}
	if local != "" {
		s.Local = addr(local)
	}
	return s
}

func (s Socket) on(dev packet.Dev) Socket { s.Dev = dev; return s }
func (s Socket) six(only bool) Socket     { s.V6, s.V6Only = true, only; return s }
func (s Socket) ino(n uint64) Socket      { s.Inode = n; return s }
func (s Socket) to(a string, port uint16) Socket {
	s.Peer, s.PPort = addr(a), port
	return s
}

// sockets are asked by the rows of TestLookup; the row names the one that takes
// the packet: its index and 1, since 0 is none.
var sockets = []Socket{
	0:  at(packet.TCP, Listen, "", 80),
	1:  at(packet.TCP, Listen, "10.0.0.1", 80),
	2:  at(packet.TCP, Listen, "", 80).on(3),
	3:  at(packet.TCP, Connected, "10.0.0.1", 80).to("10.0.0.9", 1000),
	4:  at(packet.TCP, Listen, "", 81).six(false),
	5:  at(packet.TCP, Listen, "", 82).six(true),
	6:  at(packet.TCP, Listen, "", 81).on(3).six(false),
	7:  at(packet.UDP, Unconnected, "", 53),
	8:  at(packet.UDP, Unconnected, "10.0.0.1", 53),
	9:  at(packet.UDP, Connected, "10.0.0.1", 53).to("10.0.0.9", 99),
	10: at(packet.UDP, Unconnected, "", 53).on(3),
	11: at(packet.UDP, Unconnected, "", 54).ino(5),
	12: at(packet.UDP, Unconnected, "", 54).ino(9),
	13: at(packet.SCTP, Listen, "10.0.0.1", 36412),
	14: at(packet.TCP, Gone, "10.0.0.1", 443).to("10.0.0.9", 7),
}

// TestLookup tries the kernel's scores.
func TestLookup(t *testing.T) {
	tb, err := New(&world.Schema{}, sockets)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		proto uint8
		src   string
		sport uint16
		dst   string
		dport uint16
		in    packet.Dev
		want  uint32
	}{
		{packet.TCP, "10.0.0.9", 1000, "10.0.0.1", 80, 2, 4}, // the connection
		{packet.TCP, "10.0.0.9", 1001, "10.0.0.1", 80, 2, 2}, // the address before any
		{packet.TCP, "10.0.0.9", 1001, "10.0.0.2", 80, 2, 1},
		{packet.TCP, "10.0.0.9", 1001, "10.0.0.2", 80, 3, 3}, // the device before none
		{packet.TCP, "10.0.0.9", 1001, "10.0.0.1", 80, 3, 2}, // but behind the address
		{packet.TCP, "10.0.0.9", 1001, "10.0.0.1", 81, 2, 5}, // a dual stack socket
		{packet.TCP, "10.0.0.9", 1001, "10.0.0.1", 81, 3, 7},
		{packet.TCP, "10.0.0.9", 1001, "10.0.0.1", 82, 2, 0}, // v6only
		{packet.TCP, "10.0.0.9", 1001, "10.0.0.1", 83, 2, 0},
		{packet.TCP, "10.0.0.9", 7, "10.0.0.1", 443, 2, 15}, // TIME-WAIT takes its own
		{packet.TCP, "10.0.0.9", 8, "10.0.0.1", 443, 2, 0},
		{packet.UDP, "10.0.0.9", 99, "10.0.0.1", 53, 2, 10}, // connected
		{packet.UDP, "10.0.0.9", 98, "10.0.0.1", 53, 2, 9},
		{packet.UDP, "10.0.0.9", 98, "10.0.0.2", 53, 2, 8},
		{packet.UDP, "10.0.0.9", 98, "10.0.0.2", 53, 3, 11},
		{packet.UDP, "10.0.0.9", 98, "10.0.0.2", 54, 3, 13}, // the youngest
		{packet.SCTP, "10.0.0.9", 98, "10.0.0.1", 36412, 3, 14},
		{packet.SCTP, "10.0.0.9", 98, "10.0.0.2", 36412, 3, 0},
		{packet.GRE, "10.0.0.9", 0, "10.0.0.1", 0, 2, 0},
	} {
		s, ok := tb.Lookup(newWorld(t, tb), c.proto, addr(c.src), c.sport, addr(c.dst), c.dport,
			c.in)
		if s.ID != c.want || ok != (c.want != 0) {
			t.Errorf("%d %s:%d > %s:%d in %d: got socket %d, want %d", c.proto, c.src, c.sport,
				c.dst, c.dport,
				c.in, s.ID, c.want)
		}
	}
}

func newWorld(t testing.TB, tb *Table) *world.World {
	t.Helper()
	s := &world.Schema{}
	tb.gone = world.Add(s, world.NewTable[uint32, struct{}])
	tb.keys = world.Add(s, world.NewTable[fullKey, uint32])
	tb.dyn = world.Add(s, func() *world.Array[dynamic] { return world.NewArray[dynamic](0) })
	return &world.World{State: s.NewState(), Dice: &world.Dice{}, HZ: 250}
}

// TestMemory opens and closes sockets.
func TestMemory(t *testing.T) {
	tb, err := New(&world.Schema{}, sockets)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, tb)
	look := func(w *world.World, proto uint8, dport uint16) uint32 {
		s, _ := tb.Lookup(w, proto, addr("10.0.0.9"), 1001, addr("10.0.0.1"), dport, 2)
		return s.ID
	}
	s := at(packet.TCP, Connected, "10.0.0.1", 9000).to("10.0.0.9", 1001)
	s.UID, s.GID = 7, 8
	id := tb.Add(w, s)
	if got := look(w, packet.TCP, 9000); got != id || id != uint32(len(sockets)+1) {
		t.Errorf("a new connection: got %d, want %d", got, id)
	}
	if again := tb.Add(w, s); again != id {
		t.Errorf("the same ends again: got %d, want %d", again, id)
	}
	if uid, gid, ok := tb.Owner(w, id); !ok || uid != 7 || gid != 8 {
		t.Errorf("owner: got %d %d %v", uid, gid, ok)
	}
	any := tb.Add(w, at(packet.UDP, Unconnected, "0.0.0.0", 9001).on(2))
	if got := look(w, packet.UDP, 9001); got != any {
		t.Errorf("a socket on a device: got %d, want %d", got, any)
	}
	if tb.BoundDev(w, any) != 2 {
		t.Errorf("bound to %d, want 2", tb.BoundDev(w, any))
	}
	fork := *w
	fork.State = w.State.Fork()
	tb.Remove(&fork, id)
	tb.Remove(&fork, 2)
	if got := look(&fork, packet.TCP, 9000); got != 0 {
		t.Errorf("a closed connection: got %d", got)
	}
	if got := look(&fork, packet.TCP, 80); got != 1 {
		t.Errorf("a closed listener: got %d, want 1", got)
	}
	owner := tb.Owned(&fork, packet.UDP, 33, 34)
	if uid, gid, ok := tb.Owner(&fork, owner); !ok || uid != 33 || gid != 34 {
		t.Errorf("an owner: got %d %d %v", uid, gid, ok)
	}
	if _, _, ok := tb.Owner(&fork, 0); ok {
		t.Error("no socket has an owner")
	}
	if _, _, ok := tb.Owner(&fork, 15); ok {
		t.Error("TIME-WAIT has an owner")
	}
}

// TestCopies finds all that hear a multicast, and raw sockets.
func TestCopies(t *testing.T) {
	raw := Socket{Raw: true, Proto: packet.ICMP}
	bound := Socket{Raw: true, Proto: packet.ICMP, Local: addr("10.0.0.2")}
	tb, err := New(&world.Schema{}, append(append([]Socket{}, sockets...), raw, bound))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, tb)
	got := tb.Multicast(w, packet.UDP, addr("10.0.0.9"), 98, addr("10.0.0.255"), 53, 3)
	if len(got) != 2 || got[0].ID != 8 || got[1].ID != 11 {
		t.Errorf("a broadcast: got %+v, want 8 and 11", got)
	}
	if got := tb.Raw(w, packet.ICMP, addr("10.0.0.9"), addr("10.0.0.1"),
		2); len(got) != 1 || got[0].ID != 16 {
		t.Errorf("raw: got %+v, want 16", got)
	}
	if got := tb.Raw(w, packet.GRE, addr("10.0.0.9"), addr("10.0.0.1"), 2); len(got) != 0 {
		t.Errorf("raw of another protocol: got %+v", got)
	}
}

// TestRefuses wants devices to be there.
func TestRefuses(t *testing.T) {
	s := []Socket{at(packet.UDP, Unconnected, "10.0.0.1", 53)}
	s[0].DevName = "gone"
	Resolve(s, func(string) packet.Dev { return 0 })
	_, err := New(nil, s)
	if want := `socket 10.0.0.1:53: device "gone" does not exist`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	s[0].DevName = "eth0"
	Resolve(s, func(string) packet.Dev { return 2 })
	if tb, err := New(nil, s); err != nil || tb.All()[0].Dev != 2 {
		t.Errorf("got %v, %v", tb, err)
	}
}
