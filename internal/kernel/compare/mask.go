package compare

import (
	"bytes"
	"encoding/hex"
	"slices"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// bits is a packet that somebody got: a device's frame, or what was delivered.
type bits struct {
	skb   int // of the engine, zero for the kernel's
	dev   string
	ip    int // where the IP header is
	bytes []byte
	early bool // seen before IPVS and nat INPUT could give it other ends
}

func (b bits) text() string {
	if b.dev == "" {
		return hex.EncodeToString(b.bytes)
	}
	return b.dev + " " + hex.EncodeToString(b.bytes)
}

// mask knows which packets of a question have bytes that the kernel draws. All others
// are compared as they are.
type mask struct {
	// answers are the packets that the host made by itself, wraps those that others are in,
	// and quotes those that answer an answer.
	answers, wraps, quotes map[int]bool
}

func newMask(events []trace.Event) *mask {
	m := &mask{answers: map[int]bool{}, wraps: map[int]bool{},
		quotes: map[int]bool{}}
	pieces, outer, top, wrapped := false, false, 0, 0
	begun, cut := map[int]bool{}, false
	for _, e := range events {
		skb := e.Base().SKB
		switch e.(type) {
		case *trace.Receive, *trace.LocalOut:
			begun[skb] = true
		case *trace.Fragment: // its pieces have numbers of their own
			cut = true
		case *trace.Neigh:
			if !begun[skb] && !cut { // it waited since an earlier question, which knew what it is
				m.answers[skb], m.wraps[skb] = true, true
			}
		}
		switch e := e.(type) {
		case *trace.Encap:
			wrapped = skb
		case *trace.Fragment:
			pieces, outer = m.answers[skb], m.wraps[skb]
		case *trace.Neigh, *trace.Transmit: // a piece has a number of its own
			m.answers[skb] = m.answers[skb] || pieces && skb > top
			m.wraps[skb] = m.wraps[skb] || outer && skb > top
		case *trace.LocalOut:
			m.quotes[e.SKB] = m.answers[e.Parent]
			m.answers[e.SKB] = m.answers[e.SKB] || e.Parent != 0
			m.wraps[e.SKB] = wrapped != 0 && e.Parent == wrapped
		case *trace.Receive: // the host's own copy of an answer
			m.answers[e.SKB] = m.answers[e.SKB] || m.answers[e.Parent]
			m.quotes[e.SKB] = m.quotes[e.SKB] || m.quotes[e.Parent]
		}
		top = max(top, skb)
	}
	return m
}

// compare pairs the engine's packets with the kernel's. Nil for no difference.
func (m *mask) compare(what string, got, want []bits) *Diff {
	left := slices.Clone(want)
	var odd []bits // of the engine, those that the kernel did not make
	for _, g := range got {
		i := slices.IndexFunc(left, func(w bits) bool { return m.same(g, w) })
		if i < 0 {
			odd = append(odd, g)
			continue
		}
		left = slices.Delete(left, i, i+1)
	}
	d := newDiff(what, texts(odd), texts(left))
	if d != nil {
		d.Engines, d.Kernels = texts(got), texts(want)
	}
	return d
}

func texts(list []bits) []string {
	var out []string
	for _, b := range list {
		out = append(out, b.text())
	}
	slices.Sort(out)
	return out
}

func (m *mask) same(got, want bits) bool {
	if got.dev != want.dev {
		return false
	}
	g, w := bytes.Clone(got.bytes), bytes.Clone(want.bytes)
	if m.answers[got.skb] {
		hideID(g, got.ip, m.wraps[got.skb])
		hideID(w, want.ip, m.wraps[got.skb])
	}
	if m.quotes[got.skb] {
		hideID(g, quoted(g, got.ip), false)
		hideID(w, quoted(w, want.ip), false)
	}
	if want.early {
		hideEnds(g)
		hideEnds(w)
	}
	return bytes.Equal(g, w)
}

// quoted is where the packet begins that an ICMP error quotes; the end for none.
func quoted(b []byte, at int) int {
	const icmpHeader = 8
	if !isIP4(b, at) || b[at+9] != packet.ICMP {
		return len(b)
	}
	return at + int(b[at]&0xf)*4 + icmpHeader
}

// hideEnds clears what IPVS and SNAT in INPUT change of an IP packet: addresses, ports and
// checksums. It takes the first words behind the header whole.
func hideEnds(b []byte) {
	const words = 12 // SCTP's checksum ends there
	if !isIP4(b, 0) {
		return
	}
	clear(b[10:20])
	at := min(int(b[0]&0xf)*4, len(b))
	clear(b[at:min(at+words, len(b))])
}

func isIP4(b []byte, at int) bool { return len(b) >= at+20 && b[at]>>4 == 4 }

// hideID clears what the kernel draws for the ICMP packets that it makes and for the outer
// headers of tunnels: the IP id, and with it the header's checksum. A reset's id is zero.
//
// Kernel: net/ipv4/route.c, __ip_select_ident.
func hideID(b []byte, at int, wraps bool) {
	if isIP4(b, at) && (wraps || b[at+9] == packet.ICMP) {
		clear(b[at+4 : at+6])
		clear(b[at+10 : at+12])
	}
}

func (p *pair) frames(t *trace.Trace) []bits {
	var out []bits
	for i := range t.Outcomes {
		if o := &t.Outcomes[i]; o.Result == trace.Transmitted {
			out = append(out, bits{o.SKB, p.host.Links.Name(o.Dev), packet.EthernetLen, o.Frame, false})
		}
	}
	return out
}

func kernelFrames(a *kernel.Answer) []bits {
	var out []bits
	for _, f := range a.Out {
		out = append(out, bits{0, f.Dev, packet.EthernetLen, f.Bytes, false})
	}
	return out
}

func deliveries(t *trace.Trace) []bits {
	var out []bits
	for _, e := range t.Events {
		if d, ok := e.(*trace.Deliver); ok {
			out = append(out, bits{d.SKB, "", 0, d.Frame, false})
		}
	}
	return out
}

func kernelDeliveries(a *kernel.Answer) []bits {
	var out []bits
	for i, d := range a.Delivered {
		out = append(out, bits{0, "", 0, d, a.Inputs[i].Early})
	}
	return out
}
