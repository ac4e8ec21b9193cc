package conntrack

import (
	"fmt"
	"sort"
	"strconv"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// Format says what a line about a connection holds beside its tuples.
type Format struct {
	Extended bool // the network protocol, as with -o extended
	Expiry   bool // the seconds left
	ID       bool // the number, as with -o id
	Counters bool // packets and bytes, as where nf_conntrack_acct is on
}

// protoName is conntrack's word for a protocol.
func protoName(proto uint8) string {
	switch proto {
	case packet.TCP:
		return "tcp"
	case packet.UDP:
		return "udp"
	case packet.UDPLite:
		return "udplite"
	case packet.ICMP:
		return "icmp"
	case packet.ICMPv6:
		return "icmpv6"
	case packet.SCTP:
		return "sctp"
	case packet.GRE:
		return "gre"
	case packet.DCCP:
		return "dccp"
	}
	return "unknown"
}

// Dump lists the connections of the table as `conntrack -L` prints them, sorted as
// text.
func (t *Tracker) Dump(w *world.World, o Format) []string {
	var out []string
	for f := range t.All(w) {
		out = append(out, string(f.Append(nil, w.Now, o)))
	}
	sort.Strings(out)
	return out
}

// All yields the connections that are in the table and not expired, in the order of
// their places. Those that stand there for replies alone are not listed, as ctnetlink
// does not list them.
func (t *Tracker) All(w *world.World) func(yield func(*Flow) bool) {
	return func(yield func(*Flow) bool) {
		flows := t.flows.In(w.State)
		for i := 1; i < flows.Len(); i++ {
			f := flows.Get(i)
			if !f.Is(Confirmed) || f.Any(Dying|NATClash) || f.expired(w.Now) {
				continue
			}
			if !yield(&f) {
				return
			}
		}
	}
}

// Append adds the line that `conntrack -L` prints of a connection.
func (f *Flow) Append(b []byte, now world.Instant, o Format) []byte {
	if o.Extended {
		if f.Tuples[Original].Src.Is4() {
			b = append(b, "ipv4     2 "...)
		} else {
			b = append(b, "ipv6     10 "...)
		}
	}
	b = pad(b, protoName(f.Proto()), 8)
	b = append(strconv.AppendUint(append(b, ' '), uint64(f.Proto()), 10), ' ')
	if o.Expiry && !f.Any(Offload|HWOffload) {
		b = append(strconv.AppendUint(b, f.Expires(now), 10), ' ')
	}
	if s := f.stateName(); s != "" {
		b = append(append(b, s...), ' ')
	}
	b = f.appendDir(b, Original, o)
	if f.Zone.Dir == ZoneOrig && f.Zone.ID != 0 {
		b = num(b, "zone-orig=", uint64(f.Zone.ID))
	}
	if !f.Is(SeenReply) {
		b = append(b, "[UNREPLIED] "...)
	}
	b = f.appendDir(b, Reply, o)
	if f.Zone.Dir == ZoneReply && f.Zone.ID != 0 {
		b = num(b, "zone-reply=", uint64(f.Zone.ID))
	}
	return f.appendTail(b, o)
}

func (f *Flow) appendTail(b []byte, o Format) []byte {
	switch {
	case f.Is(HWOffload):
		b = append(b, "[HW_OFFLOAD] "...)
	case f.Is(Offload):
		b = append(b, "[OFFLOAD] "...)
	case f.Is(Assured):
		b = append(b, "[ASSURED] "...)
	}
	b = num(b, "mark=", uint64(f.Mark))
	if f.Zone.Dir == ZoneBoth && f.Zone.ID != 0 {
		b = num(b, "zone=", uint64(f.Zone.ID))
	}
	if f.Helper != NoHelper {
		b = append(append(append(b, "helper="...), f.Helper.String()...), ' ')
	}
	b = append(b, "use=1"...)
	if o.ID && f.ID != 0 {
		b = strconv.AppendUint(append(b, " id="...), uint64(f.ID), 10)
	}
	return b
}

// stateName is the word of the protocol's state, empty where there is none.
func (f *Flow) stateName() string {
	names := tcpNames[:]
	switch f.Proto() {
	case packet.TCP:
	case packet.SCTP:
		names = sctpNames[:]
	case packet.DCCP:
		if f.TCP.State == DCCPNone {
			return "" // kernels without its tracker
		}
		names = dccpNames[:]
	default:
		return ""
	}
	if f.Any(Offload|HWOffload) || int(f.TCP.State) >= len(names) {
		return ""
	}
	return names[f.TCP.State]
}

// appendDir adds a direction's tuple and counters.
func (f *Flow) appendDir(b []byte, d Dir, o Format) []byte {
	tu := &f.Tuples[d]
	b = append(append(append(b, "src="...), tu.Src.String()...), ' ')
	b = append(append(append(b, "dst="...), tu.Dst.String()...), ' ')
	switch p := tu.Proto; {
	case p == packet.ICMP || p == packet.ICMPv6:
		b = num(b, "type=", uint64(tu.DPort>>8))
		b = num(b, "code=", uint64(tu.DPort&0xff))
		b = num(b, "id=", uint64(tu.SPort))
	case p == packet.GRE:
		b = append(strconv.AppendUint(append(b, "srckey=0x"...), uint64(tu.SPort), 16), ' ')
		b = append(strconv.AppendUint(append(b, "dstkey=0x"...), uint64(tu.DPort), 16), ' ')
	case packet.HasPorts(p):
		b = num(b, "sport=", uint64(tu.SPort))
		b = num(b, "dport=", uint64(tu.DPort))
	}
	if o.Counters {
		b = num(b, "packets=", f.Packets[d])
		b = num(b, "bytes=", f.Bytes[d])
	}
	return b
}

// pad adds a word and blanks up to a width.
func pad(b []byte, s string, width int) []byte {
	b = append(b, s...)
	for n := len(s); n < width; n++ {
		b = append(b, ' ')
	}
	return b
}

// num adds a name and a number, with a blank behind.
func num(b []byte, name string, n uint64) []byte {
	return append(strconv.AppendUint(append(b, name...), n, 10), ' ')
}

// Load puts connections that were read from a dump into the table. What no dump says
// is put in: the marks of NAT follow from the tuples, and TCP windows are taken from
// the next segments without judging them, as for a connection that was picked up in its
// middle.
func (t *Tracker) Load(w *world.World, flows ...Flow) error {
	for i := range flows {
		id, ok := t.alloc(w)
		if !ok {
			return fmt.Errorf("connection %d of %d: the table is full (nf_conntrack_max %d)",
				i+1, len(flows), t.max)
		}
		f := t.Ref(w, id)
		*f = flows[i]
		f.complete()
		t.insert(w, id, f, Original)
		t.insert(w, id, f, Reply)
		t.AddSource(w, id)
	}
	return nil
}

// Foreseen is an expectation as a dump prints it, with its master's original tuple.
type Foreseen struct {
	Expect
	MasterTuple Tuple
}

// LoadExpects puts expectations that were read from a dump into memory. Each needs its
// master to be there.
func (t *Tracker) LoadExpects(w *world.World, list ...Foreseen) error {
	for i := range list {
		e := list[i].Expect
		for id := 1; id < t.flows.In(w.State).Len() && e.Master == 0; id++ {
			f := t.Ref(w, packet.FlowID(id))
			if f.Is(Confirmed) && !f.Is(Dying) && f.Tuples[Original] == list[i].MasterTuple {
				e.Master = packet.FlowID(id)
			}
		}
		if e.Master == 0 {
			return fmt.Errorf("expectation %d: its master %v > %v is not tracked", i+1,
				list[i].MasterTuple.Src, list[i].MasterTuple.Dst)
		}
		t.AddExpect(w, e)
	}
	return nil
}

// ParseState returns the state that conntrack's word stands for in a protocol.
func ParseState(proto uint8, word string) (TCPState, bool) {
	names := tcpNames[:]
	switch proto {
	case packet.TCP:
		if word == "LISTEN" { // how old tools call SYN_SENT2
			return TCPSynSent2, true
		}
	case packet.SCTP:
		names = sctpNames[:]
	case packet.DCCP:
		names = dccpNames[:]
	default:
		return 0, false
	}
	for i, n := range names {
		if n == word {
			return TCPState(i), true
		}
	}
	return 0, false
}

// complete derives what a dump does not say of a connection.
func (f *Flow) complete() {
	f.Status |= Confirmed | NATDoneMask
	o, r := &f.Tuples[Original], &f.Tuples[Reply]
	plain, _ := o.Invert()
	if r.Dst != plain.Dst || f.Proto() != packet.ICMP && r.DPort != plain.DPort {
		f.Status |= SrcNAT
	}
	if r.Src != plain.Src || f.Proto() != packet.ICMP && r.SPort != plain.SPort {
		f.Status |= DstNAT
	}
	if f.Proto() == packet.ICMP && r.SPort != plain.SPort {
		f.Status |= SrcNAT
	}
	if f.Helper != NoHelper {
		f.Status |= HelperBit
	}
	if f.Proto() == packet.TCP {
		for d := range f.TCP.Seen {
			f.TCP.Seen[d].Flags |= TCPSackPerm | TCPBeLiberal
		}
	}
}
