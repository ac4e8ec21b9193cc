// Package report tells a trace to people and programs: the story as text, the JSON
// of docs/trace.schema.json, one line, and the kernel's own TRACE form. It stands
// behind the walk and looks names and rule texts up in the host.
package report

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/explore"
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// Answer is all that one question led to.
type Answer struct {
	ID       string
	Question string // as it was asked, for the story
	Assumed  []string
	Chosen   []string // what the sentence left out and was chosen
	Branches []Branch // by falling probability
	// Cut is what was not walked.
	Cut explore.Cut
	// Fixes are commands that were walked: with any one of them everything arrives.
	Fixes []Fix
	// Log is what a kernel traced of the same packet, nil for nothing.
	Log *Log
	// Fresh is how the packet would end as the first of a new connection, where its
	// connection is in the table and leads elsewhere; nil otherwise.
	Fresh *Branch
}

// Branch is one way that things can go.
type Branch struct {
	Prob     float64
	Taken    []world.Taken
	Steps    []Step
	Outcomes []Outcome
	Deps     []Deps
	Reply    int // the skb of the answer that was walked back, zero for none
	Data     int // the skb of the data that followed the handshake, zero for none
	Tried    int
	Matched  int
	Rules    int
}

// Step is one event on one host.
type Step struct {
	Host  *walk.Host
	World *world.World // after the walk, to look up what is dynamic; may be nil
	Reply bool         // the leg of the answer that was walked back
	Data  bool         // the leg of the data that followed
	Event trace.Event
}

// Outcome is how one packet ended.
type Outcome struct {
	Host  *walk.Host
	World *world.World
	trace.Outcome
}

// Deps are the bits that the answer hung on, of one host.
type Deps struct {
	Host *walk.Host
	*field.Deps
}

// Main is the outcome of the question's packet, or of what a tunnel made of it.
func (b *Branch) Main() *Outcome { return b.end(1) }

// end is the outcome of a packet. One that went into a tunnel, or came out of one, goes on as
// another.
func (b *Branch) end(skb int) *Outcome {
	way := b.way(skb)
	return b.outcome(way[len(way)-1])
}

// way is a packet and those that tunnels made of it.
func (b *Branch) way(skb int) []int {
	out := []int{skb}
	for {
		o := b.outcome(skb)
		next := b.child(skb)
		if o == nil || !o.WentOn() || next <= skb {
			return out
		}
		skb = next
		out = append(out, skb)
	}
}

func (b *Branch) outcome(skb int) *Outcome {
	for i := range b.Outcomes {
		if b.Outcomes[i].SKB == skb {
			return &b.Outcomes[i]
		}
	}
	return nil
}

// child is the packet that was made of another one, zero for none.
func (b *Branch) child(skb int) int {
	for i := range b.Steps {
		if made, of := trace.Made(b.Steps[i].Event); of == skb {
			return made
		}
	}
	return 0
}

// Arrived tells whether the question's packet was forwarded or delivered, and its
// answer, if one was walked, came back. Where the asking program's socket is not
// known, an answer that passed INPUT came back.
func (b *Branch) Arrived() bool {
	o := b.Main()
	if o == nil || o.Result != trace.Transmitted && o.Result != trace.Delivered {
		return false
	}
	return b.Reply == 0 || b.answered() && b.strays() == nil && b.Flows()
}

// Flows tells whether the data that followed the handshake arrived, where they were walked.
func (b *Branch) Flows() bool {
	if b.Data == 0 {
		return true
	}
	o := b.end(b.Data)
	return o != nil && (o.Result == trace.Transmitted || o.Result == trace.Delivered)
}

func (b *Branch) answered() bool {
	o := b.end(b.Reply)
	return o != nil && (o.Result == trace.Transmitted || o.Result == trace.Delivered ||
		o.Why == "no-listener")
}

// names looks up what an event refers to.
type names struct{ h *walk.Host }

func (n names) dev(d packet.Dev) string { return n.h.Links.Name(d) }

func (n names) chain(r trace.RuleRef) string { return n.h.Program(r.Table).ChainName(r.Chain) }

func (n names) table(r trace.RuleRef) string { return n.h.Program(r.Table).Name }

// number is the rule's place, for a policy or an end the one behind the last rule,
// as the kernel's TRACE counts.
func (n names) number(r trace.RuleRef) int {
	if r.Rule > 0 {
		return r.Rule
	}
	return len(n.h.Program(r.Table).Source.Chains[r.Chain].Rules) + 1
}

// verdict is a verdict with the chain of a jump.
func (n names) verdict(e *trace.Rule) string {
	if e.Verdict == trace.Jump || e.Verdict == trace.Goto {
		return e.Verdict.String() + " " + n.h.Program(e.Ref.Table).ChainName(e.Chain)
	}
	return e.Verdict.String()
}

// protoWord is a protocol's name, empty where it has none.
func protoWord(p uint8) string {
	s := xtables.ProtoName(p)
	if s != "" && s[0] >= '0' && s[0] <= '9' {
		return ""
	}
	return s
}

// end is ADDRESS:PORT, a star for a port that is not decided.
func end(a packet.Addr, port uint16, hasPort, free bool) string {
	switch {
	case !hasPort:
		return a.String()
	case free && a.Is4():
		return a.String() + ":*"
	case free:
		return "[" + a.String() + "]:*"
	}
	return netip.AddrPortFrom(a.Netip(), port).String()
}

// tuple is one direction of a connection in words.
func tuple(t trace.Tuple) string {
	switch {
	case t.Proto == packet.ICMP || t.Proto == packet.ICMPv6:
		return fmt.Sprintf("icmp %s > %s type %d code %d id %d", t.Src, t.Dst, t.DPort>>8,
			t.DPort&0xff, t.SPort)
	case packet.HasPorts(t.Proto):
		return protoWord(t.Proto) + " " +
			end(t.Src, t.SPort, true, t.Free&packet.FreeSrcPort != 0) + " > " +
			end(t.Dst, t.DPort, true, t.Free&packet.FreeDstPort != 0)
	}
	return fmt.Sprintf("proto %d %s > %s", t.Proto, t.Src, t.Dst)
}

// endpoint is one side of a translation.
func endpoint(e trace.Endpoint) string {
	return end(e.Addr, e.Port, e.Port != 0 || e.Free, e.Free)
}

// freeWords names the fields that are not decided.
func freeWords(f packet.Free) []string {
	var out []string
	if f&packet.FreeSrcPort != 0 {
		out = append(out, "sport")
	}
	if f&packet.FreeDstPort != 0 {
		out = append(out, "dport")
	}
	return out
}

// socketText says which socket took a packet, empty for none.
func socketText(h *walk.Host, w *world.World, id uint32) string {
	if id == 0 || w == nil {
		return ""
	}
	s, ok := h.Sockets.Get(w, id)
	if !ok {
		return ""
	}
	return socketWords(&s)
}

func socketWords(s *socket.Socket) string {
	local := s.Local.String()
	switch {
	case local == "" && s.V6:
		local = "*"
	case local == "":
		local = "0.0.0.0"
	case !s.Local.Is4():
		local = "[" + local + "]"
	}
	text := protoWord(s.Proto)
	if s.Raw {
		text = "raw " + text
	} else {
		text += " " + local + ":" + strconv.Itoa(int(s.LPort))
	}
	if s.Process != "" {
		text += " " + s.Process + "[" + strconv.Itoa(s.PID) + "]"
	}
	return text
}

// choiceKey names a choice.
func choiceKey(k world.Key) string {
	text := fmt.Sprintf("%s:%d:%d", k.What, k.A, k.B)
	if k.Turn > 0 {
		text += fmt.Sprintf(":%d", k.Turn)
	}
	if k.Host != 0 {
		text += fmt.Sprintf("@%d", k.Host)
	}
	return text
}

// choiceValue says what an alternative stands for.
func choiceValue(c *world.Choice, i int) string {
	if c.Values != nil {
		return c.Values(i)
	}
	if c.Key.What == world.ChoiceStatistic {
		return [...]string{"matches", "does not match"}[min(i, 1)]
	}
	return strconv.Itoa(i)
}

// dependsOn lists the fields and bits that an answer hung on.
func dependsOn(d *field.Deps) []string {
	var out []string
	for id := field.None + 1; id < field.NumIDs; id++ {
		if bits := d[id]; !bits.IsZero() {
			out = append(out, dependText(id, bits))
		}
	}
	return out
}

func dependText(id field.ID, bits field.Value) string {
	full := field.Ones(id.Bits())
	if bits == full {
		return id.String()
	}
	if id.Bits() == 128 && bits.Hi == ^uint64(0) && bits.Lo>>32 == 1<<32-1 {
		low := uint32(bits.Lo)
		if low == 0 {
			return id.String() + "/0"
		}
		if n := leadingOnes(low); low == ^uint32(0)<<(32-n) {
			return id.String() + "/" + strconv.Itoa(n)
		}
	}
	if bits.Hi == 0 {
		return id.String() + "&0x" + strconv.FormatUint(bits.Lo, 16)
	}
	return fmt.Sprintf("%s&0x%x%016x", id, bits.Hi, bits.Lo)
}

func leadingOnes(n uint32) int {
	c := 0
	for ; n&(1<<31) != 0; n <<= 1 {
		c++
	}
	return c
}

// unique drops what was said already, in order.
func unique(in []string) []string {
	seen := map[string]bool{}
	out := in[:0:0]
	for _, s := range in {
		if s = strings.TrimSpace(s); s != "" && !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}
