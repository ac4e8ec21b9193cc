package cli

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/lab"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/report"
	"github.com/hookpath/hookpath/trace"
)

// capturing walks the packets of a capture in their order, each with what the ones before left
// behind.
type capturing struct {
	f     *traceFlags
	e     *Env
	l     *hosts
	n     *node
	all   []captured
	from  lab.States
	talks map[talkKey]*talk
	told  report.Capture
	seen  map[string]bool // the interfaces that the capture shows
	// sent are packets that walks sent out there, which the capture is yet to show.
	sent map[talkKey]int
}

// talkKey is a conversation by its two ends.
type talkKey struct {
	proto        uint8
	src, dst     packet.Addr
	sport, dport uint16
}

// talk is a conversation on its way.
type talk struct {
	told *report.Conversation
	// last is how the last packet of each way ended, where it arrived.
	last [2]*report.Outcome
}

// capture answers --pcap.
func (f *traceFlags) capture(e *Env, l *hosts) error {
	all, err := readPcap(f.pcap)
	if err != nil {
		return err
	}
	if f.packet > len(all) {
		return fmt.Errorf("--packet %d: %s has %d packets", f.packet, f.pcap, len(all))
	}
	c, err := newCapturing(f, e, l, all)
	if err != nil {
		return err
	}
	for i := range all {
		c.progress(i)
		if err := c.walk(i); err != nil {
			return fmt.Errorf("packet %d: %w", i+1, err)
		}
		if i+1 == f.packet {
			break
		}
	}
	return c.end()
}

func newCapturing(f *traceFlags, e *Env, l *hosts, all []captured) (*capturing, error) {
	n, err := l.host(f.host)
	if err != nil {
		return nil, err
	}
	c := &capturing{f: f, e: e, l: l, n: n, all: all, from: l.joined().Start(), talks: map[talkKey]*talk{}, seen: map[string]bool{},
		sent: map[talkKey]int{}}
	for i := range all {
		c.seen[c.device(&all[i])] = true
	}
	return c, nil
}

// progress tells a terminal how far the walk is.
func (c *capturing) progress(i int) {
	const every = 1000
	if c.e.Progress && i > 0 && i%every == 0 {
		fmt.Fprintf(c.e.Err, "\r\x1b[Kpacket %d of %d", i, len(c.all))
	}
}

// end prints what became of the conversations, and gives the exit status.
func (c *capturing) end() error {
	if c.e.Progress {
		fmt.Fprint(c.e.Err, "\r\x1b[K")
	}
	if c.f.packet > 0 {
		return exitOf(c.told.Lost > 0 && c.told.LastLost == c.f.packet)
	}
	if c.f.format == "text" {
		colour := c.f.colour == "always" || c.f.colour == "auto" && c.e.Colour
		text := c.told.Text(report.Style{Width: c.e.Width, Colour: colour}, c.f.quiet)
		if _, err := c.e.Out.Write(text); err != nil {
			return err
		}
	}
	return exitOf(c.told.Lost > 0)
}

func exitOf(lost bool) error {
	if lost {
		return exitError(exitDropped)
	}
	return nil
}

// walk walks one packet of the capture.
func (c *capturing) walk(i int) error {
	p, ok := packet.FromFrame(slices.Clone(c.all[i].frame))
	if !ok || !p.Is4() {
		c.told.Others++
		if !ok || p.EtherType() != packet.EtherARP {
			return nil
		}
		_, err := c.arrives(i, c.all[i].frame)
		return err
	}
	c.told.Packets++
	t, way := c.talk(p)
	if !c.ours(&c.all[i], p) {
		a, err := c.arrives(i, c.all[i].frame)
		if err != nil {
			return err
		}
		return c.file(i, a, t, way)
	}
	return c.left(i, p, t, way)
}

// talk finds the conversation of a packet, and which way it goes: 0 is that of the first one.
func (c *capturing) talk(p *packet.Packet) (*talk, int) {
	k := keyOf(p)
	if t := c.talks[k]; t != nil {
		return t, 0
	}
	if t := c.talks[k.back()]; t != nil {
		return t, 1
	}
	t := &talk{told: c.told.Begin(p)}
	c.talks[k] = t
	return t, 0
}

// keyOf is the conversation of a packet, as seen from the packet's source.
func keyOf(p *packet.Packet) talkKey {
	sport, dport := talkPorts(p)
	return talkKey{p.Protocol(), p.Src(), p.Dst(), sport, dport}
}

// back is the conversation as seen from the other end.
func (k talkKey) back() talkKey { return talkKey{k.proto, k.dst, k.src, k.dport, k.sport} }

// talkPorts are a packet's ports; the id of an echo stands for both.
func talkPorts(p *packet.Packet) (src, dst uint16) {
	if src, dst, ok := p.Ports(); ok {
		return src, dst
	}
	if id, ok := echoID(p); ok {
		return id, id
	}
	return 0, 0
}

// echoID is the id of an ICMP echo, asked or answered.
func echoID(p *packet.Packet) (uint16, bool) {
	l4 := p.L4()
	if p.Protocol() != packet.ICMP || len(l4) < 8 || l4[0] != 0 && l4[0] != 8 {
		return 0, false
	}
	return binary.BigEndian.Uint16(l4[4:]), true
}

// ours tells the packets that the host itself sent.
func (c *capturing) ours(p *captured, ip *packet.Packet) bool {
	if p.sent {
		return true
	}
	src := packet.MAC(p.frame[6:12])
	if p.bare && src == (packet.MAC{}) {
		_, own := c.n.Links.Owner(ip.Src())
		return own
	}
	return slices.ContainsFunc(c.n.macs(), func(m packet.MAC) bool { return m == src })
}

// macs are the addresses of the host's interfaces.
func (n *node) macs() []packet.MAC {
	var out []packet.MAC
	for i := range n.Links.All() {
		if m := n.Links.All()[i].MAC; m != (packet.MAC{}) {
			out = append(out, m)
		}
	}
	return out
}

// device is the interface that a packet was seen on.
func (c *capturing) device(p *captured) string {
	if c.f.in != "" {
		return c.f.in
	}
	if c.n.Links.ByName(p.dev) != nil {
		return p.dev
	}
	if l := c.n.Links.ByIndex(packet.Dev(p.index)); p.index > 0 && l != nil {
		return l.Name
	}
	c.told.In = (&asking{l: c.l, n: c.n}).firstDevice()
	return c.told.In
}

// at is the time of a packet, from the first one on, which counts as the snapshot's.
func (c *capturing) at(i int) *float64 {
	at := max(c.all[i].at.Sub(c.all[0].at).Seconds(), 0)
	return &at
}

// arrives walks a frame that comes in.
func (c *capturing) arrives(i int, frame []byte) (*answer, error) {
	dev := c.device(&c.all[i])
	frame = slices.Clone(frame)
	if l := c.n.Links.ByName(dev); l != nil && packet.MAC(frame[:6]) == (packet.MAC{}) {
		copy(frame, l.MAC[:]) // the capture has no destination: it was taken by this host
	}
	return c.ask(i, &question{Host: c.n.Name, In: dev, bytes: frame})
}

// left accounts for a packet that the host sent. An earlier walk may have sent it; else it is
// the answer of the one that the last packet of the other way got to, with the ends that it has
// there; else a program's own.
func (c *capturing) left(i int, p *packet.Packet, t *talk, way int) error {
	if k := keyOf(p); c.sent[k] > 0 {
		c.sent[k]--
		t.told.Count(way)
		return nil
	}
	q := c.answerOf(p, t.last[1-way])
	if q == nil {
		if _, own := c.n.Links.Owner(p.Src()); !own {
			c.told.Unplaced++
			t.told.Count(way)
			return nil
		}
		q = &question{Host: c.n.Name, Out: true, bytes: slices.Clone(p.IP())}
	}
	a, err := c.ask(i, q)
	if err != nil {
		return err
	}
	err = c.file(i, a, t, way)
	if k := keyOf(p); c.sent[k] > 0 { // the capture shows it already
		c.sent[k]--
	}
	return err
}

// answerOf is the captured packet as it came in, or as a program sent it, before the host gave
// it the ends that the capture shows: it answers a packet that ended so.
func (c *capturing) answerOf(p *packet.Packet, o *report.Outcome) *question {
	if o == nil || o.Host.Name != c.n.Name {
		return nil
	}
	to, ok := packet.FromIP(slices.Clone(o.Frame))
	if o.Result == trace.Transmitted {
		to, ok = packet.FromFrame(slices.Clone(o.Frame))
	}
	if !ok || !to.Is4() || to.Protocol() != p.Protocol() {
		return nil
	}
	b, ok := packet.FromIP(slices.Clone(p.IP()))
	if !ok {
		return nil
	}
	readdress(b, to)
	if o.Result == trace.Delivered {
		return &question{Host: c.n.Name, Out: true, bytes: b.IP()}
	}
	if b.TTL() < 255 {
		b.SetTTL(b.TTL() + 1)
	}
	f := o.Frame
	return &question{Host: c.n.Name, In: c.n.Links.Name(o.Dev),
		bytes: packet.Frame(packet.MAC(f[6:12]), packet.MAC(f[:6]), b.IP())}
}

// leastL4 is how long a transport header must be for its ports and checksum to be there.
func leastL4(proto uint8) int {
	switch proto {
	case packet.TCP:
		return 20
	case packet.SCTP:
		return 12
	}
	return 8
}

// readdress gives an answer the ends of the packet that it answers.
func readdress(b, to *packet.Packet) {
	sport, dport, ports := to.Ports()
	if _, _, have := b.Ports(); ports && have && len(b.L4()) >= leastL4(b.Protocol()) {
		ipvs.Rewrite(b, true, to.Dst(), dport)
		ipvs.Rewrite(b, false, to.Src(), sport)
		return
	}
	ip, src, dst := b.IP(), to.Dst(), to.Src()
	copy(ip[12:16], src.Bytes())
	copy(ip[16:20], dst.Bytes())
	packet.FixIP4(ip)
	id, ok := echoID(to)
	old, have := echoID(b)
	if ok && have && id != old {
		l4 := b.L4()
		was := slices.Clone(l4[4:6])
		binary.BigEndian.PutUint16(l4[4:], id)
		packet.Replace(l4[2:4], was, l4[4:6])
	}
}

// ask walks a question and goes on from its most probable branch.
func (c *capturing) ask(i int, q *question) (*answer, error) {
	q.At, q.skips = c.at(i), c.f.allRules
	a, err := c.l.ask(q, c.from)
	if err != nil {
		return nil, err
	}
	a.ID = strconv.Itoa(i + 1)
	if len(a.Branches) == 0 {
		return nil, errors.New("nothing was recorded")
	}
	if len(a.Branches) > 1 {
		c.told.Diced++
	}
	c.from = a.after[0]
	if c.f.format == "json" || i+1 == c.f.packet {
		return a, c.f.print(c.e, &a.Answer)
	}
	return a, nil
}

// file notes how a packet ended, and what walks sent that the capture is yet to show.
func (c *capturing) file(i int, a *answer, t *talk, way int) error {
	b := &a.Branches[0]
	t.told.Count(way)
	t.last[way] = nil
	if b.Arrived() {
		t.last[way] = b.Main()
		t.told.End(way, b)
	} else {
		c.told.Lose(t.told, i+1, c.all[i].at.Sub(c.all[0].at), a.Answer)
	}
	for k := range b.Outcomes {
		o := &b.Outcomes[k]
		if o.Result != trace.Transmitted || o.Host.Name != c.n.Name || !c.seen[c.n.Links.Name(o.Dev)] {
			continue
		}
		if p, ok := packet.FromFrame(slices.Clone(o.Frame)); ok && p.Is4() {
			c.sent[keyOf(p)]++
		}
	}
	return nil
}
