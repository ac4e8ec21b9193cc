package uml

import (
	"errors"
	"io"

	"github.com/hookpath/hookpath/internal/kernel"
)

// op says what a request asks for.
type op uint8

const (
	opLoad    op = iota // Args: modules by name
	opExec              // Args, Text: a program and its input
	opOpen              // Scenario, NoFlows; the reply's Run
	opAsk               // Run, Question, NoFlows
	opCollect           // Run, Text: the host
	opDump              // Run
	opClose             // Run
)

// request goes into a machine.
type request struct {
	Op       op
	Run      int
	Args     []string
	Text     string
	NoFlows  bool
	Scenario *kernel.Scenario
	Question *kernel.Question
}

// reply comes out of it.
type reply struct {
	Err         string
	Unsupported *kernel.UnsupportedError // in place of Err
	Run         int
	Text        string
	Lines       []string
	Files       map[string]string
	Answer      kernel.Answer
}

func (r *reply) err() error {
	switch {
	case r.Unsupported != nil:
		return r.Unsupported
	case r.Err != "":
		return errors.New(r.Err)
	}
	return nil
}

// fail files an error.
func (r *reply) fail(err error) {
	if err == nil || errors.As(err, &r.Unsupported) {
		return
	}
	r.Err = err.Error()
}

// window is how many bytes of requests may be under way. A terminal keeps 4096 (n_tty's
// N_TTY_BUF_SIZE), and a line of this kernel that was throttled once may lose the
// interrupt that should wake it (arch/um/drivers/line.c, line_unthrottle).
const window = 2048

// pacer writes requests: after each window it waits for a byte of consent. Between a
// request and its reply nothing else comes back.
type pacer struct {
	wire io.ReadWriter
	sent int // of the present window
}

func (p *pacer) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		n, err := p.wire.Write(b[done:min(len(b), done+window-p.sent)])
		done, p.sent = done+n, p.sent+n
		if err == nil && p.sent == window {
			p.sent = 0
			_, err = io.ReadFull(p.wire, make([]byte, 1))
		}
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// consenter is the other end of a pacer.
type consenter struct {
	wire io.ReadWriter
	got  int
}

func (c *consenter) Read(b []byte) (int, error) {
	n, err := c.wire.Read(b[:min(len(b), window-c.got)])
	c.got += n
	if c.got == window && err == nil {
		c.got = 0
		_, err = c.wire.Write([]byte{0})
	}
	return n, err
}
