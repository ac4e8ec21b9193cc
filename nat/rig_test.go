package nat_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
)

// rig is a router in a network namespace of its own, between two wires whose far ends
// stand in the same namespace and have no addresses.
type rig struct {
	tb   testing.TB
	wire [2]wire
	nl   int
	seq  uint32
}

type wire struct {
	fd, arp, index int
	router         packet.Dev
	far, near      packet.MAC // the wire's end, the router's end
}

// skip skips a test for want of something, and fails where nothing may be missing.
func skip(tb testing.TB, why string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatal(why)
	}
	tb.Skip(why)
}

// newRig makes the namespace; the calling goroutine stays in it until the test ends.
func newRig(tb testing.TB) *rig {
	tb.Helper()
	if os.Getuid() != 0 {
		skip(tb, "needs root for a network namespace")
	}
	for _, tool := range []string{"ip", "iptables-legacy-restore"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(tb, "needs "+tool)
		}
	}
	runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		skip(tb, "cannot make a network namespace: "+err.Error())
	}
	var one unix.CPUSet
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		tb.Fatal(err)
	}
	r := &rig{tb: tb}
	r.run("ip", "-batch", "-", links)
	r.set(map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0",
		"net.ipv4.conf.a0.rp_filter": "0", "net.ipv4.conf.b0.rp_filter": "0",
		"net.ipv4.conf.a0.send_redirects": "0", "net.ipv4.conf.all.send_redirects": "0"})
	r.open()
	return r
}

// set writes sysctls.
func (r *rig) set(of map[string]string) {
	r.tb.Helper()
	for name, v := range of {
		file := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
		if err := os.WriteFile(file, []byte(v), 0o644); err != nil {
			r.tb.Fatal(err)
		}
	}
}

const links = `link set lo up
link add wa address 02:00:00:00:00:0a type veth peer name a0 index 100 address 02:00:00:00:01:0a
link add wb address 02:00:00:00:00:0b type veth peer name b0 index 101 address 02:00:00:00:01:0b
link set wa up arp off
link set wb up arp off
link set a0 up
link set b0 up
addr add 10.0.1.1/24 dev a0
addr add 10.0.1.7/24 dev a0
addr add 10.0.2.1/24 dev b0
addr add 10.0.2.9/24 dev b0
addr add 198.51.100.1/28 dev b0
route add default via 10.0.2.254
`

// run runs a tool; the last argument is its input.
func (r *rig) run(name string, args ...string) {
	r.tb.Helper()
	cmd := exec.Command(name, args[:len(args)-1]...)
	cmd.Stdin = strings.NewReader(args[len(args)-1])
	if out, err := cmd.CombinedOutput(); err != nil {
		r.tb.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
}

// open opens the wires and the netlink socket, and makes everybody a neighbour.
func (r *rig) open() {
	var neigh bytes.Buffer
	for i := range r.wire {
		w := &r.wire[i]
		w.far = packet.MAC{2, 0, 0, 0, 9, byte(i)}
		w.near = packet.MAC{2, 0, 0, 0, 1, 0xa + byte(i)}
		w.router = packet.Dev(100 + i)
		w.index = r.ifindex("w" + string('a'+rune(i)))
		w.fd = r.listen(w, 0x0008)  // ETH_P_IP
		w.arp = r.listen(w, 0x0608) // ETH_P_ARP
		for h := range 250 {
			if h < 2 || h == 7+2*i { // the router's own
				continue
			}
			fmt.Fprintf(&neigh, "neigh replace 10.0.%d.%d lladdr %v dev %c0 nud permanent\n",
				i+1, h, w.far, 'a'+i)
		}
		fmt.Fprintf(&neigh, "neigh replace 10.0.%d.254 lladdr %v dev %c0 nud permanent\n",
			i+1, w.far, 'a'+i)
	}
	for h := 2; h < 15; h++ {
		fmt.Fprintf(&neigh, "neigh replace 198.51.100.%d lladdr %v dev b0 nud permanent\n",
			h, r.wire[1].far)
	}
	r.run("ip", "-batch", "-", neigh.String())
	var err error
	r.nl, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { unix.Close(r.nl) })
}

func (r *rig) ifindex(name string) int {
	b, err := os.ReadFile("/sys/class/net/" + name + "/ifindex")
	n := 0
	if err == nil {
		_, err = fmt.Sscan(string(b), &n)
	}
	if err != nil { // /sys may show another namespace
		out, err := exec.Command("ip", "-o", "link", "show", name).Output()
		if err != nil {
			r.tb.Fatal(err)
		}
		fmt.Sscanf(string(out), "%d:", &n)
	}
	return n
}

// out is a frame that the router sent.
type out struct {
	wire  int
	frame []byte
}

// send puts an IP packet on a wire and returns what came out of both. A question by ARP
// goes behind it through the same queues: once it is answered, all has come out.
func (r *rig) send(side int, ip []byte) []out {
	w := &r.wire[side]
	frame := append(append(append([]byte{}, w.near[:]...), w.far[:]...), 8, 0)
	r.put(w, 0x0008, append(frame, ip...))
	ask := append(append(append([]byte{}, w.near[:]...), w.far[:]...), 8, 6,
		0, 1, 8, 0, 6, 4, 0, 1)
	ask = append(append(ask, w.far[:]...), 10, 0, byte(side+1), 200)
	ask = append(append(ask, make([]byte, 6)...), 10, 0, byte(side+1), 1)
	r.put(w, 0x0608, ask)
	var buf [256]byte
	if _, _, err := unix.Recvfrom(w.arp, buf[:], 0); err != nil {
		r.tb.Fatal("no answer to the marker: ", err)
	}
	return r.drain()
}

func (r *rig) put(w *wire, proto uint16, frame []byte) {
	sa := &unix.SockaddrLinklayer{Protocol: proto, Ifindex: w.index, Halen: 6}
	if err := unix.Sendto(w.fd, frame, 0, sa); err != nil {
		r.tb.Fatal(err)
	}
}

// listen opens a packet socket for one protocol on a wire.
func (r *rig) listen(w *wire, proto uint16) int {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	if err != nil {
		r.tb.Fatal(err)
	}
	r.tb.Cleanup(func() { unix.Close(fd) })
	unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5})
	sa := &unix.SockaddrLinklayer{Protocol: proto, Ifindex: w.index}
	if err := unix.Bind(fd, sa); err != nil {
		r.tb.Fatal(err)
	}
	return fd
}

func (r *rig) drain() []out {
	var outs []out
	var buf [4096]byte
	for i := range r.wire {
		for {
			n, _, err := unix.Recvfrom(r.wire[i].fd, buf[:], unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			outs = append(outs, out{i, append([]byte(nil), buf[:n]...)})
		}
	}
	return outs
}

// flowKey tells connections apart: by original tuple and its zone.
type flowKey struct {
	conntrack.Tuple
	zone uint16
}

func keyOf(f *conntrack.Flow) flowKey {
	return flowKey{f.Tuples[0], f.Zone.In(conntrack.Original)}
}

// entry is what ctnetlink says of a connection.
type entry struct {
	flow    conntrack.Flow
	timeout uint32
}

// flows dumps the namespace's connections.
func (r *rig) flows() map[flowKey]entry {
	r.seq++
	req := make([]byte, 20)
	binary.NativeEndian.PutUint32(req, 20)
	binary.NativeEndian.PutUint16(req[4:], 1<<8|1) // IPCTNL_MSG_CT_GET
	binary.NativeEndian.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	binary.NativeEndian.PutUint32(req[8:], r.seq)
	req[16] = unix.AF_INET
	if err := unix.Sendto(r.nl, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		r.tb.Fatal(err)
	}
	all := map[flowKey]entry{}
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(r.nl, buf, 0)
		if err != nil {
			r.tb.Fatal(err)
		}
		for b := buf[:n]; len(b) >= 16; {
			size := int(binary.NativeEndian.Uint32(b))
			switch binary.NativeEndian.Uint16(b[4:]) {
			case unix.NLMSG_DONE:
				return all
			case unix.NLMSG_ERROR:
				r.tb.Fatalf("ctnetlink: error %d", int32(binary.NativeEndian.Uint32(b[16:])))
			default:
				e := readEntry(b[20:size])
				all[keyOf(&e.flow)] = e
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

func attrs(b []byte, f func(typ uint16, v []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		f(binary.NativeEndian.Uint16(b[2:])&0x3fff, b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// readEntry reads CTA_* attributes.
func readEntry(b []byte) entry {
	var e entry
	be := binary.BigEndian
	counters := func(d int) func(uint16, []byte) {
		return func(t uint16, v []byte) {
			switch t {
			case 1:
				e.flow.Packets[d] = be.Uint64(v)
			case 2:
				e.flow.Bytes[d] = be.Uint64(v)
			}
		}
	}
	attrs(b, func(t uint16, v []byte) {
		switch t {
		case 1:
			e.flow.Tuples[0] = readTuple(v)
			readZone(&e.flow, v, conntrack.ZoneOrig)
		case 2:
			e.flow.Tuples[1] = readTuple(v)
			readZone(&e.flow, v, conntrack.ZoneReply)
		case 3:
			e.flow.Status = conntrack.Status(be.Uint32(v))
		case 4:
			attrs(v, func(t uint16, v []byte) { readProto(&e.flow, t, v) })
		case 5:
			attrs(v, func(t uint16, v []byte) {
				if t == 1 {
					e.flow.Helper, _ = conntrack.ParseHelper(strings.TrimRight(string(v), "\x00"))
				}
			})
		case 7:
			e.timeout = be.Uint32(v)
		case 8:
			e.flow.Mark = be.Uint32(v)
		case 9:
			attrs(v, counters(0))
		case 10:
			attrs(v, counters(1))
		case 18:
			e.flow.Zone.ID = be.Uint16(v)
		}
	})
	return e
}

// readZone reads a zone that counts in one direction: it stands in the tuple.
func readZone(f *conntrack.Flow, tuple []byte, d conntrack.ZoneDir) {
	attrs(tuple, func(t uint16, v []byte) {
		if t == 3 {
			f.Zone = conntrack.Zone{ID: binary.BigEndian.Uint16(v), Dir: d}
		}
	})
}

func readProto(f *conntrack.Flow, proto uint16, b []byte) {
	attrs(b, func(t uint16, v []byte) {
		if proto == 3 { // SCTP
			switch t {
			case 1:
				f.TCP.State = conntrack.TCPState(v[0])
			case 2, 3:
				f.SCTP.VTag[t-2] = binary.BigEndian.Uint32(v)
			}
			return
		}
		switch t {
		case 1:
			f.TCP.State = conntrack.TCPState(v[0])
		case 2, 3:
			f.TCP.Seen[t-2].Scale = v[0]
		case 4, 5:
			f.TCP.Seen[t-4].Flags = v[0]
		}
	})
}

func readTuple(b []byte) conntrack.Tuple {
	var tu conntrack.Tuple
	be := binary.BigEndian
	attrs(b, func(t uint16, v []byte) {
		if t == 3 { // the zone
			return
		}
		attrs(v, func(u uint16, v []byte) {
			switch t<<8 | u {
			case 1<<8 | 1:
				tu.Src = packet.AddrFrom4(v)
			case 1<<8 | 2:
				tu.Dst = packet.AddrFrom4(v)
			case 2<<8 | 1:
				tu.Proto = v[0]
			case 2<<8 | 2:
				tu.SPort = be.Uint16(v)
			case 2<<8 | 3:
				tu.DPort = be.Uint16(v)
			case 2<<8 | 4:
				tu.SPort = be.Uint16(v)
			case 2<<8 | 5:
				tu.DPort |= uint16(v[0]) << 8
			case 2<<8 | 6:
				tu.DPort |= uint16(v[0])
			}
		})
	})
	return tu
}

// now is the wall clock.
func now() int64 { return time.Now().UnixNano() }
