package target

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// nfqueue hands the packet to a program, which decides what becomes of it.
//
// Kernel: net/netfilter/xt_NFQUEUE.c, nfqueue_tg_v3.
type nfqueue struct {
	Num            xtables.Number
	Balance        balance
	Bypass, Fanout bool
}

func newNFQUEUE() xtables.Target { return &nfqueue{Num: xtables.Number{Max: 65535}} }

// Options implements xtables.Target.
func (t *nfqueue) Options(s *xtables.Spec) {
	num := s.Var("queue-num", &t.Num)
	if !t.Balance.given {
		num.Always()
	}
	s.Var("queue-balance", &t.Balance)
	s.Flag("queue-bypass", &t.Bypass)
	s.Flag("queue-cpu-fanout", &t.Fanout).Needs("queue-balance")
	s.OneOf("queue-num", "queue-balance")
}

// Effects implements xtables.Target.
func (t *nfqueue) Effects() []field.Effect { return nil }

// Validate implements xtables.Validator. No dump tells who listens: without a
// listener the packet would be dropped, or go on where --queue-bypass is given.
func (t *nfqueue) Validate(b *xtables.Build) error {
	if b.Assume != nil {
		b.Assume(fmt.Sprintf("line %d: -j NFQUEUE: a program listens on the queue", b.Rule.Line))
	}
	return nil
}

// Do implements xtables.Target.
func (t *nfqueue) Do(*xtables.Env) trace.Verdict { return trace.Queue }

// balance is first:last, two numbers of queues.
type balance struct {
	lo, hi uint16
	given  bool
}

// Parse implements xtables.Value.
func (v *balance) Parse(a *xtables.Args) error {
	lo, hi, has := strings.Cut(a.Word, ":")
	if !has {
		return fmt.Errorf("%q is not FIRST:LAST", a.Word)
	}
	most := uint64(65534)
	if a.Version < xtables.V1811 {
		most = 65535
	}
	first, last := uint64(0), most
	var err error
	if lo != "" {
		if first, err = xtables.ParseUint(lo, most); err != nil {
			return err
		}
	}
	if hi != "" {
		if last, err = xtables.ParseUint(hi, most); err != nil {
			return err
		}
	}
	// 0:65535 are 65536 queues, a number that the kernel's 16 bits do not hold.
	if first >= last || last-first == 65535 {
		return fmt.Errorf("%q: the first queue must be less than the last", a.Word)
	}
	v.lo, v.hi, v.given = uint16(first), uint16(last), true
	return nil
}

// Append implements xtables.Value.
func (v *balance) Append(b []byte, _ trace.Family) []byte {
	b = strconv.AppendUint(b, uint64(v.lo), 10)
	return strconv.AppendUint(append(b, ':'), uint64(v.hi), 10)
}

// Unset implements xtables.Value.
func (v *balance) Unset() bool { return !v.given }
