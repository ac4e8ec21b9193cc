package report

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// row is where the question's packet was at one time, and what it looked like.
type row [7]string

// where prints the table of where the packet was, of the most probable branch.
func (p *page) where(a *Answer) {
	if len(a.Branches) == 0 {
		return
	}
	rows := append([]row{{"where", "in", "out", "source", "destination", "mark", "ct"}},
		a.Branches[0].rows()...)
	width := [7]int{}
	for _, r := range rows {
		for i, s := range r {
			width[i] = max(width[i], len(s))
		}
	}
	first := 1 // one host alone needs no name
	for _, r := range rows[1:] {
		if r[0] != rows[1][0] {
			first = 0
		}
	}
	p.WriteByte('\n')
	if len(a.Branches) > 1 {
		p.WriteString("the most probable way:\n")
	}
	for i, r := range rows {
		text := ""
		for k := first; k < len(r)-1; k++ {
			text += fmt.Sprintf("%-*s  ", width[k], r[k])
		}
		if i == 0 {
			p.WriteString(p.colour(dim, text+r[6]) + "\n")
			continue
		}
		p.wrap(text, len(text), r[6])
	}
}

// rows are the places of the question's packet, and of its answer: where it came in or was
// made, and where it left or ended. Where a packet went into a tunnel it goes on as the
// outer one.
func (b *Branch) rows() []row {
	t := tabling{way: b.way(1), roles: b.roles(), ct: "-"}
	if b.Reply != 0 {
		t.answer = b.way(b.Reply)
	}
	for i := range b.Steps {
		t.step(&b.Steps[i])
	}
	if o := b.Main(); o != nil && o.Result == trace.Absorbed {
		t.add(names{o.Host}, "held")
	}
	return t.rows
}

// tabling makes the rows.
type tabling struct {
	way, answer []int
	roles       map[packet.Addr]string
	rows        []row
	last        *trace.Snap // how the packet looked when it was last looked at
	in          string      // by which it came into this host
	ct          string
	back        bool // the rows are the answer's
}

func (t *tabling) step(s *Step) {
	skb := s.Event.Base().SKB
	if t.back = slices.Contains(t.answer, skb); !t.back && !slices.Contains(t.way, skb) {
		return
	}
	n := names{s.Host}
	if p := s.Event.Base().Packet; p != nil {
		t.last = p
	}
	switch e := s.Event.(type) {
	case *trace.Conntrack:
		t.ct = ctText(e)
	case *trace.IPVS:
		if t.ct == "-" && e.State != "" {
			t.ct = "ipvs " + e.State
		}
	case *trace.Receive:
		t.ct, t.in = "-", n.dev(e.Dev)
		t.add(n, "-")
	case *trace.LocalOut:
		if t.ct = "-"; e.Parent == 0 {
			t.in = "-"
		}
		t.add(n, "-")
	case *trace.Transmit:
		t.add(n, n.dev(e.Dev))
	case *trace.Deliver:
		t.add(n, "local")
	case *trace.Drop:
		t.add(n, "drop")
	}
}

// add appends a row. One that looks as the last did, further on its way, takes its place.
func (t *tabling) add(n names, out string) {
	r := row{n.h.Name, t.in, out, "?", "?", "?", t.state()}
	if s := t.last; s != nil {
		r[3] = t.role(s.Src) + end(s.Src, s.SPort, s.HasPorts, s.Free&packet.FreeSrcPort != 0)
		r[4] = t.role(s.Dst) + end(s.Dst, s.DPort, s.HasPorts, s.Free&packet.FreeDstPort != 0)
		r[5] = fmt.Sprintf("%#x", s.Mark)
	}
	if i := len(t.rows) - 1; i >= 0 && t.rows[i].same(r) {
		t.rows[i] = r
		return
	}
	t.rows = append(t.rows, r)
}

// state is the last column: what remembers the connection here, or that it is an answer.
func (t *tabling) state() string {
	switch {
	case !t.back:
		return t.ct
	case t.ct == "-":
		return "answer"
	}
	return "answer, " + t.ct
}

// same tells whether a row goes on with another that had not left its host.
func (r row) same(next row) bool {
	open := r[2] == "-" || r[2] == "local"
	return open && r[0] == next[0] && r[1] == next[1] && [3]string(r[3:6]) == [3]string(next[3:6])
}

func (t *tabling) role(a packet.Addr) string {
	if s := t.roles[a]; s != "" {
		return s + " "
	}
	return ""
}

// roles are the names that addresses have around a load balancer: the client's, the virtual
// one, the director's, the real server's.
func (b *Branch) roles() map[packet.Addr]string {
	out := map[packet.Addr]string{}
	for i := range b.Steps {
		switch e := b.Steps[i].Event.(type) {
		case *trace.IPVS:
			if e.Client.Addr.IsZero() || e.Index < 0 {
				continue
			}
			out[e.Client.Addr], out[e.Virtual.Addr], out[e.Real.Addr] = "CIP", "VIP", "RIP"
		case *trace.Encap:
			if out[e.To] == "RIP" {
				out[e.From] = "DIP"
			}
		}
	}
	return out
}

func ctText(e *trace.Conntrack) string {
	text := e.State.String()
	if e.SNAT {
		text += " SNAT"
	}
	if e.DNAT {
		text += " DNAT"
	}
	return text
}

// tail prints what the answer hung on and how much was looked at.
func (p *page) tail(a *Answer) {
	p.WriteByte('\n')
	if len(a.Branches) > 0 {
		p.wrap("depends on: ", 12, a.Branches[0].dependsText())
		b := &a.Branches[0]
		text := fmt.Sprintf("%s, %s, %d tried, %d matched", plural(len(b.Deps), "host"),
			plural(b.Rules, "rule"), b.Tried, b.Matched)
		if len(a.Branches) > 1 {
			text += fmt.Sprintf("; %d ways", len(a.Branches))
		}
		if a.Cut.Ways > 0 {
			text += fmt.Sprintf("; at least %s more not walked, %.2g %% of the cases",
				plural(a.Cut.Ways, "way"), 100*a.Cut.Prob)
		}
		p.wrap("coverage:   ", 12, text)
	}
	first := "assumed:    "
	for _, s := range unique(a.Assumed) {
		p.wrap(first, 12, s)
		first = strings.Repeat(" ", len(first))
	}
}

// dependsText is dependsOn by host.
func (b *Branch) dependsText() string {
	var out []string
	for _, d := range b.Deps {
		text := strings.Join(dependsOn(d.Deps), ", ")
		if len(b.Deps) > 1 {
			text = d.Host.Name + " " + text
		}
		if text != "" {
			out = append(out, text)
		}
	}
	return strings.Join(out, "; ")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
