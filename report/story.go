package report

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/trace"
)

// Style says how a story is laid out.
type Style struct {
	Width    int // zero is 100 columns
	Colour   bool
	AllRules bool
}

// Colours of the story: the verdict, and the place that decided.
const (
	red    = "\x1b[1;31m"
	green  = "\x1b[1;32m"
	yellow = "\x1b[1;33m"
	dim    = "\x1b[2m"
	plain  = "\x1b[0m"
)

// page is a story in the making.
type page struct {
	bytes.Buffer
	Style
}

// Story tells an answer: the verdict first, where and why, then the walk, then where
// the packet was.
func (a *Answer) Story(s Style) []byte {
	if s.Width == 0 {
		s.Width = 100
	}
	p := &page{Style: s}
	if len(a.Chosen) > 0 {
		p.wrap("assumed: ", 9, strings.Join(a.Chosen, ", "))
		p.WriteByte('\n')
	}
	p.verdict(a)
	if a.Log != nil {
		text, agrees := a.Against(a.Log)
		if !agrees {
			text += "  " + p.colour(red, "<== here")
		}
		p.wrap("AGAINST   ", 10, text)
		p.WriteByte('\n')
	}
	p.walk(a)
	p.where(a)
	p.tail(a)
	return p.Bytes()
}

// colour puts text between escape codes, where colours are wanted.
func (p *page) colour(code, text string) string {
	if !p.Colour {
		return text
	}
	return code + text + plain
}

// wrap prints text behind a first part, broken at blanks so that it fits; further
// lines are indented.
func (p *page) wrap(first string, indent int, text string) {
	room := max(p.Width-indent, 20)
	p.WriteString(first)
	for i, line := range wrapText(text, room, max(len(first)-indent, 0)) {
		if i > 0 {
			p.WriteString(strings.Repeat(" ", indent))
		}
		p.WriteString(line)
		p.WriteByte('\n')
	}
}

// Wrap breaks text at blanks so that its lines fit a width; zero is 100 columns.
func Wrap(text string, width int) string {
	if width == 0 {
		width = 100
	}
	return strings.Join(wrapText(text, width, 0), "\n") + "\n"
}

// wrapText cuts text into lines of at most n bytes, the first one of less fewer, at blanks
// where that is possible. It returns at least one line.
func wrapText(text string, n, less int) []string {
	var out []string
	used := less
	line := ""
	for _, w := range strings.Fields(text) {
		switch {
		case line == "":
			line = w
		case used+len(line)+1+len(w) <= n:
			line += " " + w
		default:
			out = append(out, line)
			line, used = w, 0
		}
	}
	return append(out, line)
}

// verdict prints the first lines: what, where, why.
func (p *page) verdict(a *Answer) {
	vs := make([]verdict, len(a.Branches))
	for i := range a.Branches {
		vs[i] = verdictOf(&a.Branches[i])
	}
	groups := group(vs, a)
	if len(groups) == 1 {
		v := groups[0].verdict
		p.headline(v.word, v.good, v.text)
		p.whereWhy(v)
		p.fresh(a)
		p.fixes(a)
		p.WriteByte('\n')
		return
	}
	word, good := summary(groups)
	p.headline(word, good, fmt.Sprintf("The dice decide between %d ways; they have %d different ends:", len(a.Branches),
		len(groups)))
	for _, g := range groups {
		p.headline(fmt.Sprintf("%.3g %%", 100*g.prob), g.verdict.good, g.verdict.word+": "+
			g.verdict.text)
		p.whereWhy(g.verdict)
	}
	p.fresh(a)
	p.fixes(a)
	p.WriteByte('\n')
}

// fresh prints what the rules would do with a new connection.
func (p *page) fresh(a *Answer) {
	if a.Fresh == nil {
		return
	}
	v := verdictOf(a.Fresh)
	text := "for a new connection the rules decide otherwise: " + v.word + ": " + v.text
	for i := range a.Fresh.Steps {
		s := &a.Fresh.Steps[i]
		t, ok := s.Event.(*trace.NAT)
		if !ok || i == 0 || t.SKB != 1 {
			continue
		}
		if r, ok := a.Fresh.Steps[i-1].Event.(*trace.Rule); ok {
			n := names{s.Host}
			text += fmt.Sprintf(" nat %s translates %s to %s.",
				strings.TrimPrefix(n.chainPlace(r.Ref), "nat "), endpoint(t.From), endpoint(t.To))
		}
	}
	p.wrap("NEW       ", 10, text)
}

// fixes prints the remedies.
func (p *page) fixes(a *Answer) {
	for i, f := range a.Fixes {
		first := "FIX       "
		if i > 0 {
			first = "or        "
		}
		note := "  (walked: works)"
		if f.Opens {
			note = "  (walked: works; it opens what is closed, perhaps on purpose)"
		}
		p.wrap(first, 12, f.Host+"# "+strings.Join(f.Commands, "; ")+note)
	}
}

// summary is the word for all ends together.
func summary(groups []verdictGroup) (string, int) {
	for _, g := range groups {
		switch {
		case g.good != groups[0].good:
			return "DEPENDS", 0
		case g.word != groups[0].word && g.good > 0:
			return "ARRIVES", 1
		case g.word != groups[0].word:
			return "DEPENDS", g.good
		}
	}
	return groups[0].word, groups[0].good
}

func (p *page) headline(word string, good int, text string) {
	code := [...]string{red, yellow, green}[good+1]
	p.WriteString(p.colour(code, fmt.Sprintf("%-9s", word)) + " ")
	p.wrap("", 10, text)
}

func (p *page) whereWhy(v verdict) {
	if v.place != "" {
		p.wrap("WHERE     ", 10, v.place)
	}
	if v.why != "" {
		p.wrap("WHY       ", 10, v.why)
	}
}

// verdictGroup is branches that end alike.
type verdictGroup struct {
	verdict
	prob float64
}

func group(vs []verdict, a *Answer) []verdictGroup {
	var out []verdictGroup
	for i, v := range vs {
		found := false
		for j := range out {
			if out[j].verdict == v {
				out[j].prob += a.Branches[i].Prob
				found = true
			}
		}
		if !found {
			out = append(out, verdictGroup{v, a.Branches[i].Prob})
		}
	}
	return out
}

// walk prints the steps of all branches, what they share only once.
func (p *page) walk(a *Answer) {
	ways := make([]way, len(a.Branches))
	for i := range a.Branches {
		ways[i] = way{lines: a.Branches[i].lines(p.Style), prob: a.Branches[i].Prob,
			choices: a.Branches[i].choiceTexts()}
	}
	p.tree(ways, 0, 1)
}

// way is one branch as lines.
type way struct {
	lines   []line
	prob    float64
	choices []string
}

// line is one line of the walk: a host's name, or a place in it.
type line struct {
	host   string // begins a host
	where  string // hook, or device with direction
	what   string // table, chain and rule
	text   string
	here   bool // the place that decided
	detail bool // belongs to the line before
}

// maxTree bounds the levels of the tree of ways.
const maxTree = 16

// tree prints what the ways share, then each group that parts there.
func (p *page) tree(ways []way, depth int, total float64) {
	n := shared(ways)
	for _, l := range ways[0].lines[:n] {
		p.line(l, depth)
	}
	if len(ways) == 1 {
		for _, l := range ways[0].lines[n:] {
			p.line(l, depth)
		}
		return
	}
	known := sharedChoices(ways)
	for _, g := range split(ways, n) {
		prob := 0.0
		for _, w := range g {
			prob += w.prob
		}
		p.fork(prob/total, g[0].choices[known:sharedChoices(g)], depth)
		if depth >= maxTree {
			fmt.Fprintf(p, "%s(%d ways)\n", strings.Repeat("  ", depth), len(g))
			continue
		}
		p.tree(g, depth+1, prob)
	}
}

// fork prints the line that begins a way: how probable it is here, and the choices
// that lead there.
func (p *page) fork(prob float64, choices []string, depth int) {
	p.wrap(fmt.Sprintf("  %s+- %3.3g %%  ", strings.Repeat("  ", depth), 100*prob), 14+2*depth,
		strings.Join(choices, ", "))
}

// sharedChoices counts the choices that all ways begin with.
func sharedChoices(ways []way) int {
	for n := 0; ; n++ {
		for i := range ways {
			if n >= len(ways[i].choices) || ways[i].choices[n] != ways[0].choices[n] {
				return n
			}
		}
	}
}

// shared counts the lines that all ways begin with.
func shared(ways []way) int {
	for n := 0; ; n++ {
		for i := range ways {
			if n >= len(ways[i].lines) || ways[i].lines[n] != ways[0].lines[n] {
				return n
			}
		}
	}
}

// split groups the ways by their next line. Ways that are the same to the end are
// one group.
func split(ways []way, n int) [][]way {
	var out [][]way
	next := func(w way) line {
		if n < len(w.lines) {
			return w.lines[n]
		}
		return line{}
	}
	for _, w := range ways {
		w.lines = w.lines[:len(w.lines):len(w.lines)]
		found := false
		for j := range out {
			if next(out[j][0]) == next(w) {
				out[j] = append(out[j], w)
				found = true
				break
			}
		}
		if !found {
			out = append(out, []way{w})
		}
	}
	for j := range out {
		for i := range out[j] {
			out[j][i].lines = out[j][i].lines[n:]
		}
	}
	return out
}

// Columns of the walk.
const (
	whereWidth = 13
	whatWidth  = 20
)

func (p *page) line(l line, depth int) {
	pad := strings.Repeat("  ", depth)
	if l.host != "" {
		p.WriteString(pad + l.host + "  " + l.text + "\n")
		return
	}
	text := l.text
	first := fmt.Sprintf("  %s%-*s", pad, whereWidth, l.where)
	if !strings.HasSuffix(first, " ") {
		first += " "
	}
	indent := 2 + len(pad) + whereWidth
	if l.what != "" || l.detail {
		first += fmt.Sprintf("%-*s", whatWidth, l.what)
		indent += whatWidth
		if len(l.what) >= whatWidth {
			first += " "
		}
	}
	p.wrap(first, indent, text)
	if l.here {
		p.Truncate(p.Len() - 1)
		p.WriteString("  " + p.colour(red, "<== here") + "\n")
	}
}
