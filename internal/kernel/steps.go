package kernel

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// chainKey names a chain.
type chainKey struct{ family, table, chain string }

// chain is what the text of the rules tells about a chain.
type chain struct {
	base   bool
	policy string
	// targets holds the verdict of each rule where its text alone tells it:
	// ACCEPT, DROP, RETURN, "JUMP C", "GOTO C"; else "".
	targets []string
	names   []string // of the targets, "" where a rule has none
}

// rulebook numbers the rules of a host.
type rulebook struct {
	chains  map[chainKey]*chain
	numbers map[ruleHandle]int // nf_tables only
	ours    map[chainKey]int   // how many of our own stand before a chain's: plain.go
}

// ruleHandle is a rule's handle, which only its table makes unique.
type ruleHandle struct {
	family, table string
	handle        uint64
}

// read adds the chains of iptables-save text.
func (r *rulebook) read(family, text string) {
	var key chainKey
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			key = chainKey{family: family, table: line[1:]}
		case strings.HasPrefix(line, ":"):
			f := strings.Fields(line[1:] + " - -")
			key.chain = f[0]
			r.chains[key] = &chain{base: f[1] != "-", policy: strings.Trim(f[1], "-")}
		default:
			r.rule(key, strings.Fields(line))
		}
	}
}

func (r *rulebook) rule(key chainKey, words []string) {
	if len(words) > 0 && strings.HasPrefix(words[0], "[") {
		words = words[1:]
	}
	if len(words) < 2 || words[0] != "-A" {
		return
	}
	key.chain = words[1]
	if c := r.chains[key]; c != nil {
		c.targets = append(c.targets, r.verdict(key, words))
		c.names = append(c.names, targetName(words))
	}
}

// verdict reads the -j or -g of a rule. Quoted text may hold these words, but
// an option's value never stands last with a chain behind it.
func (r *rulebook) verdict(key chainKey, words []string) string {
	for i := len(words) - 2; i >= 0; i-- {
		name := words[i+1]
		switch words[i] {
		case "-g", "--goto":
			return "GOTO " + name
		case "-j", "--jump":
			if slices.Contains([]string{"ACCEPT", "DROP", "RETURN"}, name) {
				return name
			}
			key.chain = name
			if r.chains[key] != nil {
				return "JUMP " + name
			}
			return ""
		}
	}
	return "CONTINUE"
}

func targetName(words []string) string {
	for i := len(words) - 2; i >= 0; i-- {
		if words[i] == "-j" || words[i] == "--jump" {
			return words[i+1]
		}
	}
	return ""
}

// droppers are the targets that may themselves drop a packet.
func droppers() []string {
	return []string{"DROP", "REJECT", "SNAT", "DNAT", "MASQUERADE", "REDIRECT", "NETMAP",
		"TPROXY", "SYNPROXY", "TCPMSS", "TCPOPTSTRIP", "CHECKSUM", "ECN"}
}

// hotdrop reports whether DROP at rule n is a match's doing: one that cannot
// read a header drops the packet. nf_tables then traces the rule, whose counter
// did not count it; legacy rules trace nothing (nft_compat.c, nft_match_eval).
// Where the target may drop too, that can't be told.
func (c *chain) hotdrop(n int) bool {
	return n >= 1 && n <= len(c.names) && !slices.Contains(droppers(), c.names[n-1])
}

// family is the word for an NFPROTO number.
func familyName(n uint8) string {
	switch n {
	case unix.NFPROTO_IPV4:
		return "ip"
	case unix.NFPROTO_IPV6:
		return "ip6"
	}
	return strconv.Itoa(int(n))
}

// legacyStep reads "TRACE: raw:PREROUTING:policy:2 ". The kernel names an
// unconditional ACCEPT, DROP or RETURN like the end of its chain; the number
// tells them apart (net/ipv4/netfilter/ip_tables.c, get_chainname_rulenum).
func (r *rulebook) legacyStep(family, prefix string) (Step, bool) {
	text, ok := strings.CutPrefix(prefix, "TRACE: ")
	if !ok {
		return Step{}, false
	}
	f := strings.Split(strings.TrimSpace(text), ":")
	if len(f) < 4 {
		return Step{}, false
	}
	// A chain's name may hold colons, the other fields do not.
	last := len(f) - 1
	s := Step{Family: family, Table: f[0], Chain: strings.Join(f[1:last-1], ":"),
		Kind: f[last-1]}
	s.N, _ = strconv.Atoi(f[last])
	s.N -= r.ours[chainKey{family, s.Table, s.Chain}]
	c := r.chains[chainKey{family, s.Table, s.Chain}]
	switch {
	case c == nil, s.N < 1: // one of our own
	case s.N <= len(c.targets):
		s.Kind, s.Verdict = "rule", c.targets[s.N-1]
	case s.Kind == "policy":
		s.Verdict = c.policy
	case s.Kind == "return":
		s.Verdict = "RETURN"
	}
	return s, true
}

// nftStep reads a message of the trace group. The end of a base chain comes as
// a return and then as a policy; only the latter is a step.
func (r *rulebook) nftStep(m message) (Step, bool) {
	var (
		s      = Step{Family: familyName(m.family)}
		handle uint64
		typ    uint32
		policy string
	)
	eachAttr(m.attrs, func(t uint16, data []byte) {
		switch t {
		case unix.NFTA_TRACE_TABLE:
			s.Table = cstring(data)
		case unix.NFTA_TRACE_CHAIN:
			s.Chain = cstring(data)
		case unix.NFTA_TRACE_RULE_HANDLE:
			handle = be64(data)
		case unix.NFTA_TRACE_TYPE:
			typ = be32(data)
		case unix.NFTA_TRACE_VERDICT:
			s.Verdict = nftVerdict(data)
		case unix.NFTA_TRACE_POLICY:
			policy = verdictName(int32(be32(data)), "")
		}
	})
	if s.Table == probeTable {
		return s, false
	}
	c := r.chains[chainKey{s.Family, s.Table, s.Chain}]
	end := 1
	if c != nil {
		end = len(c.targets) + 1
	}
	switch {
	case handle != 0:
		s.Kind, s.N = "rule", r.numbers[ruleHandle{s.Family, s.Table, handle}]
		if s.Verdict == "DROP" && c != nil && c.hotdrop(s.N) {
			s.Kind = "hotdrop"
		}
	case typ == unix.NFT_TRACETYPE_POLICY:
		s.Kind, s.N, s.Verdict = "policy", end, policy
	default:
		s.Kind, s.N, s.Verdict = "return", end, "RETURN"
		return s, c == nil || !c.base
	}
	return s, true
}

func nftVerdict(data []byte) string {
	code, name := int32(0), ""
	eachAttr(data, func(typ uint16, data []byte) {
		switch typ {
		case unix.NFTA_VERDICT_CODE:
			code = int32(be32(data))
		case unix.NFTA_VERDICT_CHAIN:
			name = cstring(data)
		}
	})
	return verdictName(code, name)
}

// verdictName names a verdict; code is NF_ACCEPT and so on, or NFT_RETURN.
func verdictName(code int32, chain string) string {
	switch code {
	case unix.NFT_JUMP:
		return "JUMP " + chain
	case unix.NFT_GOTO:
		return "GOTO " + chain
	case unix.NFT_RETURN:
		return "RETURN"
	case unix.NFT_CONTINUE, unix.NFT_BREAK:
		return "CONTINUE"
	}
	names := []string{"DROP", "ACCEPT", "STOLEN", "QUEUE", "REPEAT", "ACCEPT"}
	if i := int(code & 0xff); code >= 0 && i < len(names) {
		return names[i]
	}
	return fmt.Sprint(code)
}

// readHandles numbers the nf_tables rules of a family in their chains.
func (r *rulebook) readHandles(c *conn, family uint8) error {
	r.numbers = map[ruleHandle]int{}
	count := map[chainKey]int{}
	m := message{family: family}
	return c.dump(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, m, func(m message) {
		key := chainKey{family: familyName(m.family)}
		var handle uint64
		eachAttr(m.attrs, func(typ uint16, data []byte) {
			switch typ {
			case unix.NFTA_RULE_TABLE:
				key.table = cstring(data)
			case unix.NFTA_RULE_CHAIN:
				key.chain = cstring(data)
			case unix.NFTA_RULE_HANDLE:
				handle = be64(data)
			}
		})
		count[key]++
		r.numbers[ruleHandle{key.family, key.table, handle}] = count[key]
	})
}
