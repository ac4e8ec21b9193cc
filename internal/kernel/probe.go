package kernel

import (
	"encoding/binary"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// probeTable is our table; its chains' traces are not the rules' traces.
const probeTable = "hookpath-probe"

// The nflog groups. The rules' own LOG and TRACE lines come in group 0.
const (
	groupTrace  = 0
	groupInput  = 65501 // what passed INPUT, whole packets
	groupLoopin = 65502 // a packet came in by lo, or a local copy did
	groupSent   = 65503 // what this host sends, whole packets before OUTPUT
)

// Values of linux/netfilter/nfnetlink_log.h and nf_tables.h that x/sys lacks.
const (
	nfulnlMsgPacket = unix.NFNL_SUBSYS_ULOG << 8
	nfulnlMsgConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	nfulaCfgCmd     = 1
	nfulaCfgMode    = 2
	nfulaCfgQthresh = 5
	nfulnlCfgBind   = 1
	nfulnlCopyNone  = 0
	nfulnlCopyAll   = 2

	nfulaMark    = 2
	nfulaInDev   = 4
	nfulaPayload = 9
	nfulaPrefix  = 10
)

// probe is one chain of our table.
type probe struct {
	name     string
	hook     uint32
	priority int32
	exprs    []byte
}

// probes lists our chains. INPUT's stands at the last priority of all; it is
// registered before conntrack's confirmation of the same priority and hence,
// since nf_hook_entries_grow puts a newcomer first among equals, runs behind it.
func probes() []probe {
	trace := traceExprs()
	return []probe{
		{"loopback", unix.NF_INET_PRE_ROUTING, -501, loopbackExprs()},
		{"sent", unix.NF_INET_LOCAL_OUT, -501, expr(nil, "log", logGroup(groupSent))},
		{"trace-prerouting", unix.NF_INET_PRE_ROUTING, -500, trace},
		{"trace-output", unix.NF_INET_LOCAL_OUT, -500, trace},
		{"input", unix.NF_INET_LOCAL_IN, math.MaxInt32, expr(nil, "log", logGroup(groupInput))},
	}
}

// install puts our table into the namespace, before any other rules.
func (c *conn) install() error {
	const kind = unix.NFNL_SUBSYS_NFTABLES << 8
	const create = unix.NLM_F_CREATE
	inet := func(attrs []byte) message {
		return message{family: unix.NFPROTO_INET, attrs: attrs}
	}
	batch := message{res: unix.NFNL_SUBSYS_NFTABLES}
	first := c.seq + 1
	b := c.request(nil, unix.NFNL_MSG_BATCH_BEGIN, 0, batch)
	b = c.request(b, kind|unix.NFT_MSG_NEWTABLE, create,
		inet(attrString(nil, unix.NFTA_TABLE_NAME, probeTable)))
	for _, p := range probes() {
		b = c.request(b, kind|unix.NFT_MSG_NEWCHAIN, create, inet(p.chain()))
	}
	all := probes()
	for i, p := range all {
		flags := uint16(create | unix.NLM_F_APPEND)
		if i == len(all)-1 {
			flags |= unix.NLM_F_ACK
		}
		b = c.request(b, kind|unix.NFT_MSG_NEWRULE, flags, inet(p.rule()))
	}
	last := c.seq
	b = c.request(b, unix.NFNL_MSG_BATCH_END, 0, batch)
	if err := c.send(b); err != nil {
		return err
	}
	if err := c.waitBatch(first, last); err != nil {
		return fmt.Errorf("nf_tables probe table: %w", err)
	}
	return nil
}

func (p probe) chain() []byte {
	hook := attr32(nil, unix.NFTA_HOOK_HOOKNUM, p.hook)
	hook = attr32(hook, unix.NFTA_HOOK_PRIORITY, uint32(p.priority))
	b := attrString(nil, unix.NFTA_CHAIN_TABLE, probeTable)
	b = attrString(b, unix.NFTA_CHAIN_NAME, p.name)
	b = attrNest(b, unix.NFTA_CHAIN_HOOK, hook)
	return attrString(b, unix.NFTA_CHAIN_TYPE, "filter")
}

func (p probe) rule() []byte {
	b := attrString(nil, unix.NFTA_RULE_TABLE, probeTable)
	b = attrString(b, unix.NFTA_RULE_CHAIN, p.name)
	return attrNest(b, unix.NFTA_RULE_EXPRESSIONS, p.exprs)
}

// expr appends one nf_tables expression.
func expr(b []byte, name string, data []byte) []byte {
	e := attrString(nil, unix.NFTA_EXPR_NAME, name)
	return attrNest(b, unix.NFTA_LIST_ELEM, attrNest(e, unix.NFTA_EXPR_DATA, data))
}

func logGroup(group uint16) []byte { return attr16(nil, unix.NFTA_LOG_GROUP, group) }

// native is a register's content: an int in the machine's byte order.
func native(v uint32) []byte {
	return attr(nil, unix.NFTA_DATA_VALUE, binary.NativeEndian.AppendUint32(nil, v))
}

// traceExprs is "meta nftrace set 1".
func traceExprs() []byte {
	one := attr32(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG32_00)
	one = attrNest(one, unix.NFTA_IMMEDIATE_DATA,
		attr(nil, unix.NFTA_DATA_VALUE, []byte{1}))
	b := expr(nil, "immediate", one)
	set := attr32(nil, unix.NFTA_META_KEY, unix.NFT_META_NFTRACE)
	return expr(b, "meta", attr32(set, unix.NFTA_META_SREG, unix.NFT_REG32_00))
}

// loopbackExprs is "meta iif 1 log group groupLoopin".
func loopbackExprs() []byte {
	load := attr32(nil, unix.NFTA_META_KEY, unix.NFT_META_IIF)
	b := expr(nil, "meta", attr32(load, unix.NFTA_META_DREG, unix.NFT_REG32_00))
	cmp := attr32(nil, unix.NFTA_CMP_SREG, unix.NFT_REG32_00)
	cmp = attr32(cmp, unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
	b = expr(b, "cmp", attrNest(cmp, unix.NFTA_CMP_DATA, native(1)))
	return expr(b, "log", logGroup(groupLoopin))
}

// listen binds an nflog group and has each packet reported at once.
func (c *conn) listen(group uint16, copyMode uint8) error {
	mode := binary.BigEndian.AppendUint32(nil, 0xffff)
	for _, attrs := range [][]byte{
		attr8(nil, nfulaCfgCmd, nfulnlCfgBind),
		attr(nil, nfulaCfgMode, append(mode, copyMode, 0)),
		attr32(nil, nfulaCfgQthresh, 1),
	} {
		m := message{res: group, attrs: attrs}
		if err := c.do(nfulnlMsgConfig, 0, m); err != nil {
			return fmt.Errorf("nflog group %d: %w", group, err)
		}
	}
	return nil
}

// logged is one nflog message.
type logged struct {
	group   uint16
	inDev   int
	mark    uint32
	prefix  string
	payload []byte
}

func parseLogged(m message) logged {
	l := logged{group: m.res}
	eachAttr(m.attrs, func(typ uint16, data []byte) {
		switch typ {
		case nfulaMark:
			l.mark = be32(data)
		case nfulaInDev:
			l.inDev = int(be32(data))
		case nfulaPayload:
			l.payload = data
		case nfulaPrefix:
			l.prefix = cstring(data)
		}
	})
	return l
}
