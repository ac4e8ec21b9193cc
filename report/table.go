package report

import (
	"fmt"
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
	rows := a.Branches[0].rows()
	head := row{"where", "in", "out", "source", "destination", "mark", "ct"}
	width := [7]int{}
	for _, r := range append([]row{head}, rows...) {
		for i, s := range r {
			width[i] = max(width[i], len(s))
		}
	}
	p.WriteByte('\n')
	if len(a.Branches) > 1 {
		p.WriteString("the most probable way:\n")
	}
	for i, r := range append([]row{head}, rows...) {
		text := ""
		for k, s := range r {
			text += fmt.Sprintf("%-*s  ", width[k], s)
		}
		text = strings.TrimRight(text, " ")
		if i == 0 {
			text = p.colour(dim, text)
		}
		p.WriteString(text + "\n")
	}
}

// rows are the places of the question's packet: where it came in or was made, and
// where it left or ended.
func (b *Branch) rows() []row {
	var out []row
	ct := "-"
	for i := range b.Steps {
		s := &b.Steps[i]
		if s.Event.Base().SKB != 1 {
			continue
		}
		n := names{s.Host}
		switch e := s.Event.(type) {
		case *trace.Conntrack:
			ct = ctText(e)
		case *trace.Receive:
			ct = "-"
			out = append(out, n.row(e.Packet, n.dev(e.Dev), "-", ct))
		case *trace.LocalOut:
			out = append(out, n.row(e.Packet, "-", "-", ct))
		case *trace.Transmit:
			out = append(out, n.row(e.Packet, inOf(out, n), n.dev(e.Dev), ct))
		case *trace.Deliver:
			out = append(out, n.end(out, "local", ct))
		case *trace.Drop:
			out = append(out, n.end(out, "drop", ct))
		}
	}
	if o := b.Main(); o != nil && o.Result == trace.Absorbed {
		out = append(out, names{o.Host}.end(out, "held", ct))
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

// inOf is the device by which the packet came into this host.
func inOf(rows []row, n names) string {
	for i := len(rows) - 1; i >= 0 && rows[i][0] == n.h.Name; i-- {
		if rows[i][1] != "-" {
			return rows[i][1]
		}
	}
	return "-"
}

func (n names) row(s *trace.Snap, in, out, ct string) row {
	if s == nil {
		return row{n.h.Name, in, out, "?", "?", "?", ct}
	}
	return row{n.h.Name, in, out, end(s.Src, s.SPort, s.HasPorts, s.Free&packet.FreeSrcPort != 0),
		end(s.Dst, s.DPort, s.HasPorts, s.Free&packet.FreeDstPort != 0), fmt.Sprintf("%#x", s.Mark), ct}
}

// end is the last row again, with another end. The packet changed no more, or its
// last look is not known.
func (n names) end(rows []row, out, ct string) row {
	if len(rows) == 0 {
		return row{n.h.Name, "-", out, "?", "?", "?", ct}
	}
	r := rows[len(rows)-1]
	r[2], r[6] = out, ct
	return r
}

// tail prints what the answer hung on and how much was looked at.
func (p *page) tail(a *Answer) {
	p.WriteByte('\n')
	if len(a.Branches) > 0 {
		p.wrap("depends on: ", 12, strings.Join(a.Branches[0].dependsOn(), ", "))
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

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
