package uml

import (
	"context"

	"github.com/hookpath/hookpath/internal/kernel"
)

// Run is a scenario laid out in a machine. Its methods are those of kernel.Run.
type Run struct {
	machine *Machine
	ctx     context.Context
	id      int

	// NoFlows leaves Answer.Flows nil, which saves time.
	NoFlows bool
}

var _ kernel.Asker = (*Run)(nil)

// Open lays a scenario out in namespaces of the machine, several at a time if wanted.
// Close removes them; so does the end of the machine. Rules of nf_tables and what the
// machine's kernel lacks are a kernel.UnsupportedError.
func (m *Machine) Open(ctx context.Context, sc kernel.Scenario) (*Run, error) {
	r, err := m.call(ctx, &request{Op: opOpen, Scenario: &sc})
	if err != nil {
		return nil, err
	}
	return &Run{machine: m, ctx: ctx, id: r.Run}, nil
}

// Ask puts one question.
func (r *Run) Ask(q kernel.Question) (kernel.Answer, error) {
	a, err := r.call(&request{Op: opAsk, Question: &q, NoFlows: r.NoFlows})
	return a.Answer, err
}

// Collect prints the snapshot of a host with the real tools, as it stands now.
func (r *Run) Collect(host string) (map[string]string, error) {
	a, err := r.call(&request{Op: opCollect, Text: host})
	return a.Files, err
}

// Dump lists the connection tables.
func (r *Run) Dump() ([]string, error) {
	a, err := r.call(&request{Op: opDump})
	return a.Lines, err
}

// Close removes what Open made.
func (r *Run) Close() error {
	_, err := r.machine.call(context.WithoutCancel(r.ctx), &request{Op: opClose, Run: r.id})
	return err
}

// call asks the machine; the reply is never nil.
func (r *Run) call(q *request) (*reply, error) {
	q.Run = r.id
	a, err := r.machine.call(r.ctx, q)
	if a == nil {
		a = &reply{}
	}
	return a, err
}
