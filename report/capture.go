package report

import (
	"fmt"
	"time"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// Capture is what became of the packets of a capture.
type Capture struct {
	In       string // the interface that was chosen because the capture names none
	Packets  int    // of IPv4
	Others   int    // frames that are something else
	Unplaced int    // packets of the host of which nothing says where they came from
	Diced    int    // packets for which the dice decided: the most probable way was gone on
	Lost     int
	LastLost int // number of the last lost packet
	Talks    []*Conversation
}

// Conversation is the packets between two ends. Way 0 is that of its first packet.
type Conversation struct {
	name  string
	count [2]int
	lost  int
	end   [2]string // how the packets of each way end that arrive
	first *lost
}

// lost is the first packet of a conversation that did not arrive.
type lost struct {
	number int
	at     time.Duration
	answer Answer
}

// Begin begins a conversation with its first packet.
func (c *Capture) Begin(p *packet.Packet) *Conversation {
	sport, dport, ports := p.Ports()
	word := protoWord(p.Protocol())
	if word == "" {
		word = fmt.Sprintf("proto %d", p.Protocol())
	}
	t := &Conversation{name: fmt.Sprintf("%s %s > %s", word, end(p.Src(), sport, ports, false),
		end(p.Dst(), dport, ports, false))}
	c.Talks = append(c.Talks, t)
	return t
}

// Count counts a packet of a way.
func (t *Conversation) Count(way int) { t.count[way]++ }

// End notes how a packet that arrived ended.
func (t *Conversation) End(way int, b *Branch) {
	o := b.Main()
	n := names{o.Host}
	t.end[way] = "delivered to " + n.receiver(o)
	if o.Result == trace.Transmitted {
		t.end[way] = "sent by " + n.dev(o.Dev)
	}
	if len(b.Deps) > 1 {
		t.end[way] += " of " + o.Host.Name
	}
}

// Lose notes a packet that did not arrive, by its number in the capture.
func (c *Capture) Lose(t *Conversation, number int, at time.Duration, a Answer) {
	c.Lost++
	c.LastLost = number
	t.lost++
	if t.first == nil {
		t.first = &lost{number, at, a}
	}
}

// losing is how many conversations lose packets.
func (c *Capture) losing() int {
	n := 0
	for _, t := range c.Talks {
		if t.lost > 0 {
			n++
		}
	}
	return n
}

// Text tells of all conversations, the sum first; quiet leaves away why packets were lost.
func (c *Capture) Text(s Style, quiet bool) []byte {
	if s.Width == 0 {
		s.Width = 100
	}
	p := &page{Style: s}
	if !quiet {
		p.sum(c)
	}
	for _, t := range c.Talks {
		p.conversation(t)
	}
	if quiet {
		return p.Bytes()
	}
	for _, t := range c.Talks {
		if t.first != nil {
			p.loss(t)
		}
	}
	return p.Bytes()
}

// sum prints the totals.
func (p *page) sum(c *Capture) {
	word, good, losing := "PASSES", 1, c.losing()
	text := fmt.Sprintf("%s, %s: all arrive.", plural(len(c.Talks), "conversation"),
		plural(c.Packets, "packet"))
	if losing > 0 {
		word, good = "LOSES", -1
		text = fmt.Sprintf("%s, %s; lost: %s of %s.", plural(len(c.Talks), "conversation"),
			plural(c.Packets, "packet"), plural(c.Lost, "packet"), plural(losing, "conversation"))
	}
	p.headline(word, good, text)
	for _, note := range c.notes() {
		p.wrap("          ", 10, note)
	}
	p.WriteByte('\n')
}

// notes are what a reader must know of the sum.
func (c *Capture) notes() []string {
	var out []string
	if c.In != "" {
		out = append(out, "The capture names no interface: the packets count as seen on "+c.In+" (--in).")
	}
	if c.Others > 0 {
		out = append(out, plural(c.Others, "frame")+" of something else than IPv4 aside.")
	}
	if c.Unplaced > 0 {
		out = append(out, plural(c.Unplaced, "packet")+" of this host not walked: nothing before says who sent them.")
	}
	if c.Diced > 0 {
		out = append(out, "The dice decided for "+plural(c.Diced, "packet")+": the most probable way was gone on.")
	}
	return out
}

// conversation prints a line.
func (p *page) conversation(t *Conversation) {
	fate := ""
	for _, e := range t.end {
		if e != "" && fate != "" {
			fate += "; answers "
		}
		fate += e
	}
	if t.lost > 0 {
		if fate != "" {
			fate = "; " + fate
		}
		fate = fmt.Sprintf("%d lost, the first is packet %d", t.lost, t.first.number) + fate
	}
	if fate == "" {
		fate = "seen on their way out"
	}
	first := fmt.Sprintf("%3d > %3d <  %-46s  ", t.count[0], t.count[1], t.name)
	p.wrap(first, 61, fate)
}

// loss prints why a conversation's first lost packet was lost.
func (p *page) loss(t *Conversation) {
	a := &t.first.answer
	fmt.Fprintf(p, "\npacket %d, after %.3f s: %s\n", t.first.number, t.first.at.Seconds(), t.name)
	v := verdictOf(&a.Branches[0])
	p.headline(v.word, v.good, v.text)
	p.whereWhy(v)
}
