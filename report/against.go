package report

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/trace"
)

// Log is what a kernel traced of one packet.
type Log struct {
	File   string
	points []point
	nft    bool
}

// point is a rule that matched, or the end of a chain. A log of nft has the verdict of
// a rule and not its number.
type point struct {
	table, chain, kind string
	num                int
	verdict            string
	line               int
}

// String is the point as the kernel's TRACE names it.
func (p *point) String() string {
	if p.num > 0 {
		return fmt.Sprintf("%s:%s:%s:%d", p.table, p.chain, p.kind, p.num)
	}
	return fmt.Sprintf("%s %s %s %s", p.table, p.chain, p.kind, p.verdict)
}

var (
	tracePattern = regexp.MustCompile(`TRACE: (\w+):(\S+):(rule|return|policy):(\d+) (.*)`)
	idPattern    = regexp.MustCompile(`TTL=\d+ (ID=\d+)`)
	nftPattern   = regexp.MustCompile(`trace id (\w+) ip (\w+) (\S+) (?:rule .*\(verdict (.*)\)|` +
		`policy (\w+))`)
)

// ParseLog reads the lines that the kernel's TRACE target logs, or the text of `nft
// monitor trace`. Of several packets it takes the first; other lines are passed over.
func ParseLog(file string, data []byte) (*Log, error) {
	l := &Log{File: file}
	first := ""
	n := 0
	for raw := range bytes.Lines(data) {
		n++
		p, id, nft := parsePoint(strings.TrimRight(string(raw), "\r\n"))
		if p == nil || first != "" && id != first {
			continue
		}
		p.line = n
		first, l.nft = id, nft
		if !nft || p.verdict != "return" {
			l.points = append(l.points, *p)
		}
	}
	if len(l.points) == 0 {
		return nil, fmt.Errorf("%s: no line of a TRACE log (\"TRACE: filter:FORWARD:rule:1 IN=...\") "+
			"or of nft monitor trace (\"trace id ...\")", file)
	}
	return l, nil
}

func parsePoint(line string) (p *point, id string, nft bool) {
	if m := tracePattern.FindStringSubmatch(line); m != nil {
		num, err := strconv.Atoi(m[4])
		if err != nil {
			return nil, "", false
		}
		id = "?"
		if x := idPattern.FindStringSubmatch(m[5]); x != nil {
			id = x[1]
		}
		return &point{table: m[1], chain: m[2], kind: m[3], num: num}, id, false
	}
	m := nftPattern.FindStringSubmatch(line)
	switch {
	case m == nil:
		return nil, "", false
	case m[5] != "":
		return &point{table: m[2], chain: m[3], kind: "policy", verdict: m[5]}, m[1], true
	}
	return &point{table: m[2], chain: m[3], kind: "rule", verdict: m[4]}, m[1], true
}

// points are those of the question's packet.
func (b *Branch) points(nft bool) []point {
	var out []point
	for i := range b.Steps {
		s := &b.Steps[i]
		if s.Event.Base().SKB != 1 {
			continue
		}
		n := names{s.Host}
		switch e := s.Event.(type) {
		case *trace.Rule:
			p := n.rulePoint(e)
			if nft {
				p.kind = "rule" // only the TRACE target takes some for the end of a chain
			}
			if !nft || p.verdict != "return" {
				out = append(out, p)
			}
		case *trace.ChainEnd:
			p := point{table: n.table(e.Ref), chain: n.chain(e.Ref), kind: "return", num: n.number(e.Ref),
				verdict: strings.ToLower(e.Verdict.String())}
			if e.Policy {
				p.kind = "policy"
			}
			if !nft || e.Policy {
				out = append(out, p)
			}
		}
	}
	return out
}

func (n names) rulePoint(e *trace.Rule) point {
	verdict, chain, _ := strings.Cut(n.verdict(e), " ")
	verdict = strings.ToLower(verdict)
	if chain != "" {
		verdict += " " + chain
	}
	return point{table: n.table(e.Ref), chain: n.chain(e.Ref), kind: n.ruleKind(e), num: e.Ref.Rule,
		verdict: verdict}
}

// agrees compares a point of a log with one of the walk.
func (p *point) agrees(o *point) bool {
	if p.table != o.table || p.chain != o.chain || p.kind != o.kind {
		return false
	}
	if p.num > 0 {
		return p.num == o.num
	}
	return p.verdict == o.verdict
}

// Against compares a log with the branch that agrees longest and says where the two
// part.
func (a *Answer) Against(l *Log) (text string, agrees bool) {
	best, most := -1, -1
	var ours []point
	for i := range a.Branches {
		points := a.Branches[i].points(l.nft)
		points = points[l.skip(points):]
		if n := l.common(points); n > most {
			best, most, ours = i, n, points
		}
	}
	where := ""
	if len(a.Branches) > 1 {
		where = fmt.Sprintf(" (branch %d)", best)
	}
	if most == len(l.points) && most == len(ours) {
		return fmt.Sprintf("%s: kernel and walk agree in all %s%s", l.File, plural(most, "step"), where), true
	}
	kernel, walk, line := "nothing more", "nothing more", 0
	if most < len(l.points) {
		kernel, line = l.points[most].String(), l.points[most].line
	} else if n := len(l.points); n > 0 {
		line = l.points[n-1].line + 1
	}
	if most < len(ours) {
		p := ours[most]
		if l.nft {
			p.num = 0
		}
		walk = p.String()
	}
	return fmt.Sprintf("%s:%d: kernel and walk part behind %s%s: the kernel has %s, the walk %s", l.File,
		line, plural(most, "common step"), where, kernel, walk), false
}

// skip counts the points before the rule that set the trace on: the log does not have
// them.
func (l *Log) skip(ours []point) int {
	for i := range ours {
		if l.points[0].agrees(&ours[i]) {
			return i
		}
		if ours[i].table != "raw" {
			break
		}
	}
	return 0
}

func (l *Log) common(ours []point) int {
	n := 0
	for n < len(l.points) && n < len(ours) && l.points[n].agrees(&ours[n]) {
		n++
	}
	return n
}
