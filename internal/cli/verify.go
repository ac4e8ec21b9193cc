package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/internal/kernel/compare"
	"github.com/hookpath/hookpath/lab"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// exitDiffers is verify's status when engine and kernel part.
const exitDiffers = 1

// verifyFlags are the flags of verify.
type verifyFlags struct {
	snapshot string
	host     string
	json     bool
	oneWay   bool
}

func newVerify(e *Env) *cobra.Command {
	var f verifyFlags
	c := &cobra.Command{
		Use:   "verify [-s SNAPSHOT] PACKET",
		Short: "Ask this machine's kernel the same question, and say whether it agrees",
		Long: `verify lays the snapshot out in a network namespace of its own (interfaces, addresses, routes,
ip rules, sysctls, sets, iptables rules, connections, sockets), sends the packet's bytes there, and
compares what this machine's kernel did with what the engine says: each rule in its order, each
frame byte by byte, each delivery, each entry of the connection table. The answer of whoever gets
the packet is put to both as well.

It needs root, and touches nothing outside the namespace, which is gone when it ends; the kernel may
load modules that the rules need. Both are asked as this kernel and as of now. A bridge, or another
interface that is no plain card, is laid out as a card: what it does beyond that is not compared.

Exit status: 0 they agree, 1 they differ, 2 the question cannot be asked here.`,
		Example: `  hookpath verify -s demo:kube-node tcp 203.0.113.7 to 192.0.2.10:30080 in eth0
  hookpath verify -s DIR udp 10.0.0.5 to 8.8.8.8:53 in lan0
  hookpath verify --json tcp 10.0.0.5:40000 to 10.0.0.1:80 in eth0   # of this machine`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return f.run(e, strings.Join(args, " ")) },
	}
	fl := c.Flags()
	fl.StringVarP(&f.snapshot, "snapshot", "s", "",
		"directory, archive or demo:NAME to read; without it, this machine")
	fl.StringVar(&f.host, "host", "", "host of the question, where the snapshot has several")
	fl.BoolVar(&f.json, "json", false, "print one JSON object")
	fl.BoolVar(&f.oneWay, "one-way", false, "do not ask for the answer's way back")
	return c
}

func (f *verifyFlags) run(e *Env, text string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var paths []string
	if f.snapshot != "" {
		paths = []string{f.snapshot}
	}
	l, err := loadHosts(e, paths)
	if err != nil {
		return err
	}
	q, chosen, err := l.fromSentence(text, f.host)
	if err != nil {
		return err
	}
	n := l.find(q.Host)
	if n.IPVS.InUse() {
		return fmt.Errorf("host %s has IPVS services, and verify lays none out: its kernel would answer "+
			"without them; trace walks them", n.Name)
	}
	if err := kernel.Usable(); err != nil {
		return err
	}
	v := &verification{e: e, l: l, n: n, flags: f, question: text, chosen: chosen}
	err = v.run(ctx, q)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted; what was laid out is gone")
	case err != nil:
		return err
	case v.differs():
		return exitError(exitDiffers)
	}
	return nil
}

// verification is one run of verify.
type verification struct {
	e        *Env
	l        *hosts
	n        *node
	flags    *verifyFlags
	question string
	chosen   []string
	layout   *compare.Layout
	verifier *compare.Verifier
	legs     []verifyLeg
}

// verifyLeg is what came of the packet, or of its answer.
type verifyLeg struct {
	name string
	*compare.Result
}

func (v *verification) differs() bool {
	last := len(v.legs) - 1
	return last >= 0 && v.legs[last].Diff != nil
}

func (v *verification) run(ctx context.Context, q *question) (err error) {
	v.progress("reading the snapshot")
	defer v.progress("")
	if v.layout, err = compare.NewLayout(v.n.dir); err != nil {
		return err
	}
	if q.ct == "established" {
		ip := q.bytes
		if !q.Out && len(ip) > packet.EthernetLen {
			ip = ip[packet.EthernetLen:]
		}
		if p, ok := packet.FromIP(ip); ok {
			v.layout.Connect(flowLine(p))
		}
	}
	v.progress("laying %s out in a namespace", v.n.Name)
	if v.verifier, err = compare.NewVerifier(ctx, v.layout); err != nil {
		return err
	}
	v.progress("asking the kernel")
	if err := v.ask(q); err != nil {
		return errors.Join(err, v.verifier.Close())
	}
	v.progress("")
	return errors.Join(v.print(), v.verifier.Close())
}

// progress tells a terminal what is going on, and is erased again.
func (v *verification) progress(format string, args ...any) {
	if v.e.Progress {
		fmt.Fprintf(v.e.Err, "\r\x1b[K"+format, args...)
	}
}

// ask puts the packet and its answer to both.
func (v *verification) ask(q *question) error {
	kq := kernelQuestion(q)
	r, err := v.verifier.Ask(kq)
	if err != nil {
		return err
	}
	v.legs = append(v.legs, verifyLeg{"packet", r})
	back, ok := answerQuestion(v.n, r)
	if r.Diff != nil || v.flags.oneWay || !ok {
		return nil
	}
	if r, err = v.verifier.Ask(back); err != nil {
		v.layout.Notes = append(v.layout.Notes, fmt.Sprintf("the answer was not asked: %v", err))
		return nil
	}
	v.legs = append(v.legs, verifyLeg{"answer", r})
	return nil
}

// kernelQuestion is a question in the form in which both are asked.
func kernelQuestion(q *question) kernel.Question {
	if !q.Out {
		return kernel.Question{In: q.In, Frame: q.bytes}
	}
	return kernel.Question{Out: true, Packet: q.bytes, Socket: socketFor(q.bytes), Mark: q.Mark,
		UID: q.UID, GID: q.GID, Dev: q.Dev}
}

// socketFor is the kind of socket that a program sends such a packet by: the
// protocol's own, but a raw one for what that would not send.
func socketFor(ip []byte) string {
	p, ok := packet.FromIP(ip)
	if !ok {
		return "raw"
	}
	l4 := p.L4()
	switch {
	case p.Protocol() == packet.TCP && len(l4) >= 20 && l4[13] == uint8(header.TCPFlagSyn):
		return "tcp"
	case p.Protocol() == packet.UDP && len(l4) >= 8:
		return "udp"
	case p.Protocol() == packet.ICMP && len(l4) >= 8 && l4[0] == 8:
		return "icmp"
	}
	return "raw"
}

// answerQuestion is what whoever got the packet sends back. It is false where nobody
// answers.
func answerQuestion(n *node, r *compare.Result) (kernel.Question, bool) {
	var none kernel.Question
	i := -1
	for j := range r.Walk.Trace.Outcomes {
		if r.Walk.Trace.Outcomes[j].SKB == 1 {
			i = j
		}
	}
	if i < 0 {
		return none, false
	}
	o := &r.Walk.Trace.Outcomes[i]
	switch {
	case o.Result == trace.Delivered && o.Socket != 0:
		back := lab.AnswerTo(o.Frame)
		return kernel.Question{Out: true, Packet: back, Socket: "raw"}, back != nil
	case o.Result == trace.Transmitted && len(o.Frame) > packet.EthernetLen:
		back := lab.AnswerTo(o.Frame[packet.EthernetLen:])
		frame := packet.Frame(packet.MAC(o.Frame[6:12]), packet.MAC(o.Frame[:6]), back)
		return kernel.Question{In: n.Links.Name(o.Dev), Frame: frame}, back != nil
	}
	return none, false
}
