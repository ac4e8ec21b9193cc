package snapshot

// command is one tool whose output is a file of a snapshot. Of several for one file
// the first that can be asked is.
type command struct {
	file string
	// path must be there, and modules loaded already: asking the tool would load
	// them otherwise.
	path    string
	modules []string
	env     string // NAME=VALUE
	args    []string
}

// The paths by which a part of the kernel shows that it is in use.
const (
	legacyTables  = "/proc/net/ip_tables_names"
	legacyTables6 = "/proc/net/ip6_tables_names"
	ipvsFile      = "/proc/net/ip_vs"
	ipvsConnFile  = "/proc/net/ip_vs_conn"
	ctFile        = "/proc/net/nf_conntrack"
)

// Modules that tools load by being asked.
var (
	nft      = []string{"nf_tables"}
	sets     = []string{"ip_set"}
	ct       = []string{"nf_conntrack_netlink"}
	xfrm     = []string{"xfrm_user"}
	diag     = []string{"inet_diag", "tcp_diag", "udp_diag", "raw_diag"}
	diagSCTP = []string{"inet_diag", "tcp_diag", "udp_diag", "raw_diag", "sctp_diag"}
)

// commands are the tools that a snapshot is taken with, in order. Without the diag
// modules ss reads /proc, which does not tell all of a socket's options.
var commands = []command{
	{file: "ip-link.json", args: words("ip -d -j link")},
	{file: "ip-addr.json", args: words("ip -d -j addr")},
	{file: "ip-neigh.json", args: words("ip -d -j neigh")},
	{file: "ip-neigh-proxy.json", args: words("ip -j neigh show proxy")},
	{file: "ip-rule.json", args: words("ip -4 -d -j rule")},
	{file: "ip-rule6.json", args: words("ip -6 -d -j rule")},
	{file: "ip-route", args: words("ip -4 -d -o route show table all")},
	{file: "ip-route6", args: words("ip -6 -d -o route show table all")},
	{file: "ip-nexthop.json", args: words("ip -d -j nexthop")},
	{file: "ip-nexthop-bucket.json", args: words("ip -d -j nexthop bucket")},
	{file: "ip-maddr.json", args: words("ip -j maddr")},
	{file: "bridge-fdb.json", args: words("bridge -d -j fdb")},
	{file: "bridge-link.json", args: words("bridge -d -j link")},
	{file: "bridge-vlan.json", args: words("bridge -d -j vlan")},
	{file: "bridge-mdb.json", args: words("bridge -d -j mdb")},
	{file: "iptables-legacy-save", path: legacyTables, args: words("iptables-legacy-save -c")},
	{file: "iptables-nft-save", modules: nft, args: words("iptables-nft-save -c")},
	{file: "ip6tables-legacy-save", path: legacyTables6, args: words("ip6tables-legacy-save -c")},
	{file: "ip6tables-nft-save", modules: nft, args: words("ip6tables-nft-save -c")},
	{file: "nft.json", modules: nft, args: words("nft -j list ruleset")},
	{file: "ipset-save", modules: sets, args: words("ipset save")},
	{file: "ipvsadm-save", path: ipvsFile, args: words("ipvsadm -S -n")},
	{file: "ipvs", path: ipvsFile, args: words("ipvsadm -L -n --nosort")},
	{file: "ipvs-thresholds", path: ipvsFile, args: words("ipvsadm -L -n --thresholds")},
	{file: "ipvs-timeouts", path: ipvsFile, args: words("ipvsadm -L --timeout")},
	{file: "ipvs-conns", path: ipvsFile, args: words("ipvsadm -L -c -n")},
	{file: "ipvs", path: ipvsFile, args: words("cat " + ipvsFile)},
	{file: "ipvs-conns", path: ipvsConnFile, args: words("cat " + ipvsConnFile)},
	{file: "conntrack", modules: ct, args: words("conntrack -L -o extended,id")},
	{file: "conntrack", path: ctFile, args: words("cat " + ctFile)},
	{file: "conntrack-expect", modules: ct, args: words("conntrack -L expect")},
	{file: "sysctl", args: words(`sysctl -a --pattern ^net\.`)},
	{file: "sockets", modules: diagSCTP, args: words("ss -H -n -a -t -u -w -S -p -e --inet-sockopt")},
	{file: "sockets", modules: diag, args: words("ss -H -n -a -t -u -w -p -e --inet-sockopt")},
	{file: "sockets", env: "PROC_ROOT=/proc", args: words("ss -H -n -a -t -u -w -p -e")},
	{file: "foreign/tc-qdisc.json", args: words("tc -j qdisc")},
	{file: "foreign/bpftool-net.json", args: words("bpftool -j net")},
	{file: "foreign/ip-xfrm-state", modules: xfrm, args: words("ip xfrm state")},
	{file: "foreign/ip-xfrm-policy", modules: xfrm, args: words("ip xfrm policy")},
}
