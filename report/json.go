package report

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Schema is the name and version of the JSON form; docs/trace.schema.json has it.
const Schema = "hookpath.trace/v1"

type (
	jsonAnswer struct {
		Schema      string       `json:"schema"`
		ID          string       `json:"id,omitempty"`
		Assumptions []string     `json:"assumptions"`
		Branches    []jsonBranch `json:"branches"`
		Cut         float64      `json:"cut,omitempty"`
		CutWays     int          `json:"cut_ways,omitempty"`
	}
	jsonBranch struct {
		Probability float64       `json:"probability"`
		Choices     []jsonChoice  `json:"choices"`
		Events      []any         `json:"events"`
		Outcomes    []jsonOutcome `json:"outcomes"`
		DependsOn   []string      `json:"depends_on,omitempty"`
	}
	jsonChoice struct {
		What         string    `json:"what"`
		Key          string    `json:"key"`
		Alternatives []jsonAlt `json:"alternatives"`
		Taken        int       `json:"taken"`
	}
	jsonAlt struct {
		Value  string  `json:"value"`
		Weight float64 `json:"weight"`
	}
	jsonOutcome struct {
		Type   string    `json:"type"`
		Host   string    `json:"host"`
		SKB    int       `json:"skb"`
		Dev    string    `json:"dev,omitempty"`
		Frame  string    `json:"frame,omitempty"`
		Free   []string  `json:"free,omitempty"`
		Reason string    `json:"reason,omitempty"`
		Why    string    `json:"why,omitempty"`
		By     *jsonRule `json:"by,omitempty"`
		Socket string    `json:"socket,omitempty"`
	}
	jsonRule struct {
		Family string `json:"family"`
		Table  string `json:"table"`
		Chain  string `json:"chain"`
		Rule   int    `json:"rule"`
	}
	jsonHead struct {
		Host   string      `json:"host"`
		Type   string      `json:"type"`
		SKB    int         `json:"skb"`
		Parent int         `json:"parent,omitempty"`
		Leg    string      `json:"leg"`
		Packet *jsonPacket `json:"packet,omitempty"`
	}
	jsonPacket struct {
		Src   string   `json:"src,omitempty"`
		Dst   string   `json:"dst,omitempty"`
		Proto any      `json:"proto,omitempty"`
		SPort *uint16  `json:"sport,omitempty"`
		DPort *uint16  `json:"dport,omitempty"`
		Free  []string `json:"free,omitempty"`
		Mark  uint32   `json:"mark"`
		TTL   uint8    `json:"ttl,omitempty"`
		In    string   `json:"in,omitempty"`
		Out   string   `json:"out,omitempty"`
	}
	jsonFrame struct {
		jsonHead
		Dev    string `json:"dev,omitempty"`
		Frame  string `json:"frame"`
		Socket string `json:"socket,omitempty"`
	}
	jsonHook struct {
		jsonHead
		Family   string `json:"family"`
		Hook     string `json:"hook"`
		Priority int    `json:"priority"`
		Name     string `json:"name"`
		In       string `json:"in,omitempty"`
		Out      string `json:"out,omitempty"`
		PhysIn   string `json:"physin,omitempty"`
		PhysOut  string `json:"physout,omitempty"`
	}
	jsonRuleEvent struct {
		jsonHead
		jsonRule
		Text    string `json:"text"`
		Target  string `json:"target,omitempty"`
		Verdict string `json:"verdict,omitempty"`
		Failed  string `json:"failed,omitempty"`
	}
	jsonEnd struct {
		jsonHead
		Family  string `json:"family"`
		Table   string `json:"table"`
		Chain   string `json:"chain"`
		Verdict string `json:"verdict"`
	}
	jsonConntrack struct {
		jsonHead
		State     string   `json:"state"`
		Original  string   `json:"original,omitempty"`
		Reply     string   `json:"reply,omitempty"`
		Status    []string `json:"status"`
		Confirmed bool     `json:"confirmed,omitempty"`
	}
	jsonNAT struct {
		jsonHead
		Manip  string      `json:"manip"`
		From   string      `json:"from"`
		To     string      `json:"to"`
		Source *jsonSource `json:"source,omitempty"`
	}
	jsonSource struct {
		Addr   string       `json:"addr"`
		Dev    string       `json:"dev"`
		Why    string       `json:"why"`
		Passed []jsonPassed `json:"passed_over,omitempty"`
	}
	jsonPassed struct {
		Addr string `json:"addr"`
		Dev  string `json:"dev"`
		Why  string `json:"why"`
	}
	jsonRoute struct {
		jsonHead
		Rule    *jsonIPRule  `json:"rule,omitempty"`
		Tried   []jsonIPRule `json:"tried"`
		Table   string       `json:"table,omitempty"`
		Route   string       `json:"route,omitempty"`
		Kind    string       `json:"kind"`
		Nexthop string       `json:"nexthop,omitempty"`
		Out     string       `json:"out,omitempty"`
		Source  string       `json:"source,omitempty"`
		Check   *jsonCheck   `json:"source_check,omitempty"`
	}
	jsonIPRule struct {
		Priority uint32 `json:"priority"`
		Text     string `json:"text"`
		Why      string `json:"why,omitempty"`
	}
	jsonCheck struct {
		Result string `json:"result"`
		Text   string `json:"text"`
	}
	jsonChoiceEvent struct {
		jsonHead
		jsonChoice
	}
	jsonNeigh struct {
		jsonHead
		Dev   string `json:"dev"`
		Addr  string `json:"addr"`
		MAC   string `json:"mac,omitempty"`
		Found bool   `json:"found"`
	}
	jsonFragment struct {
		jsonHead
		Fragments int `json:"fragments,omitempty"`
		MTU       int `json:"mtu,omitempty"`
		Pieces    int `json:"pieces,omitempty"`
	}
	jsonDrop struct {
		jsonHead
		Reason string    `json:"reason"`
		Why    string    `json:"why"`
		By     *jsonRule `json:"by,omitempty"`
	}
)

// JSON returns an answer as one line of JSON, without the line's end.
func (a *Answer) JSON() ([]byte, error) {
	out := jsonAnswer{Schema: Schema, ID: a.ID, Assumptions: append([]string{}, unique(a.Assumed)...),
		Cut: a.Cut.Prob, CutWays: a.Cut.Ways, Branches: make([]jsonBranch, len(a.Branches))}
	for i := range a.Branches {
		out.Branches[i] = a.Branches[i].json()
	}
	return marshal(out)
}

// marshal encodes without escaping > and friends: nobody puts this into HTML unseen.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// ErrorJSON is the line that answers a question which can't be answered.
func ErrorJSON(id string, err error) []byte {
	b, _ := marshal(struct {
		ID    string `json:"id"`
		Error string `json:"error"`
	}{id, err.Error()})
	return b
}

func (b *Branch) json() jsonBranch {
	out := jsonBranch{Probability: b.Prob, Choices: make([]jsonChoice, 0, len(b.Taken)),
		Events: make([]any, 0, len(b.Steps)), Outcomes: make([]jsonOutcome, 0, len(b.Outcomes))}
	for i := range b.Taken {
		out.Choices = append(out.Choices, choiceJSON(&b.Taken[i]))
	}
	for i := range b.Steps {
		out.Events = append(out.Events, b.Steps[i].json())
	}
	for i := range b.Outcomes {
		out.Outcomes = append(out.Outcomes, b.Outcomes[i].json())
	}
	out.DependsOn = b.dependsOn()
	return out
}

// dependsOn names the host only where there are several.
func (b *Branch) dependsOn() []string {
	var out []string
	for _, d := range b.Deps {
		for _, s := range dependsOn(d.Deps) {
			if len(b.Deps) > 1 {
				s = d.Host.Name + " " + s
			}
			out = append(out, s)
		}
	}
	return out
}

func choiceJSON(t *world.Taken) jsonChoice {
	c := jsonChoice{What: t.Key.What.String(), Key: choiceKey(t.Key), Taken: t.Index}
	share := t.Shares()
	for i := range t.N {
		c.Alternatives = append(c.Alternatives, jsonAlt{choiceValue(&t.Choice, i), share(i)})
	}
	return c
}

func (o *Outcome) json() jsonOutcome {
	n := names{o.Host}
	return jsonOutcome{Type: o.Result.String(), Host: o.Host.Name, SKB: o.SKB, Dev: n.dev(o.Dev),
		Frame: hex.EncodeToString(o.Frame), Free: freeWords(o.Free), Reason: string(o.Reason),
		Why: string(o.Why), By: n.by(o.By), Socket: socketText(o.Host, o.World, o.Socket)}
}

func (n names) by(r *trace.RuleRef) *jsonRule {
	if r == nil || r.Table < 0 {
		return nil
	}
	j := n.rule(*r)
	return &j
}

func (n names) rule(r trace.RuleRef) jsonRule {
	p := n.h.Program(r.Table)
	return jsonRule{Family: p.Family.String(), Table: p.Name, Chain: n.chain(r), Rule: n.number(r)}
}

func (n names) packet(s *trace.Snap) *jsonPacket {
	if s == nil {
		return nil
	}
	p := &jsonPacket{Src: s.Src.String(), Dst: s.Dst.String(), Free: freeWords(s.Free), Mark: s.Mark,
		TTL: s.TTL, In: n.dev(s.In), Out: n.dev(s.Out)}
	if !s.Src.IsZero() {
		p.Proto = protoJSON(s.Proto)
	}
	if s.HasPorts {
		p.SPort, p.DPort = &s.SPort, &s.DPort
	}
	return p
}

// protoJSON is a protocol's name, or its number where it has none.
func protoJSON(p uint8) any {
	if s := protoWord(p); s != "" {
		return s
	}
	return p
}

// json returns an event in the form of its type.
func (s *Step) json() any {
	n := names{s.Host}
	h := jsonHead{Host: s.Host.Name, SKB: s.Event.Base().SKB, Leg: "request",
		Packet: n.packet(s.Event.Base().Packet)}
	if s.Reply {
		h.Leg = "reply"
	}
	switch e := s.Event.(type) {
	case *trace.Receive:
		h.Type, h.Parent = "receive", e.Parent
		return jsonFrame{h, n.dev(e.Dev), hex.EncodeToString(e.Frame), ""}
	case *trace.Transmit:
		h.Type, h.Parent = "transmit", e.Parent
		return jsonFrame{h, n.dev(e.Dev), hex.EncodeToString(e.Frame), ""}
	case *trace.LocalOut:
		h.Type, h.Parent = "local_out", e.Parent
		return jsonFrame{h, "", hex.EncodeToString(e.Frame), ""}
	case *trace.Deliver:
		h.Type = "deliver"
		return jsonFrame{h, n.dev(e.Dev), hex.EncodeToString(e.Frame),
			socketText(s.Host, s.World, e.Socket)}
	case *trace.Rule, *trace.Skip, *trace.ChainEnd, *trace.HookRun:
		return n.ruleEvent(h, e)
	case *trace.Conntrack, *trace.NAT, *trace.Route:
		return n.decision(h, e)
	}
	return n.rest(h, s.Event)
}

func (n names) ruleEvent(h jsonHead, e trace.Event) any {
	switch e := e.(type) {
	case *trace.HookRun:
		h.Type = "hook"
		return jsonHook{h, e.Family.String(), e.Hook.String(), e.Priority, e.Name, n.dev(e.In),
			n.dev(e.Out), n.dev(e.PhysIn), n.dev(e.PhysOut)}
	case *trace.Rule:
		h.Type = "rule"
		return jsonRuleEvent{h, n.rule(e.Ref), n.h.Program(e.Ref.Table).Text(e.Ref), n.target(e.Ref),
			n.verdict(e), ""}
	case *trace.Skip:
		h.Type = "skip"
		return jsonRuleEvent{h, n.rule(e.Ref), n.h.Program(e.Ref.Table).Text(e.Ref), n.target(e.Ref),
			"", n.failed(e)}
	case *trace.ChainEnd:
		h.Type = "return"
		if e.Policy {
			h.Type = "policy"
		}
		r := n.rule(e.Ref)
		return jsonEnd{h, r.Family, r.Table, r.Chain, e.Verdict.String()}
	}
	return nil
}

func (n names) target(r trace.RuleRef) string {
	if rule := n.h.Program(r.Table).RuleAt(r); rule != nil {
		return rule.TargetName()
	}
	return ""
}

func (n names) decision(h jsonHead, e trace.Event) any {
	switch e := e.(type) {
	case *trace.Conntrack:
		h.Type = "conntrack"
		return conntrackJSON(h, e)
	case *trace.NAT:
		h.Type = "nat"
		manip := "SNAT"
		if e.Dst {
			manip = "DNAT"
		}
		return jsonNAT{h, manip, endpoint(e.From), endpoint(e.To), n.source(e.Source)}
	case *trace.Route:
		h.Type = "route"
		return n.route(h, e)
	}
	return nil
}

func conntrackJSON(h jsonHead, e *trace.Conntrack) any {
	out := jsonConntrack{jsonHead: h, State: e.State.String(), Status: []string{},
		Confirmed: e.Confirmed}
	if e.Flow != 0 || !e.Orig.Src.IsZero() {
		out.Original, out.Reply = tuple(e.Orig), tuple(e.Reply)
	}
	if e.SNAT {
		out.Status = append(out.Status, "SNAT")
	}
	if e.DNAT {
		out.Status = append(out.Status, "DNAT")
	}
	return out
}

func (n names) source(c *trace.SourceChoice) *jsonSource {
	if c == nil {
		return nil
	}
	out := &jsonSource{Addr: c.Addr.String(), Dev: n.dev(c.Dev), Why: sourceWhy(c.Step)}
	for _, p := range c.Passed {
		out.Passed = append(out.Passed, jsonPassed{p.Addr.String(), n.dev(p.Dev), p.Why})
	}
	return out
}

// sourceWhy is the step of inet_select_addr in words.
func sourceWhy(s trace.SourceStep) string {
	return [...]string{"its prefix holds the next hop", "first global address of the interface",
		"address of the VRF or of lo", "first global address, in the order of interfaces",
		"no address", "assumed, as the snapshot has no addresses"}[s]
}

func (n names) route(h jsonHead, e *trace.Route) any {
	f := n.h.Routes
	out := jsonRoute{jsonHead: h, Tried: []jsonIPRule{}, Kind: e.Kind.String(),
		Nexthop: e.Nexthop.String(), Out: n.dev(e.Out), Source: e.Source.String()}
	for _, t := range e.Tried {
		out.Tried = append(out.Tried, jsonIPRule{f.Rule(t.Rule).Priority, f.RuleText(t.Rule),
			t.Why.String()})
	}
	if e.Rule >= 0 {
		out.Rule = &jsonIPRule{Priority: f.Rule(e.Rule).Priority, Text: f.RuleText(e.Rule)}
	}
	if e.Table != 0 {
		out.Table = f.TableName(e.Table)
	}
	out.Route = f.RouteText(e.Index)
	if e.Check != nil {
		out.Check = &jsonCheck{"ok", n.check(e.Check)}
		if !e.Check.OK {
			out.Check.Result = string(e.Check.Why)
		}
	}
	return out
}

// check is the result of the source check in words.
func (n names) check(c *trace.SourceCheck) string {
	text := "the way back is "
	switch {
	case c.Index >= 0:
		text += n.h.Routes.RouteText(c.Index)
	case c.Dev != 0:
		text += "dev " + n.dev(c.Dev)
	default:
		text += "not known"
	}
	return text + ", rp_filter " + strconv.Itoa(c.Filter)
}

func (n names) rest(h jsonHead, e trace.Event) any {
	switch e := e.(type) {
	case *trace.Choice:
		h.Type = "choice"
		return jsonChoiceEvent{h, choiceJSON(&e.Taken)}
	case *trace.Neigh:
		h.Type = "neigh"
		out := jsonNeigh{h, n.dev(e.Dev), e.Addr.String(), "", e.Found}
		if e.Found {
			out.MAC = e.MAC.String()
		}
		return out
	case *trace.Reassemble:
		h.Type = "reassemble"
		return jsonFragment{jsonHead: h, Fragments: e.Fragments}
	case *trace.Fragment:
		h.Type = "fragment"
		return jsonFragment{jsonHead: h, MTU: e.MTU, Pieces: e.Pieces}
	case *trace.IPVS:
		return n.ipvsJSON(h, e)
	case *trace.Encap:
		h.Type = "encap"
		return jsonEncap{h, e.Method, e.From.String(), e.To.String()}
	case *trace.Decap:
		h.Type = "decap"
		return jsonDecap{h, e.Method, n.dev(e.Dev)}
	case *trace.Drop:
		h.Type = "drop"
		return jsonDrop{h, string(e.Reason), string(e.Why), n.by(e.By)}
	}
	h.Type = "unknown"
	return h
}

// failed says which test of a rule did not match.
func (n names) failed(e *trace.Skip) string {
	if e.Failed == nil {
		return ""
	}
	text := n.pred(e.Failed)
	if e.Match < 0 || e.Failed.Op == field.OpIn {
		return text
	}
	// The test of an extension in code reads several fields: which extension it is says more.
	rules := n.h.Program(e.Ref.Table).Source.Chains[e.Ref.Chain].Rules
	if i := e.Ref.Rule - 1; i >= 0 && i < len(rules) && e.Match < len(rules[i].Matches) {
		return "-m " + rules[i].Matches[e.Match].Ext.Name + ": " + text
	}
	return text
}

// pred names the fields that a predicate asks.
func (n names) pred(p *field.Pred) string {
	switch p.Op {
	case field.OpIn:
		return p.ID.String() + " " + n.set(p.ID, &p.Set)
	case field.OpNot:
		return "not " + n.pred(&p.Kids[0])
	case field.OpAnd, field.OpOr:
		if len(p.Kids) > 0 {
			return n.pred(&p.Kids[0])
		}
		return "never matches"
	case field.OpDerived, field.OpCall:
		var names []string
		for _, id := range p.Fn.Reads() {
			names = append(names, id.String())
		}
		if len(names) > 0 {
			return strings.Join(names, ", ")
		}
	}
	return "a test in code"
}

func (n names) set(id field.ID, s *field.Set) string {
	switch id {
	case field.In, field.Out, field.PhysIn, field.PhysOut:
		return n.devSet(s)
	}
	return setText(id, s)
}
