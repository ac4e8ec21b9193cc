package cli

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hookpath/hookpath/lab"
	"github.com/hookpath/hookpath/report"
)

// sequence is the memory that lines with the same seq carry on: what each branch of
// the last answer left behind.
type sequence struct{ after []lab.States }

// maxLine bounds a line of --packets.
const maxLine = 4 << 20

// packets answers JSON lines, each before the next is read.
func packets(e *Env, l *hosts, name string) error {
	in := e.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	r := bufio.NewReaderSize(in, 64<<10)
	out := bufio.NewWriterSize(e.Out, 64<<10)
	s := &stream{l: l, start: l.joined().Start(), seqs: map[string]*sequence{}}
	for n := 0; ; {
		line, err := readLine(r)
		n++
		if len(bytes.TrimSpace(line)) > 0 {
			if _, err := out.Write(append(s.line(line), '\n')); err != nil {
				return err
			}
		}
		// Somebody may wait for this answer before asking the next question.
		if r.Buffered() == 0 || err != nil {
			if err := out.Flush(); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && s.bad > 0:
			return exitError(exitUsage)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
}

func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > maxLine {
			return nil, fmt.Errorf("the line is longer than %d bytes", maxLine)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// stream is the state of one run over JSON lines.
type stream struct {
	l     *hosts
	start lab.States
	seqs  map[string]*sequence
	bad   int
}

// line answers one question with one line.
func (s *stream) line(line []byte) []byte {
	q, err := parseQuestion(line)
	if err == nil {
		var b []byte
		if b, err = s.answer(q); err == nil {
			return b
		}
	}
	s.bad++
	return report.ErrorJSON(q.ID, errors.New(shortened(err.Error())))
}

func (s *stream) answer(q *question) ([]byte, error) {
	from, err := s.from(q)
	if err != nil {
		return nil, err
	}
	a, err := s.l.ask(q, from)
	if err != nil {
		return nil, err
	}
	if q.Seq != "" {
		s.seqs[q.Seq] = &sequence{a.after}
	}
	return a.JSON()
}

// from is the memory that a question starts from.
func (s *stream) from(q *question) (lab.States, error) {
	seq := s.seqs[q.Seq]
	if q.Seq == "" || seq == nil {
		if q.Branch != nil && *q.Branch > 0 {
			return nil, fmt.Errorf("branch: seq %q has no answer yet", q.Seq)
		}
		return s.start, nil
	}
	n := 0
	if q.Branch != nil {
		n = *q.Branch
	}
	if n >= len(seq.after) {
		return nil, fmt.Errorf("branch: the last answer of seq %q has %d branches", q.Seq,
			len(seq.after))
	}
	return seq.after[n], nil
}
