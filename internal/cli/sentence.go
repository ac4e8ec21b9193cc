package cli

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
)

// fromSentence turns a sentence into a question, and tells what it chose where the
// sentence does not say.
func (l *hosts) fromSentence(text, host string) (*question, []string, error) {
	if m := promptPattern.FindStringSubmatch(text); m != nil {
		host, text = m[1], text[len(m[0]):]
	}
	s, err := packet.ParseSentence(text)
	if err != nil {
		return nil, nil, err
	}
	if err := unsupportedWords(s); err != nil {
		return nil, nil, err
	}
	a := &asking{l: l, s: s, q: &question{}}
	a.chosen = s.Complete()
	if err := a.place(host); err != nil {
		return nil, nil, err
	}
	ip, err := s.Packet()
	if err != nil {
		return nil, nil, err
	}
	a.q.bytes = ip
	if !s.Local {
		return a.q, a.chosen, a.frame(ip)
	}
	a.local()
	return a.q, a.chosen, nil
}

func unsupportedWords(s *packet.Sentence) error {
	switch {
	case s.CT == "invalid":
		return fmt.Errorf("ct invalid: say what makes the packet so, for example flags FIN,SYN")
	case s.CT == "untracked":
		return fmt.Errorf("ct untracked: a rule does that, for example " +
			"--with 'iptables -t raw -I PREROUTING -j CT --notrack'")
	case s.CT == "related" && s.Proto != packet.TCP && s.Proto != packet.UDP:
		return fmt.Errorf("ct related: tcp and udp connections are expected by others; ask about an " +
			"ICMP error with --frame")
	case s.Has(packet.GivenVLAN) && s.Local:
		return fmt.Errorf("vlan: a program on the host does not choose it: the interface does")
	}
	return nil
}

// asking is a sentence on its way to a question.
type asking struct {
	l      *hosts
	s      *packet.Sentence
	q      *question
	n      *node
	chosen []string
}

func (a *asking) choose(format string, v ...any) {
	a.chosen = append(a.chosen, fmt.Sprintf(format, v...))
}

// place finds the host and the interface.
func (a *asking) place(host string) error {
	s := a.s
	name := s.In + s.Out
	if s.In != "" {
		name = s.In
	}
	if h, _, ok := strings.Cut(name, ":"); ok && a.l.find(h) != nil {
		host = h
		s.In = strings.TrimPrefix(s.In, h+":")
		s.Out = strings.TrimPrefix(s.Out, h+":")
	}
	if host == "" && len(a.l.nodes) > 1 {
		host = a.l.nodes[0].Name
		if n := a.l.owner(s.Src); n != nil {
			host = n.Name
		}
		a.choose("on host %s", host)
	}
	n, err := a.l.host(host)
	if err != nil {
		return err
	}
	a.n, a.q.Host = n, n.Name
	if s.In == "" && !s.Local {
		a.chooseIn()
	}
	return a.hints()
}

// chooseIn takes the interface that the route back to the source names. A source of
// the host's own makes the packet a local one.
func (a *asking) chooseIn() {
	s, h := a.s, a.n.Host
	if s.Src.IsZero() {
		s.Local = true
		a.choose("sent by a program on %s", h.Name)
		return
	}
	if _, own := h.Links.Owner(s.Src); own {
		s.Local = true
		a.choose("sent by a program on %s, which owns %s", h.Name, s.Src)
		return
	}
	if _, _, open := h.Links.Open(); !open || !h.Config().OpenRoutes {
		w := h.NewWorld(h.Memory().Fork())
		d := h.Routes.Output(w, nil, &route.Flow{Dst: s.Src})
		if d.Err == 0 && d.Kind == trace.Unicast && d.Out != 0 {
			s.In = h.Links.Name(d.Out)
			a.choose("in %s (its route back to %s)", s.In, s.Src)
			return
		}
	}
	s.In = a.firstDevice()
	a.choose("in %s (no route back to %s says where from)", s.In, s.Src)
}

// firstDevice is the first interface that is not lo; eth0 where none is known.
func (a *asking) firstDevice() string {
	for i := range a.n.Links.All() {
		if l := &a.n.Links.All()[i]; !l.Is(link.LoopbackFlag) {
			return l.Name
		}
	}
	return "eth0"
}

// hints are what the sentence says about the way where the routes are open.
func (a *asking) hints() error {
	a.q.hint.Local, a.q.hint.Forward = a.s.ToHost, a.s.Forward
	if a.s.In != "" {
		if _, err := a.n.device(a.s.In); err != nil {
			return err
		}
	}
	if a.s.Out == "" {
		return nil
	}
	if !a.n.Config().OpenRoutes {
		return fmt.Errorf("out %s: the routes of host %s decide that", a.s.Out, a.n.Name)
	}
	dev, err := a.n.device(a.s.Out)
	a.q.hint.Out = dev
	return err
}

// frame makes the question one of a frame that arrives.
func (a *asking) frame(ip []byte) error {
	s := a.s
	if s.Src.IsZero() {
		return fmt.Errorf("the source is missing: \"tcp SOURCE to DESTINATION in %s\"", s.In)
	}
	l := a.n.Links.ByName(s.In)
	if l == nil {
		return fmt.Errorf("host %s has no interface %q", a.n.Name, s.In)
	}
	dst, src := l.MAC, a.neighbour(l.Index)
	if s.Has(packet.GivenMAC) {
		dst, src = s.MACDst, s.MACSrc
	}
	a.q.In = l.Name
	a.q.bytes = packet.Frame(dst, src, ip)
	if s.Has(packet.GivenVLAN) {
		a.vlan(l)
	}
	a.q.ct = s.CT
	if s.Has(packet.GivenMark) {
		return fmt.Errorf("mark: a frame has none when it arrives; add out for a packet that a " +
			"program sends")
	}
	return nil
}

// vlan puts the question to the VLAN device that takes the tagged frame; where there is
// none, the frame keeps its tag.
//
// Kernel: net/8021q/vlan_core.c, vlan_do_receive.
func (a *asking) vlan(l *link.Link) {
	for i := range a.n.Links.All() {
		if v := &a.n.Links.All()[i]; v.Lower == l.Index && v.VLAN == a.s.VLAN && v.VLAN != 0 {
			a.choose("%s takes VLAN %d of %s", v.Name, v.VLAN, l.Name)
			a.q.In = v.Name
			return
		}
	}
	const ends = packet.EthernetLen - 2 // of the addresses
	tag := []byte{0x81, 0, byte(a.s.VLAN >> 8), byte(a.s.VLAN)}
	a.q.bytes = slices.Insert(a.q.bytes, ends, tag...)
}

// neighbour is the MAC address of the source, where the host knows it.
func (a *asking) neighbour(dev packet.Dev) packet.MAC {
	for _, n := range a.n.Config().Links.Neighs {
		if n.Dev == dev && n.Addr == a.s.Src {
			return n.MAC
		}
	}
	a.q.unknownMAC = true
	return packet.MAC{2, 0, 0, 0, 0, 1}
}

// local makes the question one of a packet that a program sends.
func (a *asking) local() {
	s, q := a.s, a.q
	q.Out, q.Mark, q.UID, q.GID = true, s.Mark, s.UID, s.GID
	q.unknownUID = !s.Has(packet.GivenUID)
	q.unknownGID = !s.Has(packet.GivenGID)
	q.ct = s.CT
}
