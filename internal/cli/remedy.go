package cli

import (
	"github.com/hookpath/hookpath/report"
)

// Bounds of the search for remedies: how many are tried, and how many are told.
const (
	maxTried = 20
	maxTold  = 3
)

// advise walks what may mend an answer on changed hosts, and keeps what does. Where the
// connection table decides otherwise than the rules, the way of a new connection is told
// too. It is for the first question only: later ones start from a memory that a changed
// host does not have.
func (l *hosts) advise(q *question, a *answer) {
	if !a.Needed() {
		return
	}
	tries := l.tries()
	for i, f := range a.Candidates() {
		if i >= tries || len(a.Fixes) >= maxTold || f.Opens && len(a.Fixes) > 0 {
			return
		}
		other, err := l.changed(f.Host, f.Commands)
		if err != nil {
			continue // it can't be typed on this host
		}
		b, err := other.ask(q, other.joined().Start())
		if err != nil || len(b.Branches) == 0 {
			continue
		}
		if report.TakesEntry(f) && a.Fresh == nil && !report.SameEnd(&a.Branches[0], &b.Branches[0]) {
			a.Fresh = &b.Branches[0]
		}
		if !b.Needed() {
			a.Fixes = append(a.Fixes, f)
		}
	}
}

// tries is how many changed hosts may be built: fewer of large ones.
func (l *hosts) tries() int {
	const rules = 100000
	n := 1
	for _, h := range l.nodes {
		for _, p := range h.Programs() {
			for _, c := range p.Source.Chains {
				n += len(c.Rules)
			}
		}
	}
	return min(max(rules/n, 2), maxTried)
}
