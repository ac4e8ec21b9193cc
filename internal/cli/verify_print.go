package cli

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/internal/kernel/compare"
	"github.com/hookpath/hookpath/packet"
)

// verdict is what verify prints as JSON.
type verdict struct {
	Schema   string       `json:"schema"`
	Agrees   bool         `json:"agrees"`
	Question string       `json:"question"`
	Host     string       `json:"host"`
	Kernel   string       `json:"kernel"`
	Legs     []verdictLeg `json:"legs"`
	Assumed  []string     `json:"assumed,omitempty"`
	Notes    []string     `json:"notes,omitempty"`
}

type verdictLeg struct {
	Leg string `json:"leg"`
	// Rules counts the steps of the kernel's trace, Connections the entries that are
	// new or changed.
	Rules       int           `json:"rules"`
	Frames      int           `json:"frames"`
	Deliveries  int           `json:"deliveries"`
	Connections int           `json:"connections"`
	Difference  *compare.Diff `json:"difference,omitempty"`
}

func (v *verification) print() error {
	release, err := kernel.Release()
	if err != nil {
		return err
	}
	out := verdict{Schema: "hookpath.verify/v1", Agrees: !v.differs(), Question: v.question,
		Host: v.n.Name, Kernel: release, Assumed: v.chosen, Notes: v.layout.Notes}
	for _, l := range v.legs {
		out.Legs = append(out.Legs, verdictLeg{l.name, l.Rules, l.Frames, l.Deliveries,
			l.Connections, l.Diff})
		for _, dev := range v.layout.StandIns(l.Walk) {
			out.Notes = append(out.Notes, fmt.Sprintf("%s (%s) was laid out as a card: what it does "+
				"beyond that was not asked", dev, v.layout.Cards[dev]))
		}
	}
	if v.flags.json {
		return json.NewEncoder(v.e.Out).Encode(out)
	}
	var b strings.Builder
	v.text(&b, &out)
	_, err = io.WriteString(v.e.Out, b.String())
	return err
}

// text prints the verdict first, then where they part, then what it rests on.
func (v *verification) text(b *strings.Builder, out *verdict) {
	for i := range out.Legs {
		l := &out.Legs[i]
		word := "AGREES"
		if l.Difference != nil {
			word = "DIFFERS"
		}
		fmt.Fprintf(b, "%-8s the %s: %s\n", word, l.Leg, l.counts())
		if l.Difference != nil {
			v.difference(b, l.Difference)
		}
	}
	fmt.Fprintf(b, "%-8s Linux %s\n", "KERNEL", out.Kernel)
	for _, a := range out.Assumed {
		fmt.Fprintf(b, "%-8s %s\n", "ASSUMED", a)
	}
	for _, n := range out.Notes {
		fmt.Fprintf(b, "%-8s %s\n", "NOTE", n)
	}
}

func (l *verdictLeg) counts() string {
	s := plural(l.Rules, "rule step", "rule steps") + ", " + plural(l.Frames, "frame", "frames")
	if l.Deliveries > 0 {
		s += ", " + plural(l.Deliveries, "delivery", "deliveries")
	}
	return s + ", " + plural(l.Connections, "connection entry", "connection entries")
}

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// difference prints the first place where they part, and all that each did.
func (v *verification) difference(b *strings.Builder, d *compare.Diff) {
	fmt.Fprintf(b, "%-8s %s, line %d\n", "WHERE", d.What, d.Line)
	var texts map[string]string
	if d.What == "rules" {
		texts = v.verifier.RuleTexts(d)
	}
	for _, side := range []struct{ who, did string }{{"engine", d.Engine}, {"kernel", d.Kernel}} {
		did := side.did
		if did == "" {
			did = "(nothing)"
		}
		fmt.Fprintf(b, "%-8s %s\n", side.who, did)
		for name, text := range texts {
			if strings.HasPrefix(did, name+" ") {
				fmt.Fprintf(b, "%-8s %s\n", "", strings.TrimSpace(text))
			}
		}
		if words := frameWords(did); words != "" {
			fmt.Fprintf(b, "%-8s %s\n", "", words)
		}
	}
	listing(b, "engine, all", d.Engines)
	listing(b, "kernel, all", d.Kernels)
}

func listing(b *strings.Builder, title string, lines []string) {
	fmt.Fprintf(b, "%s\n", title)
	for i, line := range lines {
		fmt.Fprintf(b, "%5d  %s\n", i+1, line)
	}
}

// frameWords says in words what a difference says in hex: a packet, with the device
// before it where it left by one. Empty for what is no packet.
func frameWords(line string) string {
	words := strings.Fields(line)
	if len(words) == 0 || len(words) > 2 {
		return ""
	}
	b, err := hex.DecodeString(words[len(words)-1])
	if err != nil {
		return ""
	}
	p, ok := packet.FromIP(b)
	if len(words) == 2 {
		p, ok = packet.FromFrame(b)
	}
	if !ok || !p.Is4() {
		return ""
	}
	src, dst := p.Src().String(), p.Dst().String()
	if sport, dport, has := p.Ports(); has {
		src, dst = fmt.Sprintf("%s:%d", src, sport), fmt.Sprintf("%s:%d", dst, dport)
	}
	return fmt.Sprintf("protocol %d %s > %s ttl %d", p.Protocol(), src, dst, p.TTL())
}
