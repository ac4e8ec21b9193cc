package xtables

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// optionError is an error of one option; the parser adds file and line.
type optionError struct{ option, msg string }

func (e *optionError) Error() string { return e.option + ": " + e.msg }

func optErr(option, format string, v ...any) error {
	return &optionError{option, fmt.Sprintf(format, v...)}
}

// ruleParser reads the words of one rule. It is reused from line to line, so that a
// line costs no more than what its rule keeps.
type ruleParser struct {
	p     *parser
	words []word
	pos   int
	rule  Rule
	cmd   command
	srcs  []Prefix
	dsts  []Prefix
	rules []Rule // one for each pair of them
	// uses are the extensions of the line in order of loading, the target among
	// them; specs are their declarations, bound to this rule's values.
	uses  []use
	specs []Spec
	not   bool
	tests bool // options other than commands were given
	took  took
	// attached says that the argument and its option are one word.
	attached bool
	argv     Args
	ctx      Context
}

// took is an argument that looks like an option: where an error follows, it may be
// one.
type took struct {
	option, arg string
	end         int // words read with it
}

type use struct {
	match *MatchExt
	m     Match
	tgt   *TargetExt
	t     Target
}

// label is "-m mark" or "-j MARK".
func (u *use) label() string {
	if u.match != nil {
		return "-m " + u.match.Name
	}
	return "-j " + u.tgt.Name
}

func (rp *ruleParser) parse(p *parser, line string) ([]Rule, command, error) {
	rp.p, rp.pos, rp.not, rp.tests = p, 0, false, false
	rp.rule = Rule{Line: p.line}
	rp.cmd, rp.took = command{}, took{}
	rp.srcs, rp.dsts, rp.uses = rp.srcs[:0], rp.dsts[:0], rp.uses[:0]
	var err error
	if rp.words, err = splitWords(line, rp.words[:0]); err != nil {
		return nil, rp.cmd, err
	}
	for rp.pos < len(rp.words) {
		if err := rp.option(); err != nil {
			return nil, rp.cmd, err
		}
	}
	return rp.finish()
}

// next takes the next word, whatever it looks like.
func (rp *ruleParser) next() (string, bool) {
	if rp.pos >= len(rp.words) {
		return "", false
	}
	rp.pos++
	return rp.words[rp.pos-1].s, true
}

// nextArg takes the next word unless it is an option or "!".
func (rp *ruleParser) nextArg() (string, bool) {
	if rp.pos >= len(rp.words) {
		return "", false
	}
	if w := rp.words[rp.pos]; !w.quoted && (strings.HasPrefix(w.s, "-") || w.s == "!") {
		return "", false
	}
	return rp.next()
}

// option reads one option with its arguments.
func (rp *ruleParser) option() error {
	w, _ := rp.next()
	switch {
	case w == "!":
		if rp.not {
			return fmt.Errorf("two ! in a row")
		}
		rp.not = true
		if rp.pos >= len(rp.words) {
			return fmt.Errorf("! with nothing behind it")
		}
		return nil
	case strings.HasPrefix(w, "--") && len(w) > 2:
		return rp.long(w)
	case len(w) >= 2 && w[0] == '-' && w[1] != '-':
		return rp.short(w)
	}
	if rp.cmd.op == 0 {
		return fmt.Errorf("unknown line %q: expected -A CHAIN", cut(w))
	}
	if rp.took.end == rp.pos-1 && rp.took.option != "" {
		return fmt.Errorf("unexpected word %q: %s took %q as its argument, so a value is missing "+
			"before it", cut(w), rp.took.option, cut(rp.took.arg))
	}
	return fmt.Errorf("unexpected word %q", cut(w))
}

// short reads -x, -xARG.
func (rp *ruleParser) short(w string) error {
	c := w[1]
	for i := range basics {
		if basics[i].short == c {
			return rp.basic(&basics[i], w[:2], w[2:], len(w) > 2)
		}
	}
	return optErr(w[:2], "unknown option")
}

// long reads --name, --name=ARG, and unambiguous beginnings of a name.
func (rp *ruleParser) long(w string) error {
	name, arg, hasArg := strings.Cut(w[2:], "=")
	if b, u, o, n := rp.lookup(name); n > 0 {
		if n > 1 {
			return optErr("--"+name, "the option is ambiguous")
		}
		if b != nil {
			return rp.basic(b, "--"+b.long, arg, hasArg)
		}
		return rp.extOption(u, o, arg, hasArg)
	}
	// The protocol's own match is loaded when it might know the option.
	// iptables: iptables/xshared.c, load_proto.
	if rp.loadProto() {
		return rp.long(w)
	}
	return optErr("--"+cut(name), "unknown option")
}

// lookup finds an option by name: an exact name first, in the order in which the
// options were loaded, latest extension first; else a beginning that only one has.
func (rp *ruleParser) lookup(name string) (b *basic, u, o, n int) {
	for i := range basics {
		if basics[i].long == name {
			return &basics[i], 0, 0, 1
		}
	}
	for i := len(rp.uses) - 1; i >= 0; i-- {
		if j := rp.specs[i].find(name); j >= 0 {
			return nil, i, j, 1
		}
	}
	for i := range basics {
		if strings.HasPrefix(basics[i].long, name) {
			b = &basics[i]
			n++
		}
	}
	for i := range rp.uses {
		for j := range rp.specs[i].opts {
			if strings.HasPrefix(rp.specs[i].opts[j].Name, name) {
				b, u, o = nil, i, j
				n++
			}
		}
	}
	return b, u, o, n
}

func (rp *ruleParser) loadProto() bool {
	if rp.rule.IP.Proto == 0 {
		return false
	}
	ext := rp.p.cat.byProto[rp.rule.IP.Proto]
	if ext == nil {
		return false
	}
	for _, u := range rp.uses {
		if u.match == ext {
			return false
		}
	}
	rp.loadMatch(ext)
	return true
}

func (rp *ruleParser) loadMatch(ext *MatchExt) {
	m := ext.New()
	rp.bind(use{match: ext, m: m}, m.Options)
}

func (rp *ruleParser) bind(u use, declare func(*Spec)) {
	n := len(rp.uses)
	rp.uses = append(rp.uses, u)
	if n == len(rp.specs) {
		rp.specs = append(rp.specs, Spec{})
	}
	rp.specs[n].reset()
	declare(&rp.specs[n])
}

// extOption reads the option o of the extension u.
func (rp *ruleParser) extOption(u, o int, arg string, hasArg bool) error {
	rp.tests = true
	opt := &rp.specs[u].opts[o]
	if opt.given && opt.bits&multi == 0 {
		return rp.badOption(u, o, "the option is given twice")
	}
	opt.given = true
	if rp.not {
		if opt.not == nil {
			return rp.badOption(u, o, "! can't negate this option")
		}
		*opt.not = true
	}
	not := rp.not
	rp.not = false
	if opt.flag != nil {
		*opt.flag = true
	}
	if opt.bits&noArg != 0 && hasArg {
		return rp.badOption(u, o, "the option takes no argument")
	}
	if opt.value == nil {
		return nil
	}
	if opt.bits&noArg == 0 && !hasArg {
		var ok bool
		if arg, ok = rp.next(); !ok {
			return rp.badOption(u, o, "the option needs an argument")
		}
	}
	rp.argv = Args{Word: arg, Family: rp.p.cat.family, Version: rp.p.rs.Version, Not: not,
		Proto: rp.rule.IP.Proto, warn: rp.p.warn, next: rp.nextArg}
	if err := opt.value.Parse(&rp.argv); err != nil {
		return rp.badOption(u, o, err.Error())
	}
	return nil
}

func (rp *ruleParser) badOption(u, o int, msg string) error {
	return &optionError{rp.uses[u].label() + ": --" + rp.specs[u].opts[o].Name, msg}
}

// basic is an option of iptables itself.
type basic struct {
	short byte
	long  string
	parse func(rp *ruleParser, arg string) error
	arg   bool // takes an argument
	not   bool // may be negated
	verb  bool // is a command
}

// basics are the options that a line of a save file may have. Those that it may
// not have are here too, since they make beginnings of names ambiguous.
var basics = []basic{
	{short: 'A', long: "append", arg: true, verb: true},
	{short: 'D', long: "delete", arg: true, verb: true},
	{short: 'C', long: "check", arg: true, verb: true},
	{short: 'I', long: "insert", arg: true, verb: true},
	{short: 'R', long: "replace", arg: true, verb: true},
	{short: 'L', long: "list", verb: true},
	{short: 'S', long: "list-rules", verb: true},
	{short: 'F', long: "flush", verb: true},
	{short: 'Z', long: "zero", verb: true},
	{short: 'N', long: "new-chain", arg: true, verb: true},
	{short: 'X', long: "delete-chain", verb: true},
	{short: 'E', long: "rename-chain", arg: true, verb: true},
	{short: 'P', long: "policy", arg: true, verb: true},
	{short: 'h', long: "help", verb: true},
	{short: 'V', long: "version", verb: true},
	{short: 's', long: "source", parse: (*ruleParser).optSource, arg: true, not: true},
	{long: "src", parse: (*ruleParser).optSource, arg: true, not: true},
	{short: 'd', long: "destination", parse: (*ruleParser).optDestination, arg: true, not: true},
	{long: "dst", parse: (*ruleParser).optDestination, arg: true, not: true},
	{short: 'p', long: "protocol", parse: (*ruleParser).optProto, arg: true, not: true},
	{short: 'i', long: "in-interface", parse: (*ruleParser).optIn, arg: true, not: true},
	{short: 'o', long: "out-interface", parse: (*ruleParser).optOut, arg: true, not: true},
	{short: 'j', long: "jump", parse: (*ruleParser).optJump, arg: true},
	{short: 'g', long: "goto", parse: (*ruleParser).optGoto, arg: true},
	{short: 'm', long: "match", parse: (*ruleParser).optMatch, arg: true},
	{short: 'f', long: "fragments", parse: (*ruleParser).optFragment, not: true},
	{short: 'c', long: "set-counters", parse: (*ruleParser).optCounters, arg: true},
	{short: '4', long: "ipv4", parse: (*ruleParser).optIPv4},
	{short: '6', long: "ipv6", parse: (*ruleParser).optIPv6},
	{short: 'v', long: "verbose", parse: (*ruleParser).optVerbose},
	{short: 't', long: "table", parse: (*ruleParser).optRefused, arg: true},
	{short: 'w', long: "wait", parse: (*ruleParser).optRefused},
	{short: 'W', long: "wait-interval", parse: (*ruleParser).optRefused},
	{short: 'n', long: "numeric", parse: (*ruleParser).optRefused},
	{short: 'x', long: "exact", parse: (*ruleParser).optRefused},
	{short: 'M', long: "modprobe", parse: (*ruleParser).optRefused, arg: true},
	{long: "line-numbers", parse: (*ruleParser).optRefused},
}

// optRefused is an option that iptables-restore or a command that changes rules
// does not take.
func (rp *ruleParser) optRefused(string) error {
	return fmt.Errorf("the option can't be used in a save file")
}

func (rp *ruleParser) optVerbose(string) error { return nil }

func (rp *ruleParser) basic(b *basic, label, arg string, hasArg bool) error {
	if b.verb {
		return rp.verb(b, label, arg, hasArg)
	}
	if rp.not && !b.not {
		return optErr(label, "! can't negate this option")
	}
	rp.tests = true
	if b.arg && !hasArg {
		var ok bool
		if arg, ok = rp.next(); !ok {
			return optErr(label, "the option needs an argument")
		}
	}
	if strings.HasPrefix(arg, "-") {
		rp.took = took{label, arg, rp.pos}
	}
	if b.arg && arg == "!" {
		return optErr(label, "! stands before the option since iptables 1.4.3: \"! %s\"", label)
	}
	if !b.arg && hasArg {
		return optErr(label, "the option takes no argument")
	}
	rp.attached = hasArg
	err := b.parse(rp, arg)
	rp.not = false
	if errors.Is(err, errOtherFamily) {
		return err // as it is: the line is passed over
	}
	if err != nil {
		return optErr(label, "%v", err)
	}
	return nil
}

func (rp *ruleParser) invert(bit Not) {
	if rp.not {
		rp.rule.IP.Not |= bit
	}
}

func (rp *ruleParser) optSource(arg string) (err error) {
	if len(rp.srcs) > 0 {
		return fmt.Errorf("the option is given twice")
	}
	rp.invert(NotSrc)
	rp.srcs, err = rp.prefixes(rp.srcs, arg)
	return err
}

func (rp *ruleParser) optDestination(arg string) (err error) {
	if len(rp.dsts) > 0 {
		return fmt.Errorf("the option is given twice")
	}
	rp.invert(NotDst)
	rp.dsts, err = rp.prefixes(rp.dsts, arg)
	return err
}

// prefixes reads a list of addresses; each makes a rule of its own.
func (rp *ruleParser) prefixes(out []Prefix, arg string) ([]Prefix, error) {
	for {
		one, rest, more := strings.Cut(arg, ",")
		p, err := ParsePrefix(one, rp.p.cat.family)
		if err != nil {
			return out, err
		}
		out = append(out, p)
		if !more {
			break
		}
		arg = rest
	}
	if len(out) > 1 && rp.not {
		return out, fmt.Errorf("! is not allowed with several addresses")
	}
	return out, nil
}

func (rp *ruleParser) optProto(arg string) error {
	if rp.attached && rp.p.rs.Version < V1811 {
		return fmt.Errorf("iptables 1.8.9 does not read a protocol that is written in one word with " +
			"the option")
	}
	if rp.rule.IP.ProtoSet {
		return fmt.Errorf("the option is given twice")
	}
	n, err := ParseProto(strings.ToLower(arg))
	if err != nil {
		return err
	}
	if n == 0 && rp.not {
		return fmt.Errorf("the rule would never match: ! all")
	}
	rp.invert(NotProto)
	rp.rule.IP.Proto, rp.rule.IP.ProtoSet = n, true
	return nil
}

func (rp *ruleParser) optIn(arg string) (err error) {
	if rp.rule.IP.In != "" {
		return fmt.Errorf("the option is given twice")
	}
	rp.invert(NotIn)
	rp.rule.IP.In, err = rp.ifaceName(arg)
	return err
}

func (rp *ruleParser) optOut(arg string) (err error) {
	if rp.rule.IP.Out != "" {
		return fmt.Errorf("the option is given twice")
	}
	rp.invert(NotOut)
	rp.rule.IP.Out, err = rp.ifaceName(arg)
	return err
}

// ifaceName checks an interface name or pattern. Of "! +", which no packet matches,
// iptables-legacy-save printed nothing before 1.8.11: the empty name says so.
//
// iptables: libxtables/xtables.c, xtables_parse_interface.
func (rp *ruleParser) ifaceName(s string) (string, error) {
	const ifnamsiz = 16
	switch {
	case s == "":
		return "", fmt.Errorf("the interface name is empty")
	case len(s) >= ifnamsiz:
		return "", fmt.Errorf("interface name %q has more than %d bytes", s, ifnamsiz-1)
	case s == "+" && rp.not && rp.p.rs.Version < V1811 && rp.p.rs.Backend == Legacy:
		return "", nil
	}
	return s, nil
}

func (rp *ruleParser) optFragment(string) error {
	if rp.p.cat.family != trace.IPv4 {
		return fmt.Errorf("IPv6 has no -f: use -m frag")
	}
	rp.invert(NotFrag)
	rp.rule.IP.Frag = true
	return nil
}

func (rp *ruleParser) optCounters(arg string) (err error) {
	a, b, both := strings.Cut(arg, ",")
	if !both {
		var ok bool
		if b, ok = rp.nextArg(); !ok {
			return fmt.Errorf("packet and byte counter are needed")
		}
	}
	if rp.rule.Counters.Packets, err = parseCounter(a); err != nil {
		return err
	}
	rp.rule.HasCounters = true
	rp.rule.Counters.Bytes, err = parseCounter(b)
	return err
}

func (rp *ruleParser) optIPv4(string) error { return rp.onlyFamily(trace.IPv4) }
func (rp *ruleParser) optIPv6(string) error { return rp.onlyFamily(trace.IPv6) }

// errOtherFamily marks a line that is for the other family: it is passed over, as
// iptables-restore does.
var errOtherFamily = fmt.Errorf("the line is for the other family")

func (rp *ruleParser) onlyFamily(f trace.Family) error {
	if rp.p.cat.family != f {
		return errOtherFamily
	}
	return nil
}

func (rp *ruleParser) optMatch(arg string) error {
	ext := rp.p.cat.matches[arg]
	if ext == nil {
		return fmt.Errorf("unknown match %q", cut(arg))
	}
	rp.loadMatch(ext)
	return nil
}

func (rp *ruleParser) optGoto(arg string) error {
	rp.rule.Goto = true
	return rp.setJump(arg)
}

func (rp *ruleParser) setJump(arg string) error {
	if rp.rule.Jump != "" || rp.rule.Ext != nil {
		return fmt.Errorf("a rule has one target")
	}
	if arg == "" || len(arg) > maxChainName {
		return fmt.Errorf("%q can't be the name of a target or chain", cut(arg))
	}
	rp.rule.Jump = arg
	return nil
}

func (rp *ruleParser) optJump(arg string) error {
	ext := rp.p.cat.targets[arg]
	// A chain may have the name of an extension: the chain wins.
	if ext == nil || rp.p.table.byName[arg] != nil {
		return rp.setJump(arg)
	}
	if rp.rule.Jump != "" || rp.rule.Ext != nil {
		return fmt.Errorf("a rule has one target")
	}
	t := ext.New()
	rp.rule.Ext, rp.rule.Target = ext, t
	rp.bind(use{tgt: ext, t: t}, t.Options)
	return nil
}

// finish checks the whole line and makes its rules: one for each pair of source
// and destination.
func (rp *ruleParser) finish() ([]Rule, command, error) {
	if rp.not {
		return nil, rp.cmd, fmt.Errorf("! with nothing behind it")
	}
	if !rp.cmd.takesRule() {
		return nil, rp.cmd, rp.bare()
	}
	if err := rp.checkDevices(); err != nil {
		return nil, rp.cmd, err
	}
	if err := rp.finishUses(); err != nil {
		return nil, rp.cmd, err
	}
	return rp.expand(), rp.cmd, nil
}

func (rp *ruleParser) checkDevices() error {
	switch h, ok := builtinHook(rp.p.table.Name, rp.cmd.chain); {
	case !ok:
	case rp.rule.IP.Out != "" && (h == trace.Prerouting || h == trace.Input):
		return optErr("-o", "there is no out interface in %s yet", rp.cmd.chain)
	case rp.rule.IP.In != "" && (h == trace.Output || h == trace.Postrouting):
		return optErr("-i", "there is no in interface in %s", rp.cmd.chain)
	}
	return nil
}

func (rp *ruleParser) finishUses() error {
	rp.ctx = Context{Family: rp.p.cat.family, Version: rp.p.rs.Version,
		Backend: rp.p.rs.Backend, Table: rp.p.table.Name, Rule: &rp.rule}
	n := 0
	for _, u := range rp.uses {
		if u.m != nil {
			n++
		}
	}
	if n > 0 {
		rp.rule.Matches = make([]MatchUse, 0, n)
	}
	for _, u := range rp.uses {
		if u.m != nil {
			rp.rule.Matches = append(rp.rule.Matches, MatchUse{u.match, u.m})
		}
	}
	for i, u := range rp.uses {
		rp.ctx.Spec = &rp.specs[i]
		if err := rp.specs[i].finish(&rp.ctx); err != nil {
			return &optionError{u.label(), err.Error()}
		}
		if err := rp.checkLimits(u); err != nil {
			return &optionError{u.label(), err.Error()}
		}
	}
	rp.rule.Matches = slices.DeleteFunc(rp.rule.Matches, func(m MatchUse) bool {
		v, ok := m.M.(Vanisher)
		return ok && v.Gone(&rp.ctx)
	})
	return nil
}

// checkLimits refuses what the kernel would refuse at load.
//
// Kernel: net/netfilter/x_tables.c, xt_check_match and xt_check_target.
func (rp *ruleParser) checkLimits(u use) error {
	l := Limits{}
	if u.match != nil {
		l = u.match.Limits
	} else {
		l = rp.rule.Ext.Limits
	}
	if len(l.Tables) > 0 && !contains(l.Tables, rp.p.table.Name) {
		return fmt.Errorf("is only for table %s, not %s", strings.Join(l.Tables, ", "),
			rp.p.table.Name)
	}
	if len(l.Protos) == 0 {
		return nil
	}
	for _, n := range l.Protos {
		if rp.ctx.Proto() == n {
			return nil
		}
	}
	return fmt.Errorf("needs -p %s", protoList(l.Protos))
}

func protoList(ns []uint8) string {
	s := ProtoName(ns[0])
	for _, n := range ns[1:] {
		s += " or " + ProtoName(n)
	}
	return s
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

var anyPrefix = map[trace.Family]Prefix{
	trace.IPv4: {packet.V4(0), packet.V4(0)},
	trace.IPv6: {},
}

func (rp *ruleParser) expand() []Rule {
	if len(rp.srcs) == 0 {
		rp.srcs = append(rp.srcs, anyPrefix[rp.p.cat.family])
	}
	if len(rp.dsts) == 0 {
		rp.dsts = append(rp.dsts, anyPrefix[rp.p.cat.family])
	}
	rp.rules = rp.rules[:0]
	for _, s := range rp.srcs {
		for _, d := range rp.dsts {
			rp.rule.IP.Src, rp.rule.IP.Dst = s, d
			rp.rules = append(rp.rules, rp.rule)
		}
	}
	return rp.rules
}
