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
	said map[packet.Addr][]voice // who has an address, in the order of the answers
}

// voice is a host that answers by ARP, on one of its interfaces.
type voice struct {
	n   names
	dev packet.Dev
	mac packet.MAC
}

func (v voice) String() string {
	return fmt.Sprintf("%s %s answers %s", v.n.h.Name, v.n.dev(v.dev), v.mac)
}

// arp finds the ARP packets that packets on their way set off.
func (b *Branch) arp() asking {
	a := asking{skbs: map[int]bool{}, said: map[packet.Addr][]voice{}}
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
				a.hear(p.Sender, voice{names{s.Host}, e.Dev, p.SenderMAC})
			}
		}
	}
	return a
}

func (a *asking) hear(addr packet.Addr, v voice) {
	if !slices.Contains(a.said[addr], v) {
		a.said[addr] = append(a.said[addr], v)
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
	if len(said) == 0 {
		return "no MAC address: asked by ARP"
	}
	text := "asked by ARP, " + said[0].String()
	for _, v := range said[1:] {
		text += ", then " + v.String()
	}
	return text
}

// rivals is set where several interfaces answer for one address: nothing says which of them
// the asker hears first, and whose MAC address it keeps.
func (b *Branch) rivals() *cause {
	a := b.arp()
	for i := range b.Steps {
		e, ok := b.Steps[i].Event.(*trace.Neigh)
		if !ok || e.Found || len(a.said[e.Addr]) < 2 {
			continue
		}
		n := names{b.Steps[i].Host}
		who := make([]string, len(a.said[e.Addr]))
		for i, v := range a.said[e.Addr] {
			who[i] = v.n.h.Name + " " + v.n.dev(v.dev)
		}
		return &cause{
			text: fmt.Sprintf("%s answer both who has %s; the first of them gets what is sent there",
				strings.Join(who, " and "), e.Addr),
			place: fmt.Sprintf("%s, neighbour %s on %s", n.h.Name, e.Addr, n.dev(e.Dev)),
			fixes: silence(e.Addr, a.said[e.Addr]),
		}
	}
	return nil
}

// raced is the cause where the wrong one of several answered first.
func (f *finder) raced() []cause {
	if c := f.b.rivals(); c != nil {
		return []cause{*c}
	}
	return nil
}

// silence keeps hosts from answering for an address that another of their interfaces has:
// a real server of direct routing has it on lo.
func silence(addr packet.Addr, who []voice) []Fix {
	var out []Fix
	for _, v := range who {
		owner, ok := v.n.h.Links.Owner(addr)
		if !ok || owner == v.dev {
			continue
		}
		out = append(out, Fix{Host: v.n.h.Name, Commands: []string{
			"sysctl -w net.ipv4.conf.all.arp_ignore=1", "sysctl -w net.ipv4.conf.all.arp_announce=2"}})
	}
	return out
}
