package match

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/xtables"
)

// comment is a note in a rule; it matches everything.
//
// Kernel: net/netfilter/xt_comment.c, comment_mt.
type comment struct{ Text xtables.Text }

// maxComment is XT_MAX_COMMENT_LEN less its NUL.
const maxComment = 255

func newComment() xtables.Match { return &comment{xtables.Text{Max: maxComment}} }

// Options implements xtables.Match.
func (m *comment) Options(s *xtables.Spec) { s.Var("comment", &m.Text).Required() }

// Pred implements xtables.Match.
func (m *comment) Pred(*xtables.Build) field.Pred { return field.Pred{} }
