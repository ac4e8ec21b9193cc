package ipset

// icmpName is a name that ipset has for a type and code.
type icmpName struct {
	name string
	n    uint16 // type and code
}

// icmpNames are those of IPv4; the first of a number is printed.
//
// ipset: lib/icmp.c.
var icmpNames = []icmpName{
	{"echo-reply", 0}, {"pong", 0},
	{"network-unreachable", 0x300}, {"host-unreachable", 0x301}, {"protocol-unreachable", 0x302},
	{"port-unreachable", 0x303}, {"fragmentation-needed", 0x304}, {"source-route-failed", 0x305},
	{"network-unknown", 0x306}, {"host-unknown", 0x307}, {"network-prohibited", 0x309},
	{"host-prohibited", 0x30a}, {"TOS-network-unreachable", 0x30b},
	{"TOS-host-unreachable", 0x30c}, {"communication-prohibited", 0x30d},
	{"host-precedence-violation", 0x30e}, {"precedence-cutoff", 0x30f},
	{"source-quench", 0x400},
	{"network-redirect", 0x500}, {"host-redirect", 0x501}, {"TOS-network-redirect", 0x502},
	{"TOS-host-redirect", 0x503},
	{"echo-request", 0x800}, {"ping", 0x800},
	{"router-advertisement", 0x900}, {"router-solicitation", 0xa00},
	{"ttl-zero-during-transit", 0xb00}, {"ttl-zero-during-reassembly", 0xb01},
	{"ip-header-bad", 0xc00}, {"required-option-missing", 0xc01},
	{"timestamp-request", 0xd00}, {"timestamp-reply", 0xe00},
	{"address-mask-request", 0x1100}, {"address-mask-reply", 0x1200},
}

// icmp6Names are those of IPv6.
//
// ipset: lib/icmpv6.c.
var icmp6Names = []icmpName{
	{"no-route", 0x100}, {"communication-prohibited", 0x101}, {"address-unreachable", 0x103},
	{"port-unreachable", 0x104}, {"packet-too-big", 0x200}, {"ttl-zero-during-transit", 0x300},
	{"ttl-zero-during-reassembly", 0x301}, {"bad-header", 0x400},
	{"unknown-header-type", 0x401}, {"unknown-option", 0x402},
	{"echo-request", 0x8000}, {"ping", 0x8000}, {"echo-reply", 0x8100}, {"pong", 0x8100},
	{"router-solicitation", 0x8500}, {"router-advertisement", 0x8600},
	{"neighbour-solicitation", 0x8700}, {"neigbour-solicitation", 0x8700},
	{"neighbour-advertisement", 0x8800}, {"neigbour-advertisement", 0x8800},
	{"redirect", 0x8900},
}
