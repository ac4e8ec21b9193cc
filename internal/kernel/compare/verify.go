package compare

import (
	"context"
	"errors"
	"slices"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/walk"
)

// Verifier puts questions about one snapshot to both worlds.
type Verifier struct {
	pair  *pair
	tally Tally
}

// Result is what came of one question.
type Result struct {
	// Walk is the engine's: the one that agrees, else the most probable.
	Walk   *walk.Walk
	Kernel kernel.Answer
	// Diff is where they part, nil for nowhere.
	Diff *Diff
	// Rules, Frames, Deliveries and Connections count what the kernel did, rules by
	// steps of its trace.
	Rules, Frames, Deliveries, Connections int
}

// NewVerifier builds the engine's host and lays the kernel's out. It needs root. Close
// removes what it made.
func NewVerifier(ctx context.Context, l *Layout) (*Verifier, error) {
	cfg, err := l.Engine.Config(snapshot.Options{})
	if err != nil {
		return nil, err
	}
	p := &pair{}
	if p.host, _, err = walk.Build(cfg); err != nil {
		return nil, err
	}
	p.state = p.host.Memory()
	p.run, err = kernel.Open(ctx, kernel.Scenario{Hosts: []kernel.Host{l.Kernel}})
	if err != nil {
		return nil, err
	}
	v := &Verifier{pair: p}
	if p.flows, err = p.run.Dump(); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return v, nil
}

// Close removes the namespace.
func (v *Verifier) Close() error { return v.pair.run.Close() }

// Ask puts a question to both. Memory carries on from one question to the next. The
// error says that one of them cannot answer it.
func (v *Verifier) Ask(q kernel.Question) (*Result, error) {
	q.Seq = "verify"
	if k := v.pair.trial(&q); k.Err != nil {
		return nil, k.Err
	}
	a, err := v.pair.run.Ask(q)
	if err != nil {
		return nil, err
	}
	if a.Err != "" {
		return nil, &AskError{a.Err}
	}
	asSent(&q, &a)
	old := v.pair.flows
	r := &Result{Kernel: a}
	r.Walk, r.Diff = v.tally.settle(v.pair, &q, &a)
	r.Rules, r.Frames, r.Deliveries = len(v.pair.kernelSteps(a.Steps)), len(a.Out), len(a.Delivered)
	for _, f := range a.Flows {
		if !slices.Contains(old, f) {
			r.Connections++
		}
	}
	return r, nil
}

// AskError says why this kernel could not be asked a question.
type AskError struct{ Why string }

// Error implements error.
func (e *AskError) Error() string { return "the kernel cannot be asked: " + e.Why }

// RuleTexts are the rules that the steps of a difference name: "filter FORWARD rule 3"
// and its text.
func (v *Verifier) RuleTexts(d *Diff) map[string]string {
	out := map[string]string{}
	v.pair.eachRule([]string{d.Engine, d.Kernel}, func(name, text string) { out[name] = text })
	return out
}
