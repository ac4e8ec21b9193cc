// Package socket is who would receive: listeners, datagram and raw sockets, and
// connections, scored as the kernel scores them. It stands behind INPUT, where a
// packet is handed to its protocol.
//
// Kernel: net/ipv4/inet_hashtables.c, udp.c, raw.c; net/sctp/input.c.
package socket

import (
	"fmt"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// State is what a socket is doing.
type State uint8

// The states. Unconnected is a datagram or raw socket without a peer.
const (
	Unconnected State = iota
	Listen
	Connected // ESTAB, and the states of a connection being closed
	Gone      // TIME-WAIT: nobody owns it any more
)

// Socket is one socket. The zero ports and addresses are any; ID is given by New
// and Add, never zero.
type Socket struct {
	ID           uint32
	Proto        uint8 // of a raw socket the protocol that it reads
	Raw          bool
	State        State
	Local, Peer  packet.Addr
	LPort, PPort uint16
	Dev          packet.Dev // SO_BINDTODEVICE
	DevName      string     // its name, where Dev is still to be found
	V6           bool       // an AF_INET6 socket
	V6Only       bool
	UID, GID     uint32
	GIDKnown     bool
	Inode        uint64
	Process      string
	PID          int
	Transparent  bool // IP_TRANSPARENT
	FreeBind     bool
	McastAllOff  bool   // IP_MULTICAST_ALL was cleared
	Mark         uint32 // SO_MARK
	Request      bool   // SYN-RECV: a connection being opened, which has no mark of its own yet
}

// Table holds a host's sockets: those of the snapshot, which never change, and
// those in memory.
type Table struct {
	base    []Socket
	ports   map[portKey][]int32
	gone    world.Slot[*world.Table[uint32, struct{}]]
	dyn     world.Slot[*world.Array[dynamic]]
	keys    world.Slot[*world.Table[fullKey, uint32]]
	dynamic bool
}

type portKey struct {
	proto uint8
	raw   bool
	port  uint16
}

// fullKey is everything that a socket in memory is found by.
type fullKey struct {
	portKey
	local, peer packet.Addr
	pport       uint16
	dev         packet.Dev
}

// dynamic is a socket in memory, without pointers.
type dynamic struct {
	key         fullKey
	state       State
	uid, gid    uint32
	v6, closed  bool
	transparent bool
	owner       bool // no socket that receives, only an owner
	mark        uint32
}

// New makes a table. A nil schema has no memory.
func New(s *world.Schema, base []Socket) (*Table, error) {
	t := &Table{base: append([]Socket(nil), base...), ports: map[portKey][]int32{}}
	for i := range t.base {
		b := &t.base[i]
		b.ID = uint32(i + 1)
		if b.DevName != "" && b.Dev == 0 {
			return nil, fmt.Errorf("socket %s:%d: device %q does not exist", b.Local, b.LPort,
				b.DevName)
		}
		k := b.port()
		t.ports[k] = append(t.ports[k], int32(i))
	}
	if s != nil {
		t.dynamic = true
		t.gone = world.Add(s, world.NewTable[uint32, struct{}])
		t.keys = world.Add(s, world.NewTable[fullKey, uint32])
		t.dyn = world.Add(s, func() *world.Array[dynamic] { return world.NewArray[dynamic](0) })
	}
	return t, nil
}

// Resolve finds the devices that sockets are bound to. A name that is not there
// is left alone, and New refuses it.
func Resolve(socks []Socket, find func(name string) packet.Dev) {
	for i := range socks {
		if socks[i].DevName != "" {
			socks[i].Dev = find(socks[i].DevName)
		}
	}
}

func (s *Socket) port() portKey {
	if s.Raw {
		return portKey{proto: s.Proto, raw: true}
	}
	return portKey{proto: s.Proto, port: s.LPort}
}

// All returns the sockets of the snapshot. It must not be changed.
func (t *Table) All() []Socket { return t.base }

// Kernel is the number of the kernel's own sockets, which send ICMP and TCP's resets.
// No process has them open: they have no owner.
//
// Kernel: net/ipv4/icmp.c, icmp_sk_init; net/ipv4/tcp_ipv4.c, tcp_v4_init.
const Kernel = ^uint32(0)

// Get returns a socket by its number.
func (t *Table) Get(w *world.World, id uint32) (Socket, bool) {
	switch {
	case id == 0, id == Kernel:
		return Socket{}, false
	case int(id) <= len(t.base):
		return t.base[id-1], true
	case !t.dynamic:
		return Socket{}, false
	}
	d := t.dyn.In(w.State).Get(int(id) - len(t.base) - 1)
	return d.socket(id), d.key != fullKey{} || d.owner
}

func (d *dynamic) socket(id uint32) Socket {
	return Socket{ID: id, Proto: d.key.proto, Raw: d.key.raw, State: d.state, Local: d.key.local,
		Peer: d.key.peer, LPort: d.key.port, PPort: d.key.pport, Dev: d.key.dev, V6: d.v6,
		UID: d.uid, GID: d.gid, GIDKnown: true, Transparent: d.transparent, Mark: d.mark}
}

// Owner is the owner of a socket: false for none.
func (t *Table) Owner(w *world.World, id uint32) (uid, gid uint32, ok bool) {
	s, ok := t.Get(w, id)
	return s.UID, s.GID, ok && s.State != Gone
}

// BoundDev is the device that a socket is bound to, zero for none.
func (t *Table) BoundDev(w *world.World, id uint32) packet.Dev {
	s, _ := t.Get(w, id)
	return s.Dev
}

// Add puts a socket into memory and returns its number. One with the same ends
// is taken instead, and gets the mark.
func (t *Table) Add(w *world.World, s Socket) uint32 {
	s.Local, s.Peer = noAny(s.Local), noAny(s.Peer)
	d := dynamic{key: fullKey{s.port(), s.Local, s.Peer, s.PPort, s.Dev}, state: s.State,
		uid: s.UID, gid: s.GID, v6: s.V6, transparent: s.Transparent, mark: s.Mark}
	keys := t.keys.In(w.State)
	if id, ok := keys.Get(d.key); ok {
		t.dyn.In(w.State).Ref(int(id) - len(t.base) - 1).mark = s.Mark
		return id
	}
	id := t.append(w, d)
	keys.Put(d.key, id)
	return id
}

// noAny turns 0.0.0.0 into no address, as keys hold it.
func noAny(a packet.Addr) packet.Addr {
	if a.IsAny() {
		return packet.Addr{}
	}
	return a
}

func (t *Table) append(w *world.World, d dynamic) uint32 {
	return uint32(t.dyn.In(w.State).Append(d) + len(t.base) + 1)
}

// Owned returns the number of a socket that sends and is not looked for by what
// arrives: it tells the packet's owner.
func (t *Table) Owned(w *world.World, proto uint8, uid, gid uint32) uint32 {
	if !t.dynamic {
		return 0
	}
	return t.append(w, dynamic{key: fullKey{portKey: portKey{proto: proto}}, uid: uid, gid: gid,
		owner: true})
}

// OwnedOn is Owned for a socket that is bound to a device.
func (t *Table) OwnedOn(w *world.World, proto uint8, uid, gid uint32, dev packet.Dev) uint32 {
	if !t.dynamic {
		return 0
	}
	return t.append(w, dynamic{key: fullKey{portKey: portKey{proto: proto}, dev: dev}, uid: uid,
		gid: gid, owner: true})
}

// Remove closes a socket.
func (t *Table) Remove(w *world.World, id uint32) {
	if id == 0 || id == Kernel {
		return
	}
	if int(id) <= len(t.base) {
		t.gone.In(w.State).Put(id, struct{}{})
		return
	}
	i := int(id) - len(t.base) - 1
	arr := t.dyn.In(w.State)
	if i >= arr.Len() {
		return
	}
	d := arr.Ref(i)
	d.closed = true
	t.keys.In(w.State).Delete(d.key)
}
