package match

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// owner matches the owner of the socket that a packet was sent by. A packet without
// one matches exactly when all that is asked is negated.
//
// Kernel: net/netfilter/xt_owner.c, owner_mt, revision 1.
type owner struct {
	UID, GID       idRange
	Exists         bool
	NotUID, NotGID bool
	NotExists      bool
	Supplementary  bool
}

func newOwner() xtables.Match {
	return &owner{UID: idRange{what: "user"}, GID: idRange{what: "group"}}
}

// Options implements xtables.Match.
func (m *owner) Options(s *xtables.Spec) {
	s.Flag("socket-exists", &m.Exists).Not(&m.NotExists)
	s.Var("uid-owner", &m.UID).Not(&m.NotUID)
	s.Var("gid-owner", &m.GID).Not(&m.NotGID)
	s.Var("suppl-groups", &supplementary{m}).TakesNothing()
	s.Check(func(c *xtables.Context) error {
		return someOf(c, "socket-exists", "uid-owner", "gid-owner")
	})
}

// Validate implements xtables.Validator.
func (m *owner) Validate(*xtables.Build) error {
	switch {
	case m.UID.hi < m.UID.lo, m.GID.hi < m.GID.lo:
		return fmt.Errorf("the kernel refuses a reversed range")
	case m.Supplementary:
		return unsupported("--suppl-groups", "supplementary groups of processes are not known")
	}
	return nil
}

// Pred implements xtables.Match.
func (m *owner) Pred(*xtables.Build) field.Pred {
	ids := (!m.UID.given || m.NotUID) && (!m.GID.given || m.NotGID)
	none := field.And(is(field.HasSock, 0), always(ids && (!m.Exists || m.NotExists)))
	if m.Exists && m.NotExists {
		return none
	}
	// A socket that no process has open any more has no owner.
	orphan := derived(func(e *xtables.Env) field.Result {
		_, st := e.Field(field.UID)
		return result(st == field.Absent)
	}, field.HasSock)
	owned := field.And(m.UID.test(field.UID, m.NotUID), m.GID.test(field.GID, m.NotGID))
	if !m.UID.given && !m.GID.given {
		return field.Or(none, is(field.HasSock, 1))
	}
	some := is(field.HasSock, 1)
	if ids {
		return field.Or(none, field.And(some, field.Or(orphan, owned)))
	}
	return field.Or(none, field.And(some, owned))
}

// idRange is a number or a range of users or groups. The only name that means the
// same on every machine is root.
type idRange struct {
	lo, hi uint32
	given  bool
	what   string
}

// Parse implements xtables.Value.
//
// iptables: extensions/libxt_owner.c, owner_parse_range.
func (v *idRange) Parse(a *xtables.Args) error {
	v.given = true
	if a.Word == "root" {
		return nil
	}
	const most = 1<<32 - 2
	lo, hi, isRange := strings.Cut(a.Word, "-")
	n, err := xtables.ParseUint(lo, most)
	if err != nil {
		return fmt.Errorf("%q is not the number of a %s (names can't be looked up here)",
			a.Word, v.what)
	}
	v.lo, v.hi = uint32(n), uint32(n)
	if isRange {
		n, err = xtables.ParseUint(hi, most)
		v.hi = uint32(n)
	}
	return err
}

// Append implements xtables.Value.
func (v *idRange) Append(b []byte, _ trace.Family) []byte {
	b = strconv.AppendUint(b, uint64(v.lo), 10)
	if v.lo == v.hi {
		return b
	}
	return strconv.AppendUint(append(b, '-'), uint64(v.hi), 10)
}

// Unset implements xtables.Value.
func (v *idRange) Unset() bool { return !v.given }

func (v *idRange) test(id field.ID, not bool) field.Pred {
	if !v.given {
		return field.Pred{}
	}
	return field.NotIf(not, field.Is(id, field.Between(uint64(v.lo), uint64(v.hi))))
}

// supplementary is --suppl-groups, which must stand behind --gid-owner.
type supplementary struct{ m *owner }

// Parse implements xtables.Value.
func (v *supplementary) Parse(*xtables.Args) error {
	if !v.m.GID.given {
		return fmt.Errorf("the option must stand behind --gid-owner")
	}
	v.m.Supplementary = true
	return nil
}

// Append implements xtables.Value.
func (v *supplementary) Append(b []byte, _ trace.Family) []byte { return b }

// Unset implements xtables.Value.
func (v *supplementary) Unset() bool { return !v.m.Supplementary }
