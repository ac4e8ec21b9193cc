package cli

import (
	"testing"

	"github.com/hookpath/hookpath/explore"
	"github.com/hookpath/hookpath/internal/bench"
	"github.com/hookpath/hookpath/lab"
	"github.com/hookpath/hookpath/report"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/world"
)

// BenchmarkTrace asks where a packet to the last of 10,000 Services goes, and writes the
// story: one walk with its text, and the whole answer, which is three ways (one an
// endpoint) there and back.
func BenchmarkTrace(b *testing.B) {
	c := bench.Large()
	l := &hosts{}
	if err := l.add(&snapshot.Dir{Name: "node", Files: c.Files()}); err != nil {
		b.Fatal(err)
	}
	text := "tcp " + bench.Client + ":1000 to " + c.VIP(c.Services-1).String() + ":80 in " + bench.In
	q, _, err := l.fromSentence(text, "")
	if err != nil {
		b.Fatal(err)
	}
	style := report.Style{Width: 100}
	b.Run("walk", func(b *testing.B) {
		bench.Measure(b, func() {
			a := onlyWalk(b, l, q)
			a.Question = text
			if len(a.Story(style)) == 0 {
				b.Fatal("no story")
			}
		})
	})
	back := *q
	back.Reply = true
	b.Run("answer", func(b *testing.B) {
		bench.Measure(b, func() {
			a, err := l.ask(&back, l.joined().Start())
			if err != nil {
				b.Fatal(err)
			}
			a.Question = text
			if len(a.Story(style)) == 0 || len(a.Branches) != c.Endpoints {
				b.Fatalf("%d branches", len(a.Branches))
			}
		})
	})
}

// onlyWalk is the answer of the first way alone.
func onlyWalk(b *testing.B, l *hosts, q *question) *report.Answer {
	a, err := l.ready(q)
	if err != nil {
		b.Fatal(err)
	}
	net := l.joined()
	j := net.Walk(a.set(), net.Start(), &world.Dice{})
	if j.Err != nil {
		b.Fatal(j.Err)
	}
	out := &report.Answer{}
	out.Branches = []report.Branch{branch(&explore.Branch[*lab.Journey]{Prob: 1, Result: j})}
	return out
}
