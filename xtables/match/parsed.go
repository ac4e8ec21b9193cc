package match

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// The matches of this file are read and printed, and refused when a host is built:
// what they ask is not in a snapshot.

// bpf runs a filter program.
//
// Kernel: net/netfilter/xt_bpf.c, bpf_mt_v1.
type bpf struct {
	Code   bytecode
	Object xtables.Text
}

func newBPF() xtables.Match { return &bpf{Object: xtables.Text{Max: 511}} }

// Options implements xtables.Match.
func (m *bpf) Options(s *xtables.Spec) {
	s.Var("bytecode", &m.Code)
	s.Var("object-pinned", &bare{&m.Object})
	s.ExactlyOne("bytecode", "object-pinned")
}

// Validate implements xtables.Validator.
func (m *bpf) Validate(*xtables.Build) error {
	return unsupported("-m bpf", "programs are not run")
}

// Pred implements xtables.Match.
func (m *bpf) Pred(*xtables.Build) field.Pred { return field.Never() }

// bytecode is a program as tcpdump -ddd prints it, with commas for line ends.
type bytecode []bpfInsn

type bpfInsn struct {
	code   uint16
	jt, jf uint8
	k      uint32
}

// bpfMost is XT_BPF_MAX_NUM_INSTR.
const bpfMost = 64

// Parse implements xtables.Value.
func (v *bytecode) Parse(a *xtables.Args) error {
	parts := strings.Split(strings.Trim(a.Word, ","), ",")
	n, err := xtables.ParseUint(parts[0], bpfMost)
	if err != nil || int(n) != len(parts)-1 || n == 0 {
		return fmt.Errorf("%q is not a program: COUNT,CODE JT JF K,... of 1 to %d lines", a.Word,
			bpfMost)
	}
	for _, p := range parts[1:] {
		var i bpfInsn
		if _, err := fmt.Sscanf(p, "%d %d %d %d", &i.code, &i.jt, &i.jf, &i.k); err != nil {
			return fmt.Errorf("%q is not an instruction CODE JT JF K", p)
		}
		*v = append(*v, i)
	}
	return nil
}

// Append implements xtables.Value.
func (v *bytecode) Append(b []byte, _ trace.Family) []byte {
	b = strconv.AppendInt(append(b, '"'), int64(len(*v)), 10)
	for _, i := range *v {
		b = fmt.Appendf(b, ",%d %d %d %d", i.code, i.jt, i.jf, i.k)
	}
	return append(b, '"')
}

// Unset implements xtables.Value.
func (v *bytecode) Unset() bool { return len(*v) == 0 }

// cgroup matches the control group of the socket that sent the packet.
//
// Kernel: net/netfilter/xt_cgroup.c, cgroup_mt_v2.
type cgroup struct {
	Class             number
	Path              xtables.Text
	NotClass, NotPath bool
}

func newCgroup() xtables.Match { return &cgroup{Path: xtables.Text{Max: 511}} }

// Options implements xtables.Match.
func (m *cgroup) Options(s *xtables.Spec) {
	s.Var("path", &quotedText{&m.Path}).Not(&m.NotPath)
	s.Var("cgroup", &m.Class).Not(&m.NotClass)
	s.ExactlyOne("path", "cgroup")
}

// Validate implements xtables.Validator.
func (m *cgroup) Validate(*xtables.Build) error {
	return unsupported("-m cgroup", "control groups of processes are not known")
}

// Pred implements xtables.Match.
func (m *cgroup) Pred(*xtables.Build) field.Pred { return field.Never() }

// quotedText is a text that is always printed in quotes.
type quotedText struct{ *xtables.Text }

// Append implements xtables.Value.
func (v *quotedText) Append(b []byte, _ trace.Family) []byte {
	b = append(b, '"')
	for i := 0; i < len(v.S); i++ {
		if c := v.S[i]; c == '"' || c == '\\' || c == '\'' {
			b = append(b, '\\')
		}
		b = append(b, v.S[i])
	}
	return append(b, '"')
}

// osf matches the operating system that a SYN looks to come from.
//
// Kernel: net/netfilter/xt_osf.c, xt_osf_match_packet.
type osf struct {
	Genre    xtables.Text
	TTL, Log number
	Not      bool
}

func newOSF() xtables.Match {
	return &osf{Genre: xtables.Text{Max: 31}, TTL: number{Max: 2}, Log: number{Max: 2}}
}

// Options implements xtables.Match.
func (m *osf) Options(s *xtables.Spec) {
	s.Var("genre", &bare{&m.Genre}).Not(&m.Not).Required()
	s.Var("ttl", &m.TTL)
	s.Var("log", &m.Log)
}

// Validate implements xtables.Validator.
func (m *osf) Validate(*xtables.Build) error {
	return unsupported("-m osf", "the list of fingerprints is not known")
}

// Pred implements xtables.Match.
func (m *osf) Pred(*xtables.Build) field.Pred { return field.Never() }
