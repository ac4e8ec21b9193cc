package compare

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the walks that cases expect")

const casesDir = "../../../cases"

// story is one file of cases: what it adds to the base machine, packets that are sent one
// after the other, and how they go.
type story struct {
	path    string
	archive *txtar.Archive
	files   map[string]string
	packets []string
}

func stories(t *testing.T) []*story {
	t.Helper()
	base, err := txtar.ParseFile(filepath.Join(casesDir, "base.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	paths, err := filepath.Glob(filepath.Join(casesDir, "*_*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var out []*story
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s := &story{path: path, archive: a, files: map[string]string{}}
		for _, f := range append(base.Files, a.Files...) {
			s.files[f.Name] = string(f.Data)
		}
		s.packets = strings.Split(strings.TrimSpace(s.files["packets"]), "\n")
		out = append(out, s)
	}
	return out
}

// expected is the name of the file with the walk: nft has its own where it differs.
func (s *story) expected(b kernel.Backend) string {
	if _, ok := s.files["walk-nft"]; ok && b == kernel.NFT {
		return "walk-nft"
	}
	return "walk"
}

func (s *story) name() string { return strings.TrimSuffix(filepath.Base(s.path), ".txtar") }

// snapshot are the files that describe the machine.
func (s *story) snapshot() map[string]string {
	out := maps.Clone(s.files)
	for _, name := range []string{"packets", "walk", "walk-nft"} {
		delete(out, name)
	}
	return out
}

// TestCases walks every story on the engine, with both kinds of iptables.
func TestCases(t *testing.T) {
	for _, s := range stories(t) {
		for _, b := range []kernel.Backend{kernel.Legacy, kernel.NFT} {
			t.Run(s.name()+"/"+b.String(), func(t *testing.T) { s.engine(t, b) })
		}
	}
}

func (s *story) engine(t *testing.T, b kernel.Backend) {
	dir := &snapshot.Dir{Name: "r", Files: map[string][]byte{}}
	for name, text := range s.snapshot() {
		if name == "iptables-save" {
			name = saveName[b]
		}
		dir.Files[name] = []byte(text)
	}
	(&depends{}).addRoutes(t, dir)
	cfg, err := dir.Config(snapshot.Options{Now: dependsNow})
	if err != nil {
		t.Fatal(err)
	}
	p := &pair{backend: b}
	if p.host, _, err = walk.Build(cfg); err != nil {
		t.Fatal(err)
	}
	p.state = p.host.Memory()
	var out strings.Builder
	for _, text := range s.packets {
		q := question(t, p.host, text)
		k := p.newWalk(time.Unix(0, int64(dependsNow)), &world.Dice{})
		p.put(k, &q)
		if k.Err != nil {
			t.Fatalf("%s: %v", text, k.Err)
		}
		p.state = k.World.State
		fmt.Fprintf(&out, "%s\n%s", text, tell(k))
	}
	name := s.expected(b)
	if *update && (b == kernel.Legacy || name == "walk-nft") {
		s.write(t, name, out.String())
		return
	}
	if d := cmp.Diff(s.files[name], out.String()); d != "" {
		t.Errorf("%s: -want +got\n%s", s.path, d)
	}
}

func (s *story) write(t *testing.T, name, text string) {
	t.Helper()
	found := false
	for i := range s.archive.Files {
		if f := &s.archive.Files[i]; f.Name == name {
			f.Data, found = []byte(text), true
		}
	}
	if !found {
		s.archive.Files = append(s.archive.Files, txtar.File{Name: name, Data: []byte(text)})
	}
	s.save(t)
	s.files[name] = text
}

func (s *story) save(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(s.path, txtar.Format(s.archive), 0o666); err != nil {
		t.Fatal(err)
	}
}

// TestCasesKernel sends the same packets through this machine's kernel.
func TestCasesKernel(t *testing.T) {
	needRoot(t)
	for _, s := range stories(t) {
		for _, b := range []kernel.Backend{kernel.Legacy, kernel.NFT} {
			t.Run(s.name()+"/"+b.String(), func(t *testing.T) { s.kernel(t, b) })
		}
	}
}

func (s *story) kernel(t *testing.T, b kernel.Backend) {
	run, err := kernel.Open(t.Context(), kernel.Scenario{Backend: b,
		Hosts: []kernel.Host{{Name: "r", Files: s.snapshot()}}})
	if err != nil {
		t.Fatal(err)
	}
	defer run.Close()
	p, tally := &pair{backend: b, run: run}, &Tally{}
	if err := p.build(); err != nil {
		t.Fatal(err)
	}
	for _, text := range s.packets {
		q := question(t, p.host, text)
		a, err := run.Ask(q)
		if err != nil || a.Err != "" {
			t.Fatalf("%s: %v %s", text, err, a.Err)
		}
		asSent(&q, &a)
		if _, d := tally.settle(p, &q, &a); d != nil {
			t.Fatalf("%s: %s\n%+v", s.path, text, *d)
		}
	}
}

// question turns a sentence into bytes. A frame comes from the neighbour that has the
// packet's source, else from the first of the device; a program sends by a raw socket.
func question(t *testing.T, h *walk.Host, text string) kernel.Question {
	t.Helper()
	s, err := packet.ParseSentence(text)
	if err != nil {
		t.Fatal(err)
	}
	s.Complete()
	ip, err := s.Packet()
	if err != nil {
		t.Fatal(err)
	}
	q := kernel.Question{ID: text, Host: "r", Seq: "s"}
	if s.In == "" {
		q.Out, q.Packet, q.Socket, q.Transparent = true, ip, "raw", true
		q.Mark, q.UID, q.GID = s.Mark, s.UID, s.GID
		if s.Src.IsAny() { // left to a socket of the packet's protocol
			q.Socket, q.Transparent = strings.Fields(text)[0], false
		}
		return q
	}
	l := h.Links.ByName(s.In)
	if l == nil {
		t.Fatalf("%s: no interface %s", text, s.In)
	}
	q.In = s.In
	from := packet.MAC{2, 0, 0, 0, byte(l.Index), 9}
	to := l.MAC
	if s.Has(packet.GivenMAC) {
		from, to = s.MACSrc, s.MACDst
	}
	q.Frame = packet.Frame(to, from, ip)
	return q
}

// tell is a walk in few words.
func tell(k *walk.Walk) string {
	var b strings.Builder
	for _, e := range k.Trace.Events {
		text := ""
		switch e := e.(type) {
		case *trace.Rule:
			text = fmt.Sprintf("%s %d %s", chainOf(k, e.Ref), e.Ref.Rule, e.Verdict)
			if e.Verdict == trace.Jump || e.Verdict == trace.Goto {
				text += " " + k.Program(e.Ref.Table).ChainName(e.Chain)
			}
		case *trace.ChainEnd:
			text = chainOf(k, e.Ref) + " " + e.Verdict.String()
			if e.Policy {
				text = chainOf(k, e.Ref) + " policy " + e.Verdict.String()
			}
		case *trace.Conntrack:
			if !e.Confirmed {
				text = "ct " + e.State.String()
			}
		case *trace.NAT:
			side := "src"
			if e.Dst {
				side = "dst"
			}
			text = fmt.Sprintf("%s %s > %s", side, endText(e.From), endText(e.To))
		case *trace.Route:
			text = "route " + e.Kind.String() + " " + devName(k, e.Out)
			if !e.Nexthop.IsZero() {
				text += " via " + e.Nexthop.String()
			}
		case *trace.LocalOut:
			if e.Parent != 0 {
				text = "answer " + snapText(e.Packet) + icmpText(e.Frame)
			}
		case *trace.Transmit:
			text = devName(k, e.Dev) + " out " + snapText(e.Packet)
		}
		if text != "" {
			fmt.Fprintf(&b, "  %s\n", text)
		}
	}
	for _, o := range k.Trace.Outcomes {
		if o.Result != trace.Transmitted {
			fmt.Fprintf(&b, "  %s\n", strings.Join(strings.Fields(fmt.Sprint(o.Result, " ", o.Reason, " ",
				o.Why)), " "))
		}
	}
	return b.String()
}

// icmpText is type and code of a packet without IP options.
func icmpText(ip []byte) string {
	if len(ip) < 22 || ip[9] != packet.ICMP {
		return ""
	}
	return fmt.Sprintf(" type %d code %d", ip[20], ip[21])
}

func chainOf(k *walk.Walk, r trace.RuleRef) string {
	p := k.Program(r.Table)
	return p.Name + " " + p.ChainName(r.Chain)
}

func endText(e trace.Endpoint) string {
	if e.Free {
		return e.Addr.String() + ":*"
	}
	if e.Port == 0 {
		return e.Addr.String()
	}
	return fmt.Sprintf("%s:%d", e.Addr, e.Port)
}

func devName(k *walk.Walk, d packet.Dev) string {
	if l := k.Links.ByIndex(d); l != nil {
		return l.Name
	}
	return "-"
}

func snapText(s *trace.Snap) string {
	if s.Src.IsZero() {
		return "arp"
	}
	src, dst := trace.Endpoint{Addr: s.Src}, trace.Endpoint{Addr: s.Dst}
	if s.HasPorts {
		src.Port, dst.Port = s.SPort, s.DPort
		src.Free, dst.Free = s.Free&packet.FreeSrcPort != 0, s.Free&packet.FreeDstPort != 0
	}
	text := fmt.Sprintf("%d %s > %s ttl %d", s.Proto, endText(src), endText(dst), s.TTL)
	if s.Mark != 0 {
		text += fmt.Sprintf(" mark %#x", s.Mark)
	}
	return text
}
