package target

import (
	"fmt"

	"github.com/hookpath/hookpath/xtables"
)

// secmark gives the packet a security mark, which no rule and no route asks for.
//
// Kernel: net/netfilter/xt_SECMARK.c, secmark_tg.
type secmark struct {
	nothing
	Context xtables.Bare
}

func newSecmark() xtables.Target { return &secmark{Context: xtables.Bare{Max: 255}} }

// Options implements xtables.Target.
func (t *secmark) Options(s *xtables.Spec) {
	s.Var("selctx", &t.Context).Required()
	s.Check(securityTable)
}

// securityTable refuses tables other than those in which security marks are set.
//
// Kernel: secmark_tg_check; connsecmark_tg_check.
func securityTable(c *xtables.Context) error {
	if c.Table != "mangle" && c.Table != "security" {
		return fmt.Errorf("is only for table mangle or security, not %s", c.Table)
	}
	return nil
}

// connsecmark copies the security mark from or to the connection.
//
// Kernel: net/netfilter/xt_CONNSECMARK.c, connsecmark_tg.
type connsecmark struct {
	nothing
	Save, Restore bool
}

func newConnsecmark() xtables.Target { return &connsecmark{} }

// Options implements xtables.Target.
func (t *connsecmark) Options(s *xtables.Spec) {
	s.Flag("save", &t.Save)
	s.Flag("restore", &t.Restore)
	s.ExactlyOne("save", "restore")
	s.Check(securityTable)
}
