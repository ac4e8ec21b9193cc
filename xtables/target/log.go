package target

import (
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// level is a syslog level by name or number.
type level struct{ n uint8 }

var levels = []string{"emerg", "alert", "crit", "error", "warning", "notice", "info", "debug"}

// warning is the level that is not printed.
const warning = 4

// Parse implements xtables.Value.
func (l *level) Parse(a *xtables.Args) error {
	if n, err := xtables.ParseUint(a.Word, 7); err == nil {
		l.n = uint8(n)
		return nil
	}
	for i, w := range levels {
		if a.Word == w || i == 0 && a.Word == "panic" {
			l.n = uint8(i)
			return nil
		}
	}
	return fmt.Errorf("unknown log level %q", a.Word)
}

// Append implements xtables.Value.
func (l *level) Append(b []byte, _ trace.Family) []byte { return append(b, '0'+l.n) }

// Unset implements xtables.Value.
func (l *level) Unset() bool { return l.n == warning }

// nothing is a target that lets the packet go on as it is.
type nothing struct{}

// Effects implements xtables.Target.
func (nothing) Effects() []field.Effect { return nil }

// Do implements xtables.Target.
func (nothing) Do(*xtables.Env) trace.Verdict { return trace.Continue }

// log writes a line to the kernel's log.
//
// Kernel: net/netfilter/xt_LOG.c, log_tg.
type log struct {
	nothing
	Prefix                       xtables.LogPrefix
	Level                        level
	Sequence, TCP, IP, UID, MACs bool
}

func newLog() xtables.Target {
	return &log{Prefix: logPrefix(29), Level: level{warning}}
}

func logPrefix(most int) xtables.LogPrefix {
	return xtables.LogPrefix{Bare: xtables.Bare{Min: 1, Max: most}}
}

// Options implements xtables.Target.
func (t *log) Options(s *xtables.Spec) {
	s.Var("log-prefix", &t.Prefix)
	s.Var("log-level", &t.Level)
	s.Flag("log-tcp-sequence", &t.Sequence)
	s.Flag("log-tcp-options", &t.TCP)
	s.Flag("log-ip-options", &t.IP)
	s.Flag("log-uid", &t.UID)
	s.Flag("log-macdecode", &t.MACs)
}

// nflog hands a copy of the packet to a group of listeners.
//
// Kernel: net/netfilter/xt_NFLOG.c, nflog_tg.
type nflog struct {
	nothing
	Prefix           xtables.LogPrefix
	Group, Threshold xtables.Uint
	Range, Size      xtables.Number
}

func newNflog() xtables.Target {
	return &nflog{Prefix: logPrefix(63), Group: xtables.Uint{Max: 65535},
		Threshold: xtables.Uint{Max: 65535}}
}

// Options implements xtables.Target.
func (t *nflog) Options(s *xtables.Spec) {
	s.Var("nflog-prefix", &t.Prefix)
	s.Var("nflog-group", &t.Group)
	s.Var("nflog-range", &t.Range)
	s.Var("nflog-size", &t.Size)
	s.Var("nflog-threshold", &t.Threshold)
	s.OneOf("nflog-range", "nflog-size")
	s.Check(func(c *xtables.Context) error {
		if c.Backend == xtables.NFT {
			t.Range = xtables.Number{} // nft has nothing for it, and the kernel never read it
		}
		return nil
	})
}

// traced makes the kernel log each rule that the packet meets.
//
// Kernel: net/netfilter/xt_TRACE.c, trace_tg.
type traced struct{ nothing }

func newTrace() xtables.Target { return &traced{} }

// Options implements xtables.Target.
func (t *traced) Options(*xtables.Spec) {}

// Do implements xtables.Target.
func (t *traced) Do(e *xtables.Env) trace.Verdict {
	e.Packet.NFTrace = true
	return trace.Continue
}
