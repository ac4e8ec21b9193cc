package lab

import (
	"encoding/binary"
	"slices"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
)

// TCP flags that decide which segment answers.
const (
	fin = uint8(header.TCPFlagFin)
	syn = uint8(header.TCPFlagSyn)
	rst = uint8(header.TCPFlagRst)
	ack = uint8(header.TCPFlagAck)
)

// converse walks the answer of whoever got the question's packet back.
func (j *Journey) converse() {
	o := j.end(1)
	if o == nil || o.Result != trace.Delivered && o.Result != trace.Transmitted {
		return
	}
	ip := o.Frame
	if o.Result == trace.Transmitted && len(ip) > packet.EthernetLen {
		ip = ip[packet.EthernetLen:]
	}
	back := AnswerTo(ip)
	n := j.lab.index(o.Host.Name)
	if back == nil || n < 0 || o.Result == trace.Delivered && o.Socket == 0 {
		return
	}
	k := j.begin(n, o.Host)
	if o.Result == trace.Delivered {
		o.Host.Send(k, walk.Local{IP: back})
	} else {
		f := o.Frame
		o.Host.Receive(k, o.Dev, packet.Frame(packet.MAC(f[6:12]), packet.MAC(f[:6]), back))
	}
	j.ReplySKB = j.skbs + 1
	j.done(n, k, Reply)
	j.run()
	if j.q.Data && j.Err == nil {
		j.talk()
	}
}

// talk sends the first data after a SYN that was answered, by the way that the SYN set off
// on.
func (j *Journey) talk() {
	o := j.end(j.ReplySKB)
	if o == nil || o.Host.Name != j.q.Host.Name || o.Result == trace.Dropped ||
		o.Result == trace.Delivered && o.Socket == 0 {
		return
	}
	data := dataAfter(bare(o))
	if data == nil {
		return
	}
	n := j.lab.index(j.q.Host.Name)
	k := j.begin(n, j.q.Host)
	switch {
	case j.q.Local != nil && o.Result == trace.Delivered:
		l := *j.q.Local
		l.IP = data
		j.q.Host.Send(k, l)
	case j.q.Local == nil && o.Result == trace.Transmitted:
		f := j.q.Frame
		j.q.Host.Receive(k, j.q.In, packet.Frame(packet.MAC(f[:6]), packet.MAC(f[6:12]), data))
	default:
		return
	}
	j.DataSKB = j.skbs + 1
	j.done(n, k, Data)
	j.run()
}

// bare is the IP packet of an outcome.
func bare(o *Outcome) []byte {
	if o.Result == trace.Transmitted {
		return packetIn(o.Frame)
	}
	return o.Frame
}

// packetIn is the IP packet in a frame.
func packetIn(frame []byte) []byte {
	p, ok := packet.FromFrame(slices.Clone(frame))
	if !ok {
		return nil
	}
	return p.IP()
}

// payload is what the first segment with data says.
const payload = "hello"

// dataAfter is the segment that a client sends when it has got a SYN-ACK; nil for another
// packet.
func dataAfter(ip []byte) []byte {
	p, ok := packet.FromIP(slices.Clone(ip))
	if !ok || p.Protocol() != packet.TCP || len(p.L4()) < 20 || p.L4()[13]&(syn|ack|rst) != syn|ack {
		return nil
	}
	b := AnswerTo(ip)
	if b == nil {
		return nil
	}
	b = append(b, payload...)
	b[20+13] |= uint8(header.TCPFlagPsh)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	packet.FixIP4(b)
	sumTCP(b)
	return b
}

// end is how a packet ended. One that went into a tunnel, or came out of one, went on as
// another.
func (j *Journey) end(skb int) *Outcome {
	for i := range j.Outcomes {
		o := &j.Outcomes[i]
		if o.SKB != skb {
			continue
		}
		if next := j.child(skb); o.WentOn() && next > skb {
			return j.end(next)
		}
		return o
	}
	return nil
}

// child is the packet that was made of another one, zero for none.
func (j *Journey) child(skb int) int {
	for _, l := range j.Legs {
		for _, e := range l.Trace.Events {
			if made, of := trace.Made(e); of == skb {
				return made
			}
		}
	}
	return 0
}

// AnswerTo is the packet that a willing receiver would send back; nil where there is
// none.
func AnswerTo(ip []byte) []byte {
	p, ok := packet.FromIP(ip)
	if !ok || !p.Is4() || p.IsFragment() {
		return nil
	}
	s := &packet.Sentence{Proto: p.Protocol(), Src: p.Dst(), Dst: p.Src(), TTL: 64}
	s.DPort, s.SPort, _ = p.Ports()
	l4 := p.L4()
	switch {
	case s.Proto == packet.UDP && len(l4) >= 8:
	case s.Proto == packet.TCP && len(l4) >= 20:
		if s.Flags = answerFlags(l4[13]); s.Flags == 0 {
			return nil
		}
	case s.Proto == packet.ICMP && len(l4) >= 8 && l4[0] == 8:
		s.ICMPType, s.ICMPID = 0, binary.BigEndian.Uint16(l4[4:])
		s.Given |= packet.GivenICMP
	default:
		return nil
	}
	b, err := s.Packet()
	if err != nil {
		return nil
	}
	if s.Proto == packet.TCP {
		acknowledge(b, l4)
	}
	return b
}

// answerFlags are the flags of the segment that answers; zero for none.
func answerFlags(f uint8) uint8 {
	switch {
	case f&rst != 0:
		return 0
	case f&(syn|ack) == syn:
		return syn | ack
	case f&fin != 0:
		return fin | ack
	}
	return ack
}

// acknowledge makes the numbers of a segment those that answer another.
func acknowledge(b, l4 []byte) {
	seq := binary.BigEndian.Uint32(l4[4:])
	if l4[13]&(syn|fin) != 0 {
		seq++
	}
	t := b[20:]
	if theirs := binary.BigEndian.Uint32(l4[8:]); l4[13]&ack != 0 {
		binary.BigEndian.PutUint32(t[4:], theirs)
	}
	binary.BigEndian.PutUint32(t[8:], seq)
	sumTCP(b)
}

// sumTCP writes the checksum of the segment behind an IP header without options.
func sumTCP(b []byte) {
	t := b[20:]
	t[16], t[17] = 0, 0
	sum := packet.PseudoSum(packet.AddrFrom4(b[12:]), packet.AddrFrom4(b[16:]), packet.TCP, len(t))
	binary.BigEndian.PutUint16(t[16:], packet.Fold(packet.Sum16(t, sum)))
}
