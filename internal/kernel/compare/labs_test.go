package compare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/internal/kernel/gen"
	"github.com/hookpath/hookpath/internal/kernel/uml"
	"github.com/hookpath/hookpath/lab"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// labKernel is a kernel that labs are laid out in.
type labKernel struct {
	open    func(context.Context, kernel.Scenario) (kernel.Asker, error)
	release string
	hz      int
	backend kernel.Backend
	ipvs    bool
}

// tunneling is a user-mode-linux machine that has tunnels.
var tunneling = sync.OnceValues(bootTunneling)

func bootTunneling() (*uml.Machine, error) {
	return uml.Boot(context.Background(), uml.Options{Modules: []string{"ipip"}})
}

// labUML is the second kernel, for labs.
func labUML(t *testing.T) *labKernel {
	t.Helper()
	m := bootable(t, tunneling)
	machines := lasting{boot: bootTunneling, m: m}
	release, err := m.Exec(t.Context(), "", "uname", "-r")
	if err != nil {
		t.Fatal(err)
	}
	return &labKernel{release: strings.TrimSpace(release), hz: 100, backend: kernel.Legacy, ipvs: true,
		open: func(ctx context.Context, sc kernel.Scenario) (kernel.Asker, error) {
			return machines.next(t).Open(ctx, sc)
		}}
}

// labHere is this machine's kernel, for labs.
func labHere(t *testing.T, b kernel.Backend) *labKernel {
	t.Helper()
	needRoot(t)
	release, err := kernel.Release()
	if err != nil {
		t.Fatal(err)
	}
	return &labKernel{release: release, backend: b,
		open: func(ctx context.Context, sc kernel.Scenario) (kernel.Asker, error) { return kernel.Open(ctx, sc) }}
}

// labPair is a lab in both worlds.
type labPair struct {
	name   string
	yaml   []byte
	run    kernel.Asker
	lab    *lab.Lab
	hosts  []*pair // by host of the lab: what a host's comparison needs
	states lab.States
	asked  []string
}

// labTally counts what was compared.
type labTally struct {
	Labs, Conversations, Packets, Agreed int
	Unsupported                          map[string]int
	Diffs                                []string
	Cover                                map[string]int
	told                                 func(question string, j *lab.Journey) // of each that agreed; nil tells nobody
}

// newLabPair lays a lab out. The engine reads lab.yaml, and the kernel gets the commands.
func newLabPair(ctx context.Context, k *labKernel, name string, yaml []byte) (*labPair, error) {
	dirs, err := snapshot.ReadFS(fstest.MapFS{snapshot.LabFile: {Data: yaml}}, name)
	if err != nil {
		return nil, err
	}
	p := &labPair{name: name, yaml: yaml, lab: &lab.Lab{}}
	sc := kernel.Scenario{Backend: k.backend}
	for _, d := range dirs {
		if err := k.present(d); err != nil {
			return nil, err
		}
		sc.Hosts = append(sc.Hosts, k.host(d))
		cfg, err := d.Config(snapshot.Options{Now: world.Instant(time.Now().UnixNano())})
		if err != nil {
			return nil, err
		}
		h, _, err := walk.Build(cfg)
		if err != nil {
			return nil, err
		}
		p.lab.Hosts = append(p.lab.Hosts, h)
		p.hosts = append(p.hosts, &pair{backend: k.backend, host: h, raced: true})
	}
	p.states = p.lab.Start()
	if k.open != nil {
		p.run, err = k.open(ctx, sc)
	}
	return p, err
}

// present makes a described host one of this kernel, whose errors are not limited.
func (k *labKernel) present(d *snapshot.Dir) error {
	text, err := json.Marshal(snapshot.Meta{Host: d.Name, Kernel: k.release, HZ: k.hz})
	d.Files["meta.json"] = text
	redirects := 1
	if k.ipvs { // raw sockets see deliveries there, and believe redirects: raw_err
		redirects = 0
	}
	more := fmt.Sprintf("net.ipv4.icmp_ratelimit = 0\nnet.ipv4.icmp_ratemask = 0\n"+
		"net.ipv4.conf.all.send_redirects = %d\n", redirects)
	for dev := range d.Cables {
		more += fmt.Sprintf("net.ipv4.conf.%s.send_redirects = %d\n", dev, redirects)
	}
	d.Files["sysctl"] = append(slices.Clone(d.Files["sysctl"]), more...)
	for i, c := range d.Setup {
		if rest, ok := strings.CutPrefix(c, "iptables "); ok && k.backend == kernel.NFT {
			d.Setup[i] = "iptables-nft " + rest
		}
	}
	return err
}

// host is what the kernel gets of a host.
func (k *labKernel) host(d *snapshot.Dir) kernel.Host {
	h := kernel.Host{Name: d.Name, Setup: d.Setup, Files: map[string]string{},
		Cables: map[string][]kernel.Port{}}
	for _, name := range []string{"ip-link.json", "sysctl", "sockets", "ipvsadm-save"} {
		h.Files[name] = string(d.Files[name])
	}
	for dev, peers := range d.Cables {
		for _, p := range peers {
			h.Cables[dev] = append(h.Cables[dev], kernel.Port{Host: p.Host, Dev: p.Dev})
		}
	}
	return h
}

func (p *labPair) index(host string) int {
	return slices.IndexFunc(p.lab.Hosts, func(h *walk.Host) bool { return h.Name == host })
}

// walk puts a question to the engine.
func (p *labPair) walk(q *kernel.Question, at time.Time, dice *world.Dice) *lab.Journey {
	l := &walk.Local{IP: slices.Clone(q.Packet), Socket: q.Socket, Bound: q.Bound}
	return p.lab.Walk(&lab.Question{Host: p.lab.Hosts[p.index(q.Host)], Local: l,
		Now: world.Instant(at.UnixNano())}, p.states, dice)
}

// ask puts a question to both. The journey is nil where they part, or the engine refuses.
func (t *labTally) ask(p *labPair, q kernel.Question) (*lab.Journey, error) {
	if why := refused(p.walk(&q, time.Now(), &world.Dice{})); why != "" {
		count(&t.Unsupported, why)
		return nil, nil
	}
	j, err := t.both(p, &q)
	if err != nil || j == nil {
		return nil, err
	}
	p.states = p.states.With(j.States())
	t.count(p, j)
	if t.told != nil {
		t.told(q.ID, j)
	}
	return j, nil
}

// both is the journey that agrees with the kernel; without one to ask, the most probable.
func (t *labTally) both(p *labPair, q *kernel.Question) (*lab.Journey, error) {
	if p.run == nil {
		return p.walk(q, time.Now(), &world.Dice{}), nil
	}
	a, err := p.run.Ask(*q)
	if err != nil {
		return nil, err
	}
	if a.Err != "" {
		return nil, fmt.Errorf("%s: %s", q.ID, a.Err)
	}
	if a.Send == "EADDRINUSE" || a.Send == "EADDRNOTAVAIL" {
		return nil, nil
	}
	t.Packets++
	asSent(q, &a)
	p.asked = append(p.asked, fmt.Sprintf("%s# %s  %x", q.Host, q.ID, []byte(q.Packet)))
	j, diff := p.settle(q, &a)
	if diff != "" {
		t.Diffs = append(t.Diffs, fmt.Sprintf("%s\n%s\n%s\n%s", p.name, p.yaml, strings.Join(p.asked, "\n"), diff))
		return nil, errParted
	}
	t.Agreed++
	return j, nil
}

// refused is why a journey says nothing of the kernel: the engine has no answer, or gave up
// on a packet that goes in circles.
func refused(j *lab.Journey) string {
	if j.Err != nil {
		return j.Err.Error()
	}
	for _, o := range j.Outcomes {
		if o.Why == "loop" {
			return "the way is cut: it goes in circles"
		}
	}
	return ""
}

var errParted = errors.New("engine and kernel part")

// settle looks for the dice under which the engine did what the kernels did.
func (p *labPair) settle(q *kernel.Question, a *kernel.Answer) (*lab.Journey, string) {
	first := ""
	forced := []int{}
	for n := 0; n < maxBranches && forced != nil; n++ {
		dice := &world.Dice{Forced: forced}
		j := p.walk(q, a.At, dice)
		diff := p.differ(j, a)
		if diff == "" {
			return j, ""
		}
		if n == 0 {
			first = diff
		}
		forced = next(dice.Taken, forced)
	}
	return nil, first
}

// differ says on which host the journey differs from the kernel's answer, and how.
func (p *labPair) differ(j *lab.Journey, a *kernel.Answer) string {
	if j.Err != nil {
		return j.Err.Error()
	}
	var all []trace.Event // a packet that one host made goes on in others
	for _, leg := range j.Legs {
		all = append(all, leg.Trace.Events...)
	}
	m := newMask(all)
	for n, host := range p.hosts {
		if d := host.differMasked(p.part(j, n), p.answer(a, n), m); d != nil {
			return p.lab.Hosts[n].Name + ": " + d.String()
		}
	}
	return ""
}

// part is what happened on one host.
func (p *labPair) part(j *lab.Journey, n int) *walk.Walk {
	h := p.lab.Hosts[n]
	w := h.NewWorld(p.states[h.Name].Fork())
	t := &trace.Trace{}
	for _, leg := range j.Legs {
		if leg.Host.Name != h.Name {
			continue
		}
		w = leg.World
		t.Events = append(t.Events, leg.Trace.Events...)
		t.Outcomes = append(t.Outcomes, leg.Trace.Outcomes...)
	}
	return h.NewWalk(w, t)
}

// answer is what the kernel did on one host.
func (p *labPair) answer(a *kernel.Answer, n int) *kernel.Answer {
	name := p.lab.Hosts[n].Name
	out := &kernel.Answer{At: a.At}
	for _, s := range a.Steps {
		if s.Host == name {
			out.Steps = append(out.Steps, s)
		}
	}
	for _, f := range a.Out {
		if f.Host == name {
			out.Out = append(out.Out, f)
		}
	}
	for i, d := range a.Inputs {
		if d.Host == name {
			out.Inputs, out.Delivered = append(out.Inputs, d), append(out.Delivered, a.Delivered[i])
		}
	}
	for _, f := range a.Flows {
		rest, mine := strings.CutPrefix(f, name+" ")
		if mine || len(p.hosts) == 1 {
			out.Flows = append(out.Flows, rest)
		}
	}
	return out
}

// count notes what took part.
func (t *labTally) count(p *labPair, j *lab.Journey) {
	if t.Cover == nil {
		t.Cover = map[string]int{}
	}
	t.Cover[fmt.Sprintf("%d hosts on the way", len(j.Hosts()))]++
	for _, leg := range j.Legs {
		for _, e := range leg.Trace.Events {
			switch e := e.(type) {
			case *trace.IPVS:
				t.Cover["ipvs"]++
			case *trace.NAT:
				t.Cover["nat"]++
			case *trace.Encap:
				t.Cover["tunnel "+e.Method]++
			case *trace.Decap:
				t.Cover["out of a tunnel"]++
			}
		}
	}
	for _, o := range j.Outcomes {
		t.Cover[strings.TrimSpace(fmt.Sprint("end: ", o.Result, " ", o.Why))]++
	}
}

// got is where a packet came to a socket: the host and the packet.
func got(j *lab.Journey) (host string, ip []byte) {
	for _, o := range j.Outcomes {
		if o.Result == trace.Delivered && o.Socket != 0 {
			host, ip = o.Host.Name, o.Frame
		}
	}
	return host, ip
}

// segment is a packet that a program sends over a connection that it has.
func segment(id, host string, ip []byte) kernel.Question {
	return kernel.Question{ID: id, Host: host, Seq: "s", Out: true, Socket: "raw", Bound: true, Packet: ip}
}

// converse has a conversation: the first packet, the answer of who got it, and what follows.
func (t *labTally) converse(p *labPair, c gen.Conversation) error {
	s, err := packet.ParseSentence(c.Sentence)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Sentence, err)
	}
	s.Complete()
	ip, err := s.Packet()
	if err != nil {
		return fmt.Errorf("%s: %w", c.Sentence, err)
	}
	t.Conversations++
	j, err := t.ask(p, kernel.Question{ID: c.Sentence, Host: c.Host, Seq: "s", Out: true, Socket: c.Socket,
		Packet: ip})
	if err != nil || j == nil {
		return err
	}
	server, at := got(j)
	answer := lab.AnswerTo(at)
	if answer == nil {
		return nil
	}
	if j, err = t.ask(p, segment("the answer", server, answer)); err != nil || j == nil {
		return err
	}
	client, back := got(j)
	for i, flags := range c.Then {
		next := lab.AnswerTo(back)
		if next == nil || s.Proto != packet.TCP {
			return nil
		}
		next[33] = flags
		id := fmt.Sprintf("segment %d, flags %#x", i+1, flags)
		if j, err = t.ask(p, segment(id, client, fixTransport(next))); err != nil || j == nil {
			return err
		}
	}
	return nil
}

// labTalks is how many conversations a random lab has.
const labTalks = 17

// draw compares one random lab.
func (t *labTally) draw(ctx context.Context, k *labKernel, seed uint64) error {
	l := gen.NewLab(seed, k.ipvs)
	p, err := newLabPair(ctx, k, fmt.Sprint("seed ", seed), l.YAML())
	if err != nil {
		return fmt.Errorf("seed %d: %w\n%s", seed, err, l.YAML())
	}
	defer p.run.Close()
	t.Labs++
	for range labTalks {
		if err := t.converse(p, l.Next()); err != nil {
			if errors.Is(err, errParted) {
				return keepLab(p, seed)
			}
			return fmt.Errorf("seed %d: %w", seed, err)
		}
	}
	return nil
}

// keepLab writes a lab that parted under HOOKPATH_KEEP.
func keepLab(p *labPair, seed uint64) error {
	dir := os.Getenv("HOOKPATH_KEEP")
	if dir == "" {
		return nil
	}
	dir = filepath.Join(dir, fmt.Sprint(seed))
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, snapshot.LabFile), p.yaml, 0o600)
}

// TestLabs holds random labs of two to five hosts against kernels: frames on every cable,
// rules, deliveries and connections on every host. HOOKPATH_SEED repeats a run,
// HOOKPATH_SEEDS says how many labs.
func TestLabs(t *testing.T) {
	for _, k := range []struct {
		name string
		of   func(*testing.T) *labKernel
	}{
		{"uml", labUML},
		{"legacy", func(t *testing.T) *labKernel { return labHere(t, kernel.Legacy) }},
		{"nft", func(t *testing.T) *labKernel { return labHere(t, kernel.NFT) }},
	} {
		t.Run(k.name, func(t *testing.T) { labs(t, k.of(t)) })
	}
}

func labs(t *testing.T, k *labKernel) {
	seed := number(t, "HOOKPATH_SEED", uint64(rand.Uint32()))
	n := number(t, "HOOKPATH_SEEDS", min(number(t, "HOOKPATH_SOAK", 3), 300))
	fmt.Printf("HOOKPATH_SEED=%d HOOKPATH_SEEDS=%d\n", seed, n)
	var tally labTally
	for s := seed; s < seed+n; s++ {
		if err := tally.draw(t.Context(), k, s); err != nil {
			t.Error(err)
		}
	}
	for _, d := range tally.Diffs {
		t.Log(d)
	}
	bound(t, &Tally{Packets: tally.Packets, Agreed: tally.Agreed}, spare)
	for key, times := range tally.Unsupported {
		t.Logf("unsupported %d times: %s", times, key)
	}
	balanceCover(tally.Cover).print(t)
	t.Logf("%d labs, %d conversations, %d packets, %d packets agreed with the kernel", tally.Labs,
		tally.Conversations, tally.Packets, tally.Agreed)
}
