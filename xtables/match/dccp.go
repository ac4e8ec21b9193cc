package match

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/xtables"
)

// dccp matches ports, packet types and an option of DCCP. Later fragments never
// match; a cut header drops the packet. (Where --dccp-option is negated the kernel
// counts the rule and does what its target says before it drops the packet.)
//
// Kernel: net/netfilter/xt_dccp.c, dccp_mt.
type dccp struct {
	ports
	Types            xtables.Bits
	Option           number
	NotTypes, NotOpt bool
}

var dccpTypes = []xtables.Bit{
	{Word: "REQUEST", N: 1 << 0}, {Word: "RESPONSE", N: 1 << 1}, {Word: "DATA", N: 1 << 2},
	{Word: "ACK", N: 1 << 3}, {Word: "DATAACK", N: 1 << 4}, {Word: "CLOSEREQ", N: 1 << 5},
	{Word: "CLOSE", N: 1 << 6}, {Word: "RESET", N: 1 << 7}, {Word: "SYNC", N: 1 << 8},
	{Word: "SYNCACK", N: 1 << 9}, {Word: "INVALID", N: 0xfc00}, // all types from 10 on
}

func newDCCP() xtables.Match {
	p := xtables.PortSpan(0)
	return &dccp{ports: ports{Src: p, Dst: p}, Types: xtables.Bits{Words: dccpTypes},
		Option: number{Min: 1, Max: 255}}
}

// Options implements xtables.Match.
func (m *dccp) Options(s *xtables.Spec) {
	m.ports.Options(s)
	s.Var("dccp-types", &m.Types).Not(&m.NotTypes)
	s.Var("dccp-option", &m.Option).Not(&m.NotOpt)
}

// Pred implements xtables.Match.
func (m *dccp) Pred(*xtables.Build) field.Pred {
	ps := []field.Pred{m.test()}
	if m.Types.Given {
		var ns []uint64
		for n := range uint64(16) {
			if m.Types.N>>n&1 != 0 {
				ns = append(ns, n)
			}
		}
		ps = append(ps, field.NotIf(m.NotTypes, field.Is(field.DCCPType, field.OneOf(ns...))))
	}
	if m.Option.given {
		ps = append(ps, derived(func(e *xtables.Env) field.Result {
			return dccpHasOption(e.Packet.L4(), uint8(m.Option.n), m.NotOpt)
		}, field.DCCPType, field.Bytes))
	}
	return field.And(ps...)
}

// dccpHeader is the length of the header before the options.
//
// Kernel: include/linux/dccp.h, __dccp_hdr_len.
func dccpHeader(h []byte) int {
	const request, response, data, ack, dataAck, closeReq, closing = 0, 1, 2, 3, 4, 5, 6
	const sync, syncAck = 8, 9
	n := 12
	if h[8]&1 != 0 {
		n += 4
	}
	switch h[8] >> 1 & 0xf {
	case data:
		return n
	case ack, dataAck, closeReq, closing, sync, syncAck:
		return n + 8
	case request:
		return n + 4
	}
	return n + 12 // response and reset
}

// dccpHasOption mirrors dccp_find_option.
func dccpHasOption(h []byte, option uint8, not bool) field.Result {
	if len(h) < 12 {
		return field.Drop
	}
	from, to := dccpHeader(h), int(h[4])*4
	switch {
	case to < from:
		return field.Drop
	case to == from:
		return result(not)
	case len(h) < to:
		return field.Drop
	}
	for opts := h[from:to]; len(opts) > 0; opts = opts[nextOption(opts):] {
		if opts[0] == option {
			return result(!not)
		}
	}
	return result(not)
}
