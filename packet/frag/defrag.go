package frag

import "github.com/hookpath/hookpath/packet"

// Queues is the memory of packets that wait for fragments; a world.Table is one.
type Queues interface {
	Get(Key) (Queue, bool)
	Put(Key, Queue)
	Delete(Key)
}

// Peer is a sender of fragments.
//
// Kernel: net/ipv4/inetpeer.c, inet_getpeer_v4.
type Peer struct {
	Addr packet.Addr
	VRF  packet.Dev
}

// Peers counts the fragments of each sender; a world.Table is one.
type Peers interface {
	Get(Peer) (uint32, bool)
	Put(Peer, uint32)
}

// Collector puts fragments together. The zero Collector waits for nothing: use New.
type Collector struct {
	Timeout int64 // nanoseconds that a packet may take to become whole
	MaxDist int   // fragments of the same sender that may come in between; 0 is any number
	Off     bool  // the kernel keeps no fragments at all (ipfrag_high_thresh is 0)
}

// Sysctl answers what a setting is, def when it is not known.
type Sysctl interface {
	Int(name string, def int) int
}

// New returns a Collector with a host's settings.
//
// Kernel: net/ipv4/ip_fragment.c, ipv4_frags_init_net.
func New(s Sysctl) *Collector {
	return &Collector{
		Timeout: int64(s.Int("net.ipv4.ipfrag_time", 30)) * 1e9,
		MaxDist: s.Int("net.ipv4.ipfrag_max_dist", 64),
		Off:     s.Int("net.ipv4.ipfrag_high_thresh", 4<<20) == 0,
	}
}

// Arrival is a fragment and where it came.
type Arrival struct {
	Packet *packet.Packet // a whole IPv4 header, cut to its total length
	User   User
	VRF    packet.Dev
	Now    int64 // nanoseconds since the epoch
}

func (a *Arrival) key() Key {
	ip := a.Packet.IP()
	return Key{Src: a.Packet.Src(), Dst: a.Packet.Dst(), User: a.User, VRF: a.VRF,
		ID: word(ip, 4), Proto: ip[9]}
}

// Add takes a fragment. With Complete the packet that is whole now comes with the
// result, and the number of fragments that it was made of.
//
// Kernel: net/ipv4/ip_fragment.c, ip_defrag.
func (c *Collector) Add(qs Queues, ps Peers, a Arrival) (*packet.Packet, int, Result) {
	if c.Off {
		return nil, 0, Discarded
	}
	k := a.key()
	q, ok := qs.Get(k)
	if !ok || a.Now >= q.Expires {
		q = Queue{Expires: a.Now + c.Timeout}
	}
	if a.Packet.Flags&packet.FragComplete == 0 {
		c.count(&q, ps, Peer{k.Src, k.VRF}, a.Now)
	}
	switch r := q.add(a.Packet.Clone()); r {
	case Complete:
		qs.Delete(k)
		if p := q.join(a.Packet.In); p != nil {
			return p, q.Fragments(), Complete
		}
		return nil, 0, Discarded
	case Discarded:
		qs.Delete(k)
		return nil, 0, r
	default:
		qs.Put(k, q)
		return nil, 0, r
	}
}

// count empties a queue whose sender has sent too many other fragments since: what
// comes now is likely of another packet with the same number.
//
// Kernel: net/ipv4/ip_fragment.c, ip_frag_too_far and ip_frag_reinit.
func (c *Collector) count(q *Queue, ps Peers, from Peer, now int64) {
	if c.MaxDist == 0 {
		return
	}
	n, _ := ps.Get(from)
	n++
	ps.Put(from, n)
	old := q.rid
	q.rid = n
	if len(q.runs) > 0 && n-old > uint32(c.MaxDist) {
		*q = Queue{rid: n, Expires: now + c.Timeout, max: q.max, maxDF: q.maxDF}
	}
}
