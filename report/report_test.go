package report

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

const rules = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:web - [0:0]
-A FORWARD -i eth0 -p tcp -j web
-A web -s 10.0.0.1/32 -j ACCEPT
COMMIT
`

// router is a host with two interfaces and a few rules.
func router(t testing.TB) *walk.Host {
	t.Helper()
	rs, err := xtables.Parse(rules, xtables.ParseOptions{File: "rules",
		Catalog: xtables.NewCatalog(trace.IPv4, nil, nil)})
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := walk.Build(walk.Config{Name: "r", Rules: []*xtables.Ruleset{rs},
		Links: link.Config{Links: link.Invent([]string{"eth0", "eth1"}), OpenAddrs: true,
			OpenNeighs: true}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var (
	client = packet.MustParseAddr("10.0.0.1")
	server = packet.MustParseAddr("10.0.1.2")
	inet   = trace.Tuple{Src: client, Dst: server, SPort: 40000, DPort: 80, Proto: packet.TCP}
	first  = trace.RuleRef{Table: 0, Chain: 1, Rule: 1}
	policy = trace.RuleRef{Table: 0, Chain: 1}
)

func frame(t testing.TB) []byte {
	t.Helper()
	s, err := packet.ParseSentence("tcp 10.0.0.1:40000 to 10.0.1.2:80 flags S ttl 64")
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Packet()
	if err != nil {
		t.Fatal(err)
	}
	return packet.Frame(packet.MAC{2}, packet.MAC{4}, b)
}

// every is one event of each type.
func every(t testing.TB) []trace.Event {
	f := frame(t)
	snap := &trace.Snap{Src: client, Dst: server, Proto: packet.TCP, SPort: 40000, DPort: 80,
		HasPorts: true, TTL: 64, In: 2}
	head := func() trace.Head { return trace.Head{SKB: 1, Packet: snap} }
	return []trace.Event{
		&trace.Receive{Head: head(), Dev: 2, Frame: f},
		&trace.LocalOut{Head: head(), Frame: f[14:], Parent: 1},
		&trace.HookRun{Head: trace.Head{SKB: 1}, Hook: trace.Forward, Name: "filter", In: 2, Out: 3},
		&trace.Rule{Head: trace.Head{SKB: 1}, Ref: first, Verdict: trace.Jump, Chain: 3},
		&trace.Skip{Head: trace.Head{SKB: 1}, Ref: first, Failed: &field.Pred{Op: field.OpIn,
			ID: field.Proto, Set: field.Num(6)}},
		&trace.ChainEnd{Head: trace.Head{SKB: 1}, Ref: trace.RuleRef{Chain: 3}, Verdict: trace.Return},
		&trace.ChainEnd{Head: trace.Head{SKB: 1}, Ref: policy, Policy: true, Verdict: trace.DropIt},
		&trace.Conntrack{Head: trace.Head{SKB: 1}, State: trace.StateNew, Orig: inet, Reply: inet,
			Flow: 1, SNAT: true},
		&trace.NAT{Head: head(), From: trace.Endpoint{Addr: client, Port: 40000},
			To: trace.Endpoint{Addr: server, Free: true}, Source: &trace.SourceChoice{Addr: server,
				Dev: 3, Passed: []trace.PassedOver{{Addr: client, Dev: 2, Why: "secondary"}}}},
		&trace.Route{Head: trace.Head{SKB: 1}, Rule: 1, Table: 254, Index: -1, Kind: trace.Unicast,
			Out: 3, Tried: []trace.RuleTry{{Rule: 0, Why: trace.NoRoute}},
			Check: &trace.SourceCheck{Why: "rp-filter", Index: -1}},
		&trace.Choice{Head: trace.Head{SKB: 1}, Taken: world.Taken{Choice: world.Choice{N: 2,
			Key: world.Key{What: world.ChoiceStatistic}}}},
		&trace.Neigh{Head: trace.Head{SKB: 1}, Dev: 3, Addr: server},
		&trace.Reassemble{Head: trace.Head{SKB: 1}, Fragments: 2},
		&trace.Fragment{Head: trace.Head{SKB: 1}, MTU: 1500, Pieces: 2},
		&trace.IPVS{Head: head(), Service: -1, Index: -1, State: "SYN_RECV", New: true,
			Real: trace.Endpoint{Addr: server, Port: 80}},
		&trace.Encap{Head: head(), Method: "ipip", From: client, To: server},
		&trace.Decap{Head: head(), Method: "ipip", Dev: 1},
		&trace.Deliver{Head: head(), Dev: 2, Frame: f[14:]},
		&trace.Transmit{Head: head(), Dev: 3, Frame: f},
		&trace.Drop{Head: trace.Head{SKB: 1}, Reason: "NETFILTER_DROP", Why: "policy-drop", By: &policy},
	}
}

func answerOf(t testing.TB, prob ...float64) *Answer {
	h := router(t)
	w := h.NewWorld(h.Memory().Fork())
	a := &Answer{ID: "x", Assumed: []string{"a", "a"}}
	for i, p := range prob {
		b := Branch{Prob: p, Deps: []Deps{{h, &field.Deps{}}}}
		b.Taken = []world.Taken{{Index: i, Choice: world.Choice{N: len(prob),
			Key: world.Key{What: world.ChoiceStatistic}}}}
		for _, e := range every(t)[i:] {
			b.Steps = append(b.Steps, Step{Host: h, World: w, Event: e})
		}
		b.Outcomes = []Outcome{{h, w, trace.Outcome{Result: trace.Dropped, SKB: 1,
			Reason: "NETFILTER_DROP", Why: "policy-drop", By: &policy}}}
		a.Branches = append(a.Branches, b)
	}
	return a
}

// schema is the part of docs/trace.schema.json that the test looks at.
type schema struct {
	Defs struct {
		Event struct {
			Required   []string
			Properties struct{ Type struct{ Enum []string } }
			AllOf      []struct {
				If struct {
					Properties struct {
						Type struct {
							Enum  []string
							Const string
						}
					}
				}
				Then struct{ Required []string }
			}
		}
	} `json:"$defs"`
}

// TestSchema holds every event against the schema file: its type is there, and what
// is required is in it. A type that no event has is an error, too.
func TestSchema(t *testing.T) {
	text, err := os.ReadFile("../docs/trace.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	line, err := answerOf(t, 1).JSON()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Branches []struct{ Events []map[string]any }
	}
	if err := json.Unmarshal(line, &doc); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range doc.Branches[0].Events {
		typ, _ := e["type"].(string)
		seen[typ] = true
		if !slices.Contains(s.Defs.Event.Properties.Type.Enum, typ) {
			t.Errorf("event type %q is not in the schema", typ)
		}
		for _, key := range s.required(typ) {
			if _, ok := e[key]; !ok {
				t.Errorf("%s: %q is missing in %v", typ, key, e)
			}
		}
	}
	for _, typ := range s.Defs.Event.Properties.Type.Enum {
		if !seen[typ] {
			t.Errorf("no event of type %q", typ)
		}
	}
}

func (s *schema) required(typ string) []string {
	out := slices.Clone(s.Defs.Event.Required)
	for _, r := range s.Defs.Event.AllOf {
		if c := r.If.Properties.Type; c.Const == typ || slices.Contains(c.Enum, typ) {
			out = append(out, r.Then.Required...)
		}
	}
	return out
}

func TestJSON(t *testing.T) {
	line, err := answerOf(t, 0.75, 0.25).JSON()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`{"schema":"hookpath.trace/v1","id":"x","assumptions":["a"]`,
		`"probability":0.75,"choices":[{"what":"statistic"`, `"proto":"tcp","sport":40000,"dport":80`,
		`"verdict":"JUMP web"`, `"status":["SNAT"]`, `"to":"10.0.1.2:*"`,
		`"why":"policy-drop","by":{"family":"ip","table":"filter","chain":"FORWARD","rule":2}`,
		`"failed":"proto tcp"`} {
		if !strings.Contains(string(line), want) {
			t.Errorf("the JSON has no %s in %s", want, line)
		}
	}
	got, want := string(ErrorJSON("x", os.ErrNotExist)), `{"id":"x","error":"file does not exist"}`
	if got != want {
		t.Errorf("ErrorJSON = %s, want %s", got, want)
	}
}

// TestStory tells every event, in every width, without a line that is much too long.
func TestStory(t *testing.T) {
	for _, width := range []int{60, 100, 140} {
		text := string(answerOf(t, 0.75, 0.25).Story(Style{Width: width, AllRules: true}))
		for line := range strings.Lines(text) {
			if n := len(strings.TrimRight(line, "\n")); n > width+30 {
				t.Errorf("width %d: a line of %d: %s", width, n, line)
			}
		}
		for _, want := range []string{"DROPPED", "WHERE     r, filter FORWARD: policy", "eth0 in",
			"chosen 10.0.1.2 (eth1)", "passed over: eth0 10.0.0.1 (secondary)", "+-  75 %", "source check",
			"depends on:", "assumed:"} {
			if words := strings.Join(strings.Fields(text), " "); !strings.Contains(words,
				strings.Join(strings.Fields(want), " ")) {
				t.Errorf("width %d: no %q in\n%s", width, want, text)
			}
		}
	}
	if text := string(answerOf(t, 1).Story(Style{Colour: true})); !strings.Contains(text, red) {
		t.Errorf("no colour in\n%s", text)
	}
}

func TestKTrace(t *testing.T) {
	text := string(answerOf(t, 1).KTrace())
	for _, want := range []string{"TRACE: filter:FORWARD:rule:1 IN=eth0 OUT=eth1 ",
		"TRACE: filter:web:return:2 ", "TRACE: filter:FORWARD:policy:2 ", "SPT=40000 DPT=80", " SYN "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

func TestSetText(t *testing.T) {
	tests := []struct {
		id   field.ID
		set  field.Set
		want string
	}{
		{field.DstPort, field.Num(80), "80"},
		{field.DstPort, field.Between(1, 9), "1-9"},
		{field.DstPort, field.OneOf(1, 3, 5, 7, 9, 11), "1,3,5,7,9,..."},
		{field.Src, field.AddrPrefix(client, 24), "10.0.0.0/24"},
		{field.Src, field.AddrPrefix(client, 32), "10.0.0.1"},
		{field.Src, field.AddrRange(client, server), "10.0.0.1-10.0.1.2"},
		{field.Mark, field.Masked(field.U(1), field.U(3)), "0x1/0x3"},
		{field.Proto, field.Num(6), "tcp"},
		{field.Proto, field.Num(253), "253"},
		{field.Mark, field.Between(2, 1), "(none)"},
		{field.Mark, field.Set{}, "(any)"},
	}
	for _, tt := range tests {
		if got := setText(tt.id, &tt.set); got != tt.want {
			t.Errorf("setText(%v) = %q, want %q", tt.id, got, tt.want)
		}
	}
}

func TestDependText(t *testing.T) {
	tests := []struct {
		id   field.ID
		bits field.Value
		want string
	}{
		{field.Src, field.Ones(128), "src"},
		{field.Src, field.PrefixMask(128, 96+8), "src/8"},
		{field.Src, field.PrefixMask(128, 96), "src/0"},
		{field.Mark, field.U(0x4000), "mark&0x4000"},
		{field.DstPort, field.Ones(16), "dport"},
	}
	for _, tt := range tests {
		if got := dependText(tt.id, tt.bits); got != tt.want {
			t.Errorf("dependText(%v) = %q, want %q", tt.id, got, tt.want)
		}
	}
}

func TestShortRule(t *testing.T) {
	tests := []struct{ text, want string }{
		{"-p tcp -j ACCEPT", "-p tcp -j ACCEPT"},
		{`-p tcp -m comment --comment "the \"shop\"" -j X`, `-p tcp -j X  /* the \"shop\" */`},
		{`-m comment --comment "cali:abc" -j X`, "-j X"},
		{`-m comment --comment one -m comment --comment "two" -j X`, "-j X  /* one; two */"},
		{`-m comment --comment "open`, "/* open */"},
	}
	for _, tt := range tests {
		if got := shortRule(tt.text); got != tt.want {
			t.Errorf("shortRule(%s) = %s, want %s", tt.text, got, tt.want)
		}
	}
}

// TestFolded leaves out what led nowhere, however deep.
func TestFolded(t *testing.T) {
	h := router(t)
	jump := func(to int) trace.Event { return &trace.Rule{Ref: first, Verdict: trace.Jump, Chain: to} }
	ret := func(of int) trace.Event {
		return &trace.ChainEnd{Ref: trace.RuleRef{Chain: of}, Verdict: trace.Return}
	}
	hit := &trace.Rule{Ref: first, Verdict: trace.Continue}
	tests := []struct {
		in   []trace.Event
		want int
	}{
		{[]trace.Event{jump(3), ret(3)}, 0},
		{[]trace.Event{jump(3), jump(4), ret(4), ret(3)}, 0},
		{[]trace.Event{jump(3), hit, ret(3)}, 3},
		{[]trace.Event{jump(3), ret(4)}, 2},
		{[]trace.Event{hit, ret(3)}, 2},
	}
	for i, tt := range tests {
		var steps []Step
		for _, e := range tt.in {
			steps = append(steps, Step{Host: h, Event: e})
		}
		if got := len(folded(steps)); got != tt.want {
			t.Errorf("row %d: %d steps are left, want %d", i, got, tt.want)
		}
	}
}

// TestICMPLog holds what the log says of ICMP behind type and code.
func TestICMPLog(t *testing.T) {
	inner := "4500001c000140003f11000a0a0000010a000002" + "00010002000800000000"
	tests := []struct{ hex, want string }{
		{"0800000000050007", "ID=5 SEQ=7 "},
		{"0000000000050007", "ID=5 SEQ=7 "},
		{"0c00000014000000", "PARAMETER=20 "},
		{"0a00000000000000", ""},
		{"0301", ""},
		{"050000000a000009" + inner, "GATEWAY=10.0.0.9 [SRC=10.0.0.1 DST=10.0.0.2 LEN=28 TOS=0x00 " +
			"PREC=0x00 TTL=63 ID=1 DF PROTO=UDP SPT=1 DPT=2 LEN=8 ] "},
		{"0304000000000578" + inner, "[SRC=10.0.0.1 DST=10.0.0.2 LEN=28 TOS=0x00 PREC=0x00 TTL=63 " +
			"ID=1 DF PROTO=UDP SPT=1 DPT=2 LEN=8 ] MTU=1400 "},
	}
	for _, tt := range tests {
		b, err := hex.DecodeString(tt.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := icmpLog(b); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.hex, got, tt.want)
		}
	}
}
