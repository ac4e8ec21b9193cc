package xtables

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/hookpath/hookpath/trace"
)

// tableOption is -t TABLE in a command.
var tableOption = regexp.MustCompile(`(?:^|\s)(?:-t|--table)(?:\s+|=)(\S+)`)

// Edit changes the rules as one iptables command would; cmd is what stands behind the
// word iptables. A table or base chain that is not there yet comes into being. It
// returns the table and the chain.
func (rs *Ruleset) Edit(cmd string, c *Catalog) (table, chain string, err error) {
	table = "filter"
	if m := tableOption.FindStringSubmatchIndex(cmd); m != nil {
		table = cmd[m[2]:m[3]]
		cmd = cmd[:m[0]] + " " + cmd[m[1]:]
	}
	p := &parser{rs: rs, cat: c, force: true, line: 1}
	if cmd = strings.TrimSpace(cmd); cmd == "" || cmd[0] != '-' {
		return "", "", fmt.Errorf("%q does not begin with a command like -A", cut(cmd))
	}
	if p.table = rs.Table(table); p.table == nil {
		p.firstUse(table)
	}
	if p.err == nil {
		p.command(cmd)
	}
	if p.err == nil {
		p.checkJumps()
	}
	return table, p.rule.cmd.chain, bare(p.err)
}

// firstUse makes a table for a command. A legacy table has all its chains at once, those of nft
// come when they are needed.
//
// Kernel: net/ipv4/netfilter/ip_tables.c, ipt_alloc_initial_table.
func (p *parser) firstUse(table string) {
	p.startTable(table)
	if p.err != nil || p.rs.Backend == NFT {
		return
	}
	for _, h := range builtins[table] {
		p.newChain(h.String())
	}
}

// bare is an error without its place: a command has none.
func bare(err error) error {
	var e *Error
	switch {
	case !errors.As(err, &e):
		return err
	case e.Option != "":
		return fmt.Errorf("%s: %s", e.Option, e.Msg)
	}
	return errors.New(e.Msg)
}

// NewRuleset is a ruleset without tables, as before the first command.
func NewRuleset(f trace.Family, b Backend) *Ruleset {
	return &Ruleset{Family: f, Backend: b, Header: true, Version: V1811}
}
