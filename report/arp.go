package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// asking are the ARP packets of a branch. They are told where a packet waits for the
// answer, not where they pass.
type asking struct {
	skbs map[int]bool
	said map[packet.Addr][]string // who has an address, in the order of the answers
}

// arp finds the ARP packets that packets on their way set off.
func (b *Branch) arp() asking {
	a := asking{skbs: map[int]bool{}, said: map[packet.Addr][]string{}}
	for i := range b.Steps {
		s := &b.Steps[i]
		switch e := s.Event.(type) {
		case *trace.Receive:
			if _, ok := arpOf(e.Frame); ok && e.SKB != 1 {
				a.skbs[e.SKB] = true
			}
		case *trace.Transmit:
			p, ok := arpOf(e.Frame)
			if !ok {
				continue
			}
			a.skbs[e.SKB] = true
			if p.Op == link.ARPReply {
				a.hear(p, fmt.Sprintf("%s %s answers %s", s.Host.Name, names{s.Host}.dev(e.Dev),
					p.SenderMAC))
			}
		}
	}
	return a
}

func (a *asking) hear(p link.ARP, text string) {
	if !slices.Contains(a.said[p.Sender], text) {
		a.said[p.Sender] = append(a.said[p.Sender], text)
	}
}

// arpOf reads the ARP packet in a frame.
func arpOf(frame []byte) (link.ARP, bool) {
	if len(frame) < packet.EthernetLen || bareIP(frame) {
		return link.ARP{}, false
	}
	p, ok := packet.FromFrame(slices.Clone(frame))
	if !ok || p.EtherType() != packet.EtherARP {
		return link.ARP{}, false
	}
	return link.ParseARP(p.IP())
}

// aside tells whether a step is an ARP packet's.
func (a *asking) aside(s *Step) bool { return a.skbs[s.Event.Base().SKB] }

// answers says what came of asking for a neighbour.
func (a *asking) answers(e *trace.Neigh) string {
	said := a.said[e.Addr]
	switch len(said) {
	case 0:
		return "no MAC address: asked by ARP"
	case 1:
		return "asked by ARP, " + said[0]
	}
	return "asked by ARP, " + strings.Join(said, ", then ")
}
