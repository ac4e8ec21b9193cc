// Package compare holds the engine against this machine's kernel: both get the same
// snapshot and the same packets, and must say the same of every rule, frame, delivery
// and connection.
//
// It stands beside the packet's way, where packages kernel and walk meet.
package compare

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/internal/kernel/gen"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// Tally counts what was compared.
type Tally struct {
	Scenarios, Packets, Agreed int
	// Followed are the packets among Agreed where the engine took the branch of
	// -m statistic --mode random that the kernel's trace shows.
	Followed int
	// Unsupported counts questions that the engine refused, by its message. They are
	// not put to the kernel, so that both memories stay alike.
	Unsupported map[string]int
	// Diffs are the disagreements. Each ends its scenario: memories have parted.
	Diffs []string
	Cover Cover
	// Keep, if not empty, is a folder that gets a snapshot and the questions so far of
	// each disagreement, for hookpath trace -s DIR/SEED/r --packets DIR/SEED/packets.
	Keep string
	// Watch, if not nil, sees the walk of each packet that agreed.
	Watch func(*walk.Host, *trace.Trace)
	// Open lays scenarios out. Nil is kernel.Open: in this machine's kernel.
	Open func(context.Context, kernel.Scenario) (kernel.Asker, error)
}

func (t *Tally) open(ctx context.Context, sc kernel.Scenario) (kernel.Asker, error) {
	if t.Open != nil {
		return t.Open(ctx, sc)
	}
	return kernel.Open(ctx, sc)
}

// pair is one scenario in both worlds.
type pair struct {
	seed    uint64
	backend kernel.Backend
	run     kernel.Asker
	host    *walk.Host
	state   *world.State
	others  []*world.State // that agree with the kernel's answers so far as well
	flows   []string       // of the kernel, after the last question
	files   map[string][]byte
	asked   []kernel.Question
	met     map[trace.RuleRef]bool // rules that matched; nil counts none
	// raced tells that several packets are under way to the host at a time: which of them is
	// first, nothing decides.
	raced bool
}

// Run compares one scenario of the seed. The error is the run's own.
func (t *Tally) Run(ctx context.Context, seed uint64, o gen.Options, questions int) error {
	g := gen.New(seed, o)
	sc := g.Scenario()
	r, err := t.open(ctx, sc)
	if err != nil {
		return fmt.Errorf("seed %d: lay out: %w", seed, err)
	}
	defer r.Close()
	p := &pair{seed: seed, backend: o.Backend, run: r}
	if err := p.build(); err != nil {
		count(&t.Unsupported, err.Error())
		return nil
	}
	t.Scenarios++
	for range questions {
		q := g.Next()
		if more, err := t.ask(p, g, q); err != nil || !more {
			return err
		}
	}
	return nil
}

func count(m *map[string]int, key string) {
	if *m == nil {
		*m = map[string]int{}
	}
	(*m)[key]++
}

// saveName is the file of a back end's rules.
var saveName = map[kernel.Backend]string{kernel.Legacy: "iptables-legacy-save",
	kernel.NFT: "iptables-nft-save"}

// build makes the engine's host from what the tools print of the kernel's.
func (p *pair) build() error {
	files, err := p.run.Collect("r")
	if err != nil {
		return err
	}
	d := &snapshot.Dir{Name: "r", Files: map[string][]byte{}}
	for name, text := range files {
		if name == "iptables-save" {
			name = saveName[p.backend]
		}
		d.Files[name] = []byte(text)
	}
	p.files = d.Files
	cfg, err := d.Config(snapshot.Options{Now: world.Instant(time.Now().UnixNano())})
	if err != nil {
		return err
	}
	if p.host, _, err = walk.Build(cfg); err != nil {
		return err
	}
	p.state = p.host.Memory()
	return nil
}

// learner hears what the kernel answered, for the questions that follow.
type learner interface{ Learn(kernel.Answer) }

// ask puts the next question to both. False ends the scenario.
func (t *Tally) ask(p *pair, g learner, q kernel.Question) (bool, error) {
	// A trial first: what the engine refuses must not change the kernel's memory.
	if k := p.trial(&q); k.Err != nil {
		count(&t.Unsupported, k.Err.Error())
		g.Learn(kernel.Answer{})
		return true, nil
	}
	a, err := p.run.Ask(q)
	if err != nil {
		return false, err
	}
	if a.Err != "" {
		return false, fmt.Errorf("seed %d question %s: %s", p.seed, q.ID, a.Err)
	}
	g.Learn(a)
	if a.Send == "EADDRINUSE" || a.Send == "EADDRNOTAVAIL" { // an earlier question's socket has the port
		return true, nil
	}
	t.Packets++
	asSent(&q, &a)
	k, diff := t.settle(p, &q, &a)
	p.asked = append(p.asked, q)
	if diff != nil {
		t.Diffs = append(t.Diffs, p.story(k, &q, &a, diff))
		return false, p.keep(t.Keep)
	}
	t.Agreed++
	p.meet(k.Trace)
	if t.Watch != nil {
		t.Watch(p.host, k.Trace)
	}
	return true, nil
}

// asSent gives a socket's question the bytes that the kernel built for it: it chooses
// the IP id, and TCP's sequence, window and options. Ports and addresses are asked.
func asSent(q *kernel.Question, a *kernel.Answer) {
	if !q.Out || q.Socket == "raw" || len(a.Sent) == 0 {
		return
	}
	sent, ok := packet.FromIP(slices.Clone(a.Sent[0]))
	asked, ok2 := packet.FromIP(q.Packet)
	if !ok || !ok2 || sent.Protocol() != asked.Protocol() || sent.Dst() != asked.Dst() {
		return
	}
	if asked.Src().IsAny() {
		clear(sent.IP()[12:16])
		packet.FixIP4(sent.IP())
	}
	q.Packet = sent.IP()
}

// try walks a question with some answers of the dice; skips asks for the rules that did
// not match. It counts the choices that the kernel's trace answered.
func (p *pair) try(q *kernel.Question, a *kernel.Answer, dice world.Dice,
	skips bool) (*walk.Walk, int) {
	k := p.newWalk(a.At, &dice)
	k.Trace.Skips = skips
	f := p.follow(k, a)
	p.put(k, q)
	return k, f.followed
}

// cover counts what the packet of a walk met, by a walk that asks every rule in turn and
// that must find the same.
func (t *Tally) cover(p *pair, k *walk.Walk, q *kernel.Question, a *kernel.Answer,
	dice world.Dice) *Diff {
	slow, _ := p.try(q, a, dice, true)
	if d := newDiff("index", p.steps(k.Trace), p.steps(slow.Trace)); d != nil {
		return d
	}
	t.Cover.Add(p.host, slow.Trace)
	return nil
}

// newWalk begins a walk of the engine on a copy of its memory.
func (p *pair) newWalk(at time.Time, dice *world.Dice) *walk.Walk {
	w := p.host.NewWorld(p.state.Fork())
	w.Now, w.Dice = world.Instant(at.UnixNano()), dice
	return p.host.NewWalk(w, &trace.Trace{})
}

// put puts a question to the engine.
func (p *pair) put(k *walk.Walk, q *kernel.Question) {
	if q.Out {
		p.host.Send(k, walk.Local{IP: slices.Clone(q.Packet), Socket: q.Socket, Mark: q.Mark,
			UID: q.UID, GID: q.GID, Dev: p.dev(q.Dev), Transparent: q.Transparent})
		return
	}
	p.host.Receive(k, p.dev(q.In), slices.Clone(q.Frame))
}

// trial puts a question whose answer is forgotten.
func (p *pair) trial(q *kernel.Question) *walk.Walk {
	k := p.newWalk(time.Now(), &world.Dice{})
	p.put(k, q)
	return k
}

// dev is the number of a device; zero for no name.
func (p *pair) dev(name string) packet.Dev {
	if l := p.host.Links.ByName(name); l != nil {
		return l.Index
	}
	return 0
}
