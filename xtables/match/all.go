package match

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/xtables"
)

// The protocols that a rule's -p must name.
var (
	onlyTCP    = []uint8{packet.TCP}
	onlyUDP    = []uint8{packet.UDP}
	onlyICMP   = []uint8{packet.ICMP}
	onlyICMP6  = []uint8{packet.ICMPv6}
	onlySCTP   = []uint8{packet.SCTP}
	onlyDCCP   = []uint8{packet.DCCP}
	onlyAH     = []uint8{packet.AH}
	onlyESP    = []uint8{packet.ESP}
	onlyIPComp = []uint8{ipcompProto}
	onlyMH     = []uint8{mobility}
)

const (
	ipcompProto = 108
	mobility    = 135
)

// The families that a match serves.
const (
	v4   = xtables.IPv4Only
	v6   = xtables.IPv6Only
	both = xtables.Both
)

type limits = xtables.Limits

// all are the matches by name.
var all = []xtables.MatchExt{
	{Name: "addrtype", Families: both, New: newAddrtype},
	{Name: "ah", Families: v4, New: newAH, Limits: limits{Protos: onlyAH}, For: packet.AH},
	{Name: "ah", Families: v6, New: newAH6, For: packet.AH},
	{Name: "bpf", Families: both, New: newBPF},
	{Name: "cgroup", Families: both, New: newCgroup,
		Limits: limits{Hooks: atOutput | atPostrouting | atInput}},
	{Name: "cluster", Families: both, New: newCluster},
	{Name: "comment", Families: both, New: newComment},
	{Name: "connbytes", Families: both, New: newConnbytes},
	{Name: "connlabel", Families: both, New: newConnlabel},
	{Name: "connlimit", Families: both, New: newConnlimit},
	{Name: "connmark", Families: both, New: newConnmark},
	{Name: "conntrack", Families: both, New: newConntrack},
	{Name: "cpu", Families: both, New: newCPU},
	{Name: "dccp", Families: both, New: newDCCP, Limits: limits{Protos: onlyDCCP},
		For: packet.DCCP},
	{Name: "devgroup", Families: both, New: newDevgroup},
	{Name: "dscp", Families: both, New: newDSCP},
	{Name: "dst", Families: v6, New: newDst},
	{Name: "ecn", Families: both, New: newECN},
	{Name: "esp", Families: both, New: newESP, Limits: limits{Protos: onlyESP}, For: packet.ESP},
	{Name: "eui64", Families: v6, New: newEUI64,
		Limits: limits{Hooks: atPrerouting | atInput | atForward}},
	{Name: "frag", Families: v6, New: newFrag},
	{Name: "hashlimit", Families: both, New: newHashlimit},
	{Name: "hbh", Families: v6, New: newHBH},
	{Name: "helper", Families: both, New: newHelper},
	{Name: "hl", Families: v6, New: newHL},
	{Name: "icmp", Families: v4, New: newICMP, Limits: limits{Protos: onlyICMP},
		For: packet.ICMP},
	{Name: "icmp6", Families: v6, New: newICMP6, Limits: limits{Protos: onlyICMP6},
		For: packet.ICMPv6},
	{Name: "icmpv6", Families: v6, New: newICMP6, Limits: limits{Protos: onlyICMP6},
		Alias: "icmp6"},
	{Name: "ipcomp", Families: both, New: newIPComp, Limits: limits{Protos: onlyIPComp},
		For: ipcompProto},
	{Name: "iprange", Families: both, New: newIPRange},
	{Name: "ipv6-icmp", Families: v6, New: newICMP6, Limits: limits{Protos: onlyICMP6},
		Alias: "icmp6"},
	{Name: "ipv6header", Families: v6, New: newIPv6Header},
	{Name: "ipvs", Families: both, New: newIPVS},
	{Name: "length", Families: both, New: newLength},
	{Name: "limit", Families: both, New: newLimit},
	{Name: "mac", Families: both, New: newMAC,
		Limits: limits{Hooks: atPrerouting | atInput | atForward}},
	{Name: "mark", Families: both, New: newMark},
	{Name: "mh", Families: v6, New: newMH, Limits: limits{Protos: onlyMH}, For: mobility},
	{Name: "multiport", Families: both, New: newMultiport,
		Limits: limits{Protos: multiportProtos}},
	{Name: "nfacct", Families: both, New: newNfacct},
	{Name: "osf", Families: both, New: newOSF,
		Limits: limits{Protos: onlyTCP, Hooks: atPrerouting | atInput | atForward}},
	{Name: "owner", Families: both, New: newOwner,
		Limits: limits{Hooks: atOutput | atPostrouting}},
	{Name: "physdev", Families: both, New: newPhysdev},
	{Name: "pkttype", Families: both, New: newPkttype},
	{Name: "policy", Families: both, New: newPolicy},
	{Name: "quota", Families: both, New: newQuota},
	{Name: "rateest", Families: both, New: newRateest},
	{Name: "realm", Families: v4, New: newRealm,
		Limits: limits{Hooks: atInput | atForward | atOutput | atPostrouting}},
	{Name: "recent", Families: both, New: newRecent},
	{Name: "rpfilter", Families: both, New: newRPFilter,
		Limits: limits{Tables: []string{"raw", "mangle"}, Hooks: atPrerouting}},
	{Name: "rt", Families: v6, New: newRT},
	{Name: "sctp", Families: both, New: newSCTP, Limits: limits{Protos: onlySCTP},
		For: packet.SCTP},
	{Name: "set", Families: both, New: newSet},
	{Name: "socket", Families: both, New: newSocket,
		Limits: limits{Hooks: atPrerouting | atInput}},
	{Name: "srh", Families: v6, New: newSRH},
	{Name: "state", Families: both, New: newState},
	{Name: "statistic", Families: both, New: newStatistic},
	{Name: "string", Families: both, New: newString},
	{Name: "tcp", Families: both, New: newTCP, Limits: limits{Protos: onlyTCP}, For: packet.TCP},
	{Name: "tcpmss", Families: both, New: newTCPMSS, Limits: limits{Protos: onlyTCP}},
	{Name: "time", Families: both, New: newTime},
	{Name: "tos", Families: both, New: newTOS},
	{Name: "ttl", Families: v4, New: newTTL},
	{Name: "u32", Families: both, New: newU32},
	{Name: "udp", Families: both, New: newUDP, Limits: limits{Protos: onlyUDP}, For: packet.UDP},
}

// All returns the matches by name. The list must not be changed.
func All() []xtables.MatchExt { return all }
