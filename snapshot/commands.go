package snapshot

// command is one tool whose output is a file of a snapshot. Needs are paths that
// must be there first, any of them: asking the tool would load a module otherwise.
type command struct {
	file  string
	needs []string
	args  []string
}

// The paths by which a module shows that it is loaded already.
const (
	legacyTables = "/proc/net/ip_tables_names"
	nftModule    = "/sys/module/nf_tables"
	ipsetModule  = "/sys/module/ip_set"
	ctModule     = "/sys/module/nf_conntrack"
	ctFile       = "/proc/net/nf_conntrack"
	ctSysctl     = "/proc/sys/net/netfilter/nf_conntrack_count"
	ipvsFile     = "/proc/net/ip_vs"
)

// commands are the tools that a snapshot is taken with, in order. A tool that would
// load a module by being asked is asked only where the module is there.
var commands = []command{
	{"ip-link.json", nil, []string{"ip", "-d", "-j", "link"}},
	{"ip-addr.json", nil, []string{"ip", "-d", "-j", "addr"}},
	{"ip-neigh.json", nil, []string{"ip", "-d", "-j", "neigh"}},
	{"ip-neigh-proxy.json", nil, []string{"ip", "-j", "neigh", "show", "proxy"}},
	{"ip-rule.json", nil, []string{"ip", "-4", "-d", "-j", "rule"}},
	{"ip-rule6.json", nil, []string{"ip", "-6", "-d", "-j", "rule"}},
	{"ip-route", nil, []string{"ip", "-4", "-d", "-o", "route", "show", "table", "all"}},
	{"ip-route6", nil, []string{"ip", "-6", "-d", "-o", "route", "show", "table", "all"}},
	{"ip-nexthop.json", nil, []string{"ip", "-d", "-j", "nexthop"}},
	{"ip-maddr.json", nil, []string{"ip", "-j", "maddr"}},
	{"bridge-fdb.json", nil, []string{"bridge", "-d", "-j", "fdb"}},
	{"bridge-link.json", nil, []string{"bridge", "-d", "-j", "link"}},
	{"bridge-vlan.json", nil, []string{"bridge", "-d", "-j", "vlan"}},
	{"bridge-mdb.json", nil, []string{"bridge", "-d", "-j", "mdb"}},
	{"iptables-legacy-save", []string{legacyTables}, []string{"iptables-legacy-save", "-c"}},
	{"iptables-nft-save", []string{nftModule}, []string{"iptables-nft-save", "-c"}},
	{"ip6tables-legacy-save", []string{"/proc/net/ip6_tables_names"},
		[]string{"ip6tables-legacy-save", "-c"}},
	{"ip6tables-nft-save", []string{nftModule}, []string{"ip6tables-nft-save", "-c"}},
	{"nft.json", []string{nftModule}, []string{"nft", "-j", "list", "ruleset"}},
	{"ipset-save", []string{ipsetModule}, []string{"ipset", "save"}},
	{"ipvsadm-save", []string{ipvsFile}, []string{"ipvsadm", "-S", "-n"}},
	{"ipvs", []string{ipvsFile}, []string{"ipvsadm", "-L", "-n", "--nosort"}},
	{"ipvs-thresholds", []string{ipvsFile}, []string{"ipvsadm", "-L", "-n", "--thresholds"}},
	{"ipvs-timeouts", []string{ipvsFile}, []string{"ipvsadm", "-L", "--timeout"}},
	{"ipvs-conns", []string{ipvsFile}, []string{"ipvsadm", "-L", "-c", "-n"}},
	{"conntrack", []string{ctModule, ctFile, ctSysctl}, []string{"conntrack", "-L", "-o",
		"extended,id"}},
	{"conntrack-expect", []string{ctModule, ctFile, ctSysctl}, []string{"conntrack", "-L", "expect"}},
	{"sysctl", nil, []string{"sysctl", "-a", "--pattern", "^net\\."}},
	{"sockets", nil, []string{"ss", "-H", "-n", "-a", "-t", "-u", "-w", "-S", "-p", "-e",
		"--inet-sockopt"}},
	{"foreign/tc-qdisc.json", nil, []string{"tc", "-j", "qdisc"}},
	{"foreign/bpftool-net.json", nil, []string{"bpftool", "-j", "net"}},
	{"foreign/ip-xfrm-state", nil, []string{"ip", "xfrm", "state"}},
	{"foreign/ip-xfrm-policy", nil, []string{"ip", "xfrm", "policy"}},
}
