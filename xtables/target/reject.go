package target

import (
	"fmt"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// answer is one of the ways to reject; typ 255 is a TCP reset.
type answer struct {
	name      string
	alias     string
	typ, code uint8
}

const tcpReset = 255

var answers = []answer{
	{"icmp-net-unreachable", "net-unreach", 3, 0},
	{"icmp-host-unreachable", "host-unreach", 3, 1},
	{"icmp-proto-unreachable", "proto-unreach", 3, 2},
	{"icmp-port-unreachable", "port-unreach", 3, 3},
	{"icmp-net-prohibited", "net-prohib", 3, 9},
	{"icmp-host-prohibited", "host-prohib", 3, 10},
	{"tcp-reset", "tcp-rst", tcpReset, 0},
	{"icmp-admin-prohibited", "admin-prohib", 3, 13},
}

var answers6 = []answer{
	{"icmp6-no-route", "no-route", 1, 0},
	{"icmp6-adm-prohibited", "adm-prohibited", 1, 1},
	{"icmp6-addr-unreachable", "addr-unreach", 1, 3},
	{"icmp6-port-unreachable", "port-unreach", 1, 4},
	{"tcp-reset", "tcp-reset", tcpReset, 0},
	{"icmp6-policy-fail", "policy-fail", 1, 5},
	{"icmp6-reject-route", "reject-route", 1, 6},
}

// with is the argument of --reject-with.
type with struct {
	list []answer
	n    int
}

// Parse implements xtables.Value.
func (w *with) Parse(a *xtables.Args) error {
	for i, x := range w.list {
		if begins(x.name, a.Word) || begins(x.alias, a.Word) {
			w.n = i
			return nil
		}
	}
	return fmt.Errorf("unknown reject type %q", a.Word)
}

// begins tells whether a word is the beginning of a name, in any case of letters.
func begins(name, word string) bool {
	return len(word) <= len(name) && strings.EqualFold(name[:len(word)], word)
}

// Append implements xtables.Value.
func (w *with) Append(b []byte, _ trace.Family) []byte { return append(b, w.list[w.n].name...) }

// Unset implements xtables.Value.
func (w *with) Unset() bool { return false }

// reject drops the packet and tells its sender.
//
// Kernel: net/ipv4/netfilter/ipt_REJECT.c, reject_tg.
type reject struct{ With with }

func newReject() xtables.Target  { return &reject{with{answers, 3}} }
func newReject6() xtables.Target { return &reject{with{answers6, 3}} }

// Options implements xtables.Target.
func (t *reject) Options(s *xtables.Spec) {
	s.Var("reject-with", &t.With).Always()
	s.Check(func(c *xtables.Context) error {
		if t.With.list[t.With.n].typ == tcpReset && c.Proto() != packet.TCP {
			return fmt.Errorf("--reject-with tcp-reset needs -p tcp")
		}
		return nil
	})
}

// Effects implements xtables.Target.
func (t *reject) Effects() []field.Effect { return nil }

// Do implements xtables.Target.
func (t *reject) Do(e *xtables.Env) trace.Verdict {
	a := t.With.list[t.With.n]
	if a.typ == tcpReset {
		e.Mover.SendReset(e)
	} else {
		e.Mover.SendUnreachable(e, a.typ, a.code)
	}
	return trace.DropIt
}
