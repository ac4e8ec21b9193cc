package xtables

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/hookpath/hookpath/trace"
)

// command is what a line does: -A as iptables-save prints it, or any other command
// that iptables-restore takes.
//
// iptables: iptables/xshared.c, do_parse; iptables/iptables.c, do_command4.
type command struct {
	op    byte   // its letter; zero for none
	chain string // empty for all chains
	num   int    // the rule of -I, -D, -R and -Z, from 1; zero for none
	word  string // the policy of -P, the new name of -E
}

// takesRule tells whether the command reads a rule behind its chain.
func (c *command) takesRule() bool {
	switch c.op {
	case 'A', 'I', 'R', 'C':
		return true
	case 'D':
		return c.num == 0
	}
	return false
}

// bare checks a line whose command takes no rule.
func (rp *ruleParser) bare() error {
	switch {
	case rp.cmd.op == 0:
		return fmt.Errorf("the line has no -A CHAIN")
	case rp.tests:
		return optErr("-"+string(rp.cmd.op), "the command takes no rule")
	}
	return nil
}

// verb reads a command with its chain and what follows it.
func (rp *ruleParser) verb(b *basic, label, arg string, hasArg bool) (err error) {
	switch {
	case rp.not:
		return optErr(label, "the option can't be negated with !")
	case rp.cmd.op != 0:
		return optErr(label, "a line has one command")
	case hasArg && b.arg:
	case b.arg:
		if arg, hasArg = rp.nextArg(); !hasArg {
			return optErr(label, "the option needs an argument")
		}
	case !hasArg && b.short != 'h' && b.short != 'V':
		arg, hasArg = rp.nextArg()
	}
	rp.cmd = command{op: b.short, chain: arg}
	if msg := badChainName(arg); hasArg && msg != "" {
		return optErr(label, "chain %q: %s", cut(arg), msg)
	}
	if err := rp.verbWords(); err != nil {
		return optErr(label, "%v", err)
	}
	return nil
}

// verbWords reads what stands behind the chain of a command.
func (rp *ruleParser) verbWords() (err error) {
	c := &rp.cmd
	switch c.op {
	case 'P', 'E':
		var ok bool
		if c.word, ok = rp.nextArg(); !ok {
			return fmt.Errorf("the option needs two arguments")
		}
	case 'D', 'I', 'R', 'Z', 'L', 'S':
		word, ok := rp.nextArg()
		if !ok {
			break
		}
		if c.num, err = strconv.Atoi(word); err != nil || c.num < 1 {
			return fmt.Errorf("%q is not the number of a rule", cut(word))
		}
	}
	if c.op == 'R' && c.num == 0 {
		return fmt.Errorf("the number of the rule is missing")
	}
	if c.op == 'I' && c.num == 0 {
		c.num = 1
	}
	return nil
}

// run does what a line says.
func (p *parser) run(cmd command, rules []Rule) error {
	switch cmd.op {
	case 'N':
		return p.create(cmd.chain)
	case 'L', 'S':
		return nil // prints, and changes nothing
	case 'h', 'V':
		p.ended = true
		return p.abandon(cmd.op)
	}
	if cmd.chain == "" {
		return p.all(cmd)
	}
	c := p.table.byName[cmd.chain]
	if c == nil {
		if _, ok := builtinHook(p.table.Name, cmd.chain); !ok {
			return fmt.Errorf("chain %q does not exist in table %q: a line \":%s - [0:0]\" is missing",
				cut(cmd.chain), p.table.Name, cut(cmd.chain))
		}
		c = p.newChain(cmd.chain)
	}
	return p.change(c, cmd, rules)
}

// abandon ends the file: iptables-restore prints its help or version and exits, and
// the table that it read is not committed.
func (p *parser) abandon(op byte) error {
	p.warn(fmt.Sprintf("-%c ends iptables-restore: table %q is not loaded, and nothing behind it",
		op, p.table.Name))
	p.flushTable()
	for _, c := range p.table.Chains {
		c.Policy, c.Counters = trace.Accept, Counters{}
	}
	p.commit()
	return nil
}

// all does a command for every chain.
func (p *parser) all(cmd command) error {
	for _, c := range slices.Clone(p.table.Chains) {
		if cmd.op == 'X' && c.Builtin {
			continue
		}
		if err := p.change(c, cmd, nil); err != nil {
			return err
		}
	}
	return nil
}

// change does a command to one chain.
func (p *parser) change(c *Chain, cmd command, rules []Rule) error {
	if cmd.op != 'A' {
		if err := p.spend(len(c.Rules) + 1); err != nil {
			return err
		}
	}
	if cmd.num > len(c.Rules) && cmd.op != 'I' || cmd.num > len(c.Rules)+1 {
		return optErr("-"+string(cmd.op), "index %d is beyond the end of chain %q", cmd.num, c.Name)
	}
	switch cmd.op {
	case 'A':
		p.store.add(c, rules)
	case 'I':
		slices.Reverse(rules) // of several addresses each goes to the same place
		c.Rules = slices.Insert(c.Rules, cmd.num-1, rules...)
	case 'R':
		return p.replace(c, cmd.num-1, rules)
	case 'D':
		return p.remove(c, cmd.num-1, rules)
	case 'C':
		return p.check(c, rules)
	case 'F':
		c.Rules = nil
	case 'Z':
		zero(c, cmd.num)
	case 'X':
		return p.deleteChain(c)
	case 'E':
		return p.rename(c, cmd.word)
	case 'P':
		return p.setPolicy(c, cmd.word)
	}
	return nil
}

// maxWork bounds the rules that commands other than -A may go over.
const maxWork = 1 << 28

func (p *parser) spend(n int) error {
	if p.work += n; p.work > maxWork {
		return fmt.Errorf("too many commands that search long chains")
	}
	return nil
}

func (p *parser) create(name string) error {
	_, builtin := builtinHook(p.table.Name, name)
	if builtin || p.table.byName[name] != nil {
		return optErr("-N", "chain %q exists", name)
	}
	p.newChain(name)
	return nil
}

func (p *parser) replace(c *Chain, at int, rules []Rule) error {
	if len(rules) != 1 {
		return optErr("-R", "several addresses can't replace one rule")
	}
	c.Rules[at] = rules[0]
	return nil
}

func (p *parser) remove(c *Chain, at int, rules []Rule) error {
	if at >= 0 {
		c.Rules = slices.Delete(c.Rules, at, at+1)
		return nil
	}
	for i := range rules {
		at := p.find(c, &rules[i])
		if at < 0 {
			return optErr("-D", "chain %q has no such rule", c.Name)
		}
		c.Rules = slices.Delete(c.Rules, at, at+1)
	}
	return nil
}

func (p *parser) check(c *Chain, rules []Rule) error {
	for i := range rules {
		if p.find(c, &rules[i]) < 0 {
			return optErr("-C", "chain %q has no such rule", c.Name)
		}
	}
	return nil
}

// find returns the first rule of a chain that is the same as r: it says so where it
// prints the same.
func (p *parser) find(c *Chain, r *Rule) int {
	want := string(AppendRule(nil, p.rs.Family, r))
	var b []byte
	return slices.IndexFunc(c.Rules, func(o Rule) bool {
		if o.IP.Src != r.IP.Src || o.IP.Dst != r.IP.Dst || o.Jump != r.Jump || o.Ext != r.Ext ||
			len(o.Matches) != len(r.Matches) {
			return false
		}
		b = AppendRule(b[:0], p.rs.Family, &o)
		return string(b) == want
	})
}

// zero sets the counters of a rule, or with num 0 of a chain and all its rules.
func zero(c *Chain, num int) {
	if num == 0 {
		c.Counters = Counters{}
	}
	for i := range c.Rules {
		if num == 0 || i == num-1 {
			c.Rules[i].Counters = Counters{}
		}
	}
}

func (p *parser) deleteChain(c *Chain) error {
	switch {
	case c.Builtin:
		return optErr("-X", "chain %q is built in", c.Name)
	case len(c.Rules) > 0:
		return optErr("-X", "chain %q is not empty", c.Name)
	}
	used, err := p.jumps(c.Name)
	if err != nil {
		return err
	}
	if len(used) > 0 {
		return optErr("-X", "chain %q is jumped to from line %d", c.Name, used[0].Line)
	}
	delete(p.table.byName, c.Name)
	p.table.Chains = slices.DeleteFunc(p.table.Chains, func(o *Chain) bool { return o == c })
	return nil
}

// jumps are the rules of the table that go to a chain.
func (p *parser) jumps(name string) (out []*Rule, err error) {
	for _, c := range p.table.Chains {
		if err := p.spend(len(c.Rules) + 1); err != nil {
			return nil, err
		}
		for i := range c.Rules {
			if c.Rules[i].Jump == name {
				out = append(out, &c.Rules[i])
			}
		}
	}
	return out, nil
}

func (p *parser) rename(c *Chain, name string) error {
	if c.Builtin {
		return optErr("-E", "chain %q is built in", c.Name)
	}
	if msg := badChainName(name); msg != "" {
		return optErr("-E", "chain %q: %s", cut(name), msg)
	}
	if _, builtin := builtinHook(p.table.Name, name); builtin || p.table.byName[name] != nil {
		return optErr("-E", "chain %q exists", name)
	}
	used, err := p.jumps(c.Name)
	if err != nil {
		return err
	}
	for _, r := range used {
		r.Jump = name
	}
	delete(p.table.byName, c.Name)
	c.Name = name
	p.table.byName[name] = c
	return nil
}

func (p *parser) setPolicy(c *Chain, word string) error {
	v, ok := standard(word)
	switch {
	case !c.Builtin:
		return optErr("-P", "chain %q is not built in", c.Name)
	case !ok || v != trace.Accept && v != trace.DropIt:
		return optErr("-P", "policy %q is neither ACCEPT nor DROP", cut(word))
	}
	c.Policy = v
	return nil
}
