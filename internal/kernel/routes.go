package kernel

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// stateWords are words of ip route show that tell of a route's state and are
// not accepted by ip route add.
var stateWords = []string{"linkdown", "dead", "pervasive", "offload", "trap", "notify",
	"unresolved", "rt_offload", "rt_trap", "offload_failed"}

// Ranks of routes: a gateway must be reachable when its route is added, and a
// preferred source must be local, while the listing is sorted by prefix.
const (
	rankOwn = iota // local and a single address: its own preferred source
	rankLocal
	rankLink
	rankVia
	ranks
)

// routes appends the routes of ip route show table all. Those that the kernel
// made with the addresses are flushed first, so that the listing alone tells,
// in its order, what there is. A listing without the local table is of other
// tables only: it adds to what the kernel made.
func (b *batch) routes(text string, nexthops []ipNexthop) error {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	if strings.Contains(text, " table local") {
		b.line("route flush table all")
	}
	var lines [ranks][]string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(strings.TrimSpace(line), "nh_info") {
			continue // -d tells of the nexthop object, on a line of its own even with -o
		}
		words := routeWords(line)
		if len(words) == 0 {
			continue
		}
		r := routeRank(words)
		lines[r] = append(lines[r], strings.Join(words, " "))
	}
	for r, all := range lines {
		if r == rankVia {
			b.nexthops(nexthops)
		}
		for _, line := range all {
			b.line("route append", line)
		}
	}
	return nil
}

// routeWords are the words of a listed route that make it again.
func routeWords(line string) []string {
	words := strings.Fields(strings.ReplaceAll(line, "\\", " "))
	out := words[:0]
	for i := 0; i < len(words); i++ {
		switch {
		case slices.Contains(stateWords, words[i]):
		case words[i] == "error": // of an IPv6 reject route
			i++
		default:
			out = append(out, words[i])
		}
	}
	if i := slices.Index(out, "nhid"); i >= 0 {
		return withoutHops(out)
	}
	return out
}

// withoutHops keeps only the nhid of a route whose hops are an object's.
func withoutHops(words []string) []string {
	var out []string
	for i := 0; i < len(words); i++ {
		switch words[i] {
		case "nexthop", "onlink", "blackhole": // that is the object's
		case "via", "dev", "weight":
			i++
		default:
			out = append(out, words[i])
		}
	}
	return out
}

func routeRank(words []string) int {
	switch {
	case slices.Contains(words, "via"), slices.Contains(words, "nhid"):
		return rankVia
	case words[0] == "local" && !strings.Contains(words[1], "/"):
		return rankOwn
	case words[0] == "local", words[0] == "broadcast":
		return rankLocal
	}
	return rankLink
}

// ipNexthop is one element of ip -d -j nexthop.
type ipNexthop struct {
	ID        int    `json:"id"`
	Gateway   string `json:"gateway"`
	Via       any    `json:"via"`
	Dev       string `json:"dev"`
	Scope     string `json:"scope"`
	Protocol  string `json:"protocol"`
	Blackhole any    `json:"blackhole"`
	Flags     []string
	Type      string `json:"type"`
	Group     []struct {
		ID     int `json:"id"`
		Weight int `json:"weight"`
	} `json:"group"`
	FDB any `json:"fdb"`

	blackhole, fdb bool
}

// UnmarshalJSON notes which of the words without a value are there: iproute2
// prints them as null.
func (n *ipNexthop) UnmarshalJSON(b []byte) error {
	type plain ipNexthop
	if err := json.Unmarshal(b, (*plain)(n)); err != nil {
		return err
	}
	n.blackhole = bytes.Contains(b, []byte(`"blackhole"`))
	n.fdb = bytes.Contains(b, []byte(`"fdb"`))
	return nil
}

func (b *batch) nexthops(all []ipNexthop) {
	for _, n := range all {
		if len(n.Group) == 0 {
			b.line("nexthop add id", fmt.Sprint(n.ID), n.single())
		}
	}
	for _, n := range all {
		if len(n.Group) > 0 {
			b.line("nexthop add id", fmt.Sprint(n.ID), n.group())
		}
	}
}

func (n *ipNexthop) single() string {
	var b batch
	if n.blackhole {
		return "blackhole"
	}
	b.option("via", n.Gateway)
	b.option("dev", n.Dev)
	if slices.Contains(n.Flags, "onlink") {
		b.WriteString(" onlink")
	}
	b.option("proto", n.Protocol)
	return b.String()
}

func (n *ipNexthop) group() string {
	var members []string
	for _, m := range n.Group {
		members = append(members, fmt.Sprintf("%d,%d", m.ID, max(m.Weight, 1)))
	}
	s := "group " + strings.Join(members, "/")
	if n.Type != "" && n.Type != "mpath" {
		s += " type " + n.Type
	}
	return s
}

// rules appends what turns the three rules of a fresh namespace into those of
// ip -d -j rule.
func (b *batch) rules(h *Host, file string) error {
	rules, err := decode[map[string]any](h, file)
	if err != nil || len(rules) == 0 {
		return err
	}
	var all, fresh batch
	for _, r := range rules {
		text, err := ruleText(r)
		if err != nil {
			return &UnsupportedError{h.Name, file, fmt.Sprint("rule ", r["priority"]), err.Error()}
		}
		all.line("rule add", text)
	}
	for _, r := range freshRules {
		text, _ := ruleText(r)
		fresh.line("rule add", text)
	}
	if all.String() == fresh.String() {
		return nil // a change would stay: fib_has_custom_rules is never cleared
	}
	for _, pref := range []string{"0", "32766", "32767"} {
		b.line("rule del pref", pref)
	}
	b.WriteString(all.String())
	return nil
}

// freshRules are those of a new namespace.
var freshRules = []map[string]any{
	{"priority": 0.0, "src": "all", "table": "local"},
	{"priority": 32766.0, "src": "all", "table": "main"},
	{"priority": 32767.0, "src": "all", "table": "default"},
}

// ruleKeys are the keys of a rule in JSON that are words of ip rule add too.
// The rest is written by ruleText.
var ruleKeys = []string{"iif", "oif", "tos", "dsfield", "ipproto", "goto", "l3mdev",
	"suppress_prefixlength", "suppress_ifgroup", "protocol", "tun_id"}

// ruleKnown are the keys that ruleText reads, besides ruleKeys.
var ruleKnown = []string{"priority", "not", "src", "srclen", "dst", "dstlen", "fwmark",
	"fwmask", "uid_start", "uid_end", "sport", "sport_start", "sport_end", "sport_mask",
	"dport", "dport_start", "dport_end", "dport_mask", "table", "action", "nop",
	"suppress_prefixlen", "iif_detached", "oif_detached", "unresolved", "goto"}

// ruleText turns a rule of ip -j into the words of ip rule add.
func ruleText(r map[string]any) (string, error) {
	for key := range r {
		if !slices.Contains(ruleKnown, key) && !slices.Contains(ruleKeys, key) {
			return "", fmt.Errorf("unknown key %q", key)
		}
	}
	var b batch
	if _, ok := r["not"]; ok {
		b.WriteString("not")
	}
	b.option("from", prefixText(r, "src"))
	b.option("to", prefixText(r, "dst"))
	b.option("pref", jsonText(r["priority"]))
	b.ruleMarks(r)
	for _, key := range ruleKeys {
		if v, ok := r[key]; ok && key != "goto" && key != "protocol" {
			b.option(key, jsonText(v))
		}
	}
	b.option("suppress_prefixlength", jsonText(r["suppress_prefixlen"]))
	if p := jsonText(r["protocol"]); p != "unspec" {
		b.option("protocol", p)
	}
	b.ruleAction(r)
	return b.String(), nil
}

func (b *batch) ruleMarks(r map[string]any) {
	if mark := jsonText(r["fwmark"]); mark != "" {
		if mask := jsonText(r["fwmask"]); mask != "" {
			mark += "/" + mask
		}
		b.option("fwmark", mark)
	}
	if _, ok := r["uid_start"]; ok {
		b.option("uidrange", jsonText(r["uid_start"])+"-"+jsonText(r["uid_end"]))
	}
	for _, key := range []string{"sport", "dport"} {
		switch {
		case r[key+"_start"] != nil:
			b.option(key, jsonText(r[key+"_start"])+"-"+jsonText(r[key+"_end"]))
		case r[key] != nil:
			b.option(key, jsonText(r[key]))
		}
	}
}

func (b *batch) ruleAction(r map[string]any) {
	_, nop := r["nop"]
	switch {
	case nop:
		b.WriteString(" nop")
	case r["goto"] != nil:
		b.option("goto", jsonText(r["goto"]))
	case r["action"] != nil:
		b.WriteString(" " + jsonText(r["action"]))
	case r["table"] != nil:
		b.option("lookup", jsonText(r["table"]))
	}
}

// prefixText is key and keylen as a prefix, "all" for every address.
func prefixText(r map[string]any, key string) string {
	s := jsonText(r[key])
	if n := jsonText(r[key+"len"]); n != "" && s != "all" && s != "" {
		s += "/" + n
	}
	return s
}

// jsonText is a JSON scalar as ip prints it in its plain text. Absent is "".
func jsonText(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case float64:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprint(v)
}
