package compare

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"sigs.k8s.io/yaml"

	"github.com/hookpath/hookpath/internal/kernel/gen"
	"github.com/hookpath/hookpath/lab"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
)

// labCase is a file of cases/labs: a lab, what is asked there, and variants of it, which differ
// by commands. Of each it has the addresses that the packet has on every host.
type labCase struct {
	path    string
	archive *txtar.Archive
}

// variant is a lab with further commands; its name is empty for the lab as it is.
type variant struct {
	name  string
	yaml  []byte
	talks []gen.Conversation
}

func labCases(t *testing.T) []*labCase {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(casesDir, "labs", "*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	var out []*labCase
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, &labCase{path, a})
	}
	return out
}

func (c *labCase) file(name string) string {
	for _, f := range c.archive.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

// variants are the lab as it is, and with each list of commands.
func (c *labCase) variants(t *testing.T) []variant {
	t.Helper()
	var talks []gen.Conversation
	for line := range strings.Lines(c.file("ask")) {
		host, sentence, _ := strings.Cut(strings.TrimSpace(line), "# ")
		talk := gen.Conversation{Host: host, Sentence: sentence, Socket: strings.Fields(sentence)[0]}
		if talk.Socket == "tcp" {
			talk.Then = []uint8{0x18}
		}
		talks = append(talks, talk)
	}
	out := []variant{{"", []byte(c.file("lab.yaml")), talks}}
	for _, f := range c.archive.Files {
		if name, ok := strings.CutPrefix(f.Name, "with "); ok {
			out = append(out, variant{name, typed(t, c.file("lab.yaml"), string(f.Data)), talks})
		}
	}
	return out
}

// typed adds commands to the hosts of a lab.
func typed(t *testing.T, text, commands string) []byte {
	t.Helper()
	l, err := snapshot.ParseLab("lab.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(commands) {
		host, command, _ := strings.Cut(strings.TrimSpace(line), "# ")
		l.Hosts[host].Commands = append(l.Hosts[host].Commands, command)
	}
	out, err := yaml.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLabCases walks every variant and wants the addresses that the file lists.
func TestLabCases(t *testing.T) {
	for _, c := range labCases(t) {
		var kept []txtar.File
		for _, f := range c.archive.Files {
			if !strings.HasPrefix(f.Name, "hops") {
				kept = append(kept, f)
			}
		}
		var got []txtar.File
		for _, v := range c.variants(t) {
			t.Run(v.run(c), func(t *testing.T) {
				name := strings.TrimSpace("hops " + v.name)
				text := v.hops(t)
				got = append(got, txtar.File{Name: name, Data: []byte(text)})
				if d := cmp.Diff(c.file(name), text); d != "" && !*update {
					t.Errorf("%s: %s: -want +got\n%s", c.path, name, d)
				}
			})
		}
		if *update {
			archive := &txtar.Archive{Comment: c.archive.Comment, Files: append(kept, got...)}
			(&story{path: c.path, archive: archive}).save(t)
		}
	}
}

func (v *variant) run(c *labCase) string {
	return strings.TrimSuffix(filepath.Base(c.path), ".txtar") + "/" + strings.TrimSpace("lab "+v.name)
}

// hops walks the conversations and lists where the packets were, with their addresses.
func (v *variant) hops(t *testing.T) string {
	t.Helper()
	p, err := newLabPair(t.Context(), &labKernel{release: "6.1", hz: 100}, "case", v.yaml)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	tally := labTally{told: func(id string, j *lab.Journey) { b.WriteString(id + "\n" + hopsOf(j)) }}
	for _, talk := range v.talks {
		if err := tally.converse(p, talk); err != nil {
			t.Fatal(err)
		}
	}
	for why := range tally.Unsupported {
		t.Error(why)
	}
	return b.String()
}

// hopsOf are the places of a journey's IP packets, a line each.
func hopsOf(j *lab.Journey) string {
	var b strings.Builder
	for _, leg := range j.Legs {
		h := leg.Host
		dev := func(d *walk.Host, e trace.Event) string {
			switch e := e.(type) {
			case *trace.Receive:
				return d.Links.Name(e.Dev) + " in"
			case *trace.Transmit:
				return d.Links.Name(e.Dev) + " out"
			case *trace.LocalOut:
				return "sends"
			case *trace.Deliver:
				return "delivered"
			}
			return ""
		}
		for _, e := range leg.Trace.Events {
			snap := e.Base().Packet
			if what := dev(h, e); what != "" && snap != nil && !snap.Src.IsZero() {
				fmt.Fprintf(&b, "  %-10s  %-9s  %s\n", h.Name, what, snapText(snap))
			}
		}
	}
	for _, o := range j.Outcomes {
		if o.Result == trace.Dropped && !strings.HasPrefix(string(o.Why), "arp") {
			fmt.Fprintf(&b, "  %-10s  dropped    %s %s\n", o.Host.Name, o.Reason, o.Why)
		}
	}
	return b.String()
}

// TestLabCasesKernel holds every variant against the second kernel.
func TestLabCasesKernel(t *testing.T) {
	k := labUML(t)
	for _, c := range labCases(t) {
		for _, v := range c.variants(t) {
			t.Run(v.run(c), func(t *testing.T) {
				p, err := newLabPair(t.Context(), k, v.run(c), v.yaml)
				if err != nil {
					t.Fatal(err)
				}
				defer p.run.Close()
				var tally labTally
				for _, talk := range v.talks {
					if err := tally.converse(p, talk); err != nil {
						t.Fatal(err, tally.Diffs)
					}
				}
				if len(tally.Unsupported) > 0 || tally.Packets == 0 {
					t.Errorf("%d packets, unsupported: %v", tally.Packets, tally.Unsupported)
				}
			})
		}
	}
}
