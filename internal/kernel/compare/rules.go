package compare

import (
	"context"
	"fmt"
	"slices"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/internal/kernel/around"
	"github.com/hookpath/hookpath/internal/kernel/gen"
	"github.com/hookpath/hookpath/trace"
)

// Ruleset is somebody's rules, to be asked on a host that is built around them.
type Ruleset struct {
	Name    string
	Text    string // of iptables-save
	Backend kernel.Backend
}

// Reach is how many of the rules that a way leads to were met by packets.
type Reach struct{ Met, Rules int }

// Rules compares one ruleset with packets drawn from its own rules. The error is the
// run's own, or says that the rules cannot be laid out.
func (t *Tally) Rules(ctx context.Context, seed uint64, r Ruleset, packets int) (Reach, error) {
	h, err := around.New(r.Text)
	if err != nil {
		return Reach{}, err
	}
	run, err := kernel.Open(ctx, kernel.Scenario{Backend: r.Backend,
		Hosts: []kernel.Host{{Name: "r", Files: h.Files}}})
	if err != nil {
		return Reach{}, fmt.Errorf("%s: lay out: %w", r.Name, err)
	}
	defer run.Close()
	p := &pair{seed: seed, backend: r.Backend, run: run, met: map[trace.RuleRef]bool{}}
	if err := p.build(); err != nil {
		return Reach{}, fmt.Errorf("%s: %w", r.Name, err)
	}
	t.Scenarios++
	d := &drawing{t: t, p: p, g: gen.New(seed, gen.Options{}),
		drafter: around.NewDrafter(seed, h, p.host)}
	err = d.ask(packets)
	return Reach{len(p.met), d.drafter.Rules()}, err
}

// drawing draws the packets of one ruleset.
type drawing struct {
	t       *Tally
	p       *pair
	g       *gen.Gen
	drafter *around.Drafter
	asked   int
}

// ask puts that many questions, each rule in turn in a drawn order.
func (d *drawing) ask(packets int) error {
	var order []int
	for d.asked < packets {
		if len(order) == 0 {
			order = d.drafter.Perm(max(d.drafter.Rules(), 1))
		}
		qs, drawn := d.next(order[0])
		if drawn {
			order = order[1:]
		}
		for _, q := range qs {
			if more, err := d.put(q, drawn); err != nil || !more {
				return err
			}
		}
	}
	return nil
}

// next draws a packet for a rule, or goes on with a conversation.
func (d *drawing) next(rule int) (qs []kernel.Question, drawn bool) {
	if d.drafter.IntN(3) == 0 {
		if q, ok := d.g.Answer(); ok {
			return []kernel.Question{q}, false
		}
	}
	return d.draft(rule), true
}

// drafts bounds how often a packet is drawn for a rule until the engine says that it
// meets the rule.
const drafts = 8

func (d *drawing) draft(rule int) []kernel.Question {
	var qs []kernel.Question
	for range drafts {
		qs = d.drafter.Draft(rule)
		if len(qs) == 0 {
			continue
		}
		k := d.p.trial(&qs[len(qs)-1])
		if d.drafter.Rules() == 0 || len(qs) > 1 || meets(k.Trace, d.drafter.Rule(rule)) {
			break
		}
	}
	return qs
}

// meets tells whether a rule matched in a walk.
func meets(t *trace.Trace, want trace.RuleRef) bool {
	return slices.ContainsFunc(t.Events, func(e trace.Event) bool {
		r, ok := e.(*trace.Rule)
		return ok && r.Ref == want
	})
}

func (d *drawing) put(q kernel.Question, drawn bool) (bool, error) {
	d.asked++
	q.ID, q.Seq, q.Host = fmt.Sprint(d.asked), "s", "r"
	if drawn {
		d.g.Begin(q)
	}
	return d.t.ask(d.p, d.g, q)
}

// meet notes the rules that matched in a walk.
func (p *pair) meet(t *trace.Trace) {
	for _, e := range t.Events {
		if r, ok := e.(*trace.Rule); ok && p.met != nil {
			p.met[r.Ref] = true
		}
	}
}
