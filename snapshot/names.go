package snapshot

import (
	"path"
	"strings"
)

// names are the files of a snapshot, and of plain text that people paste under the
// same name without .json or -save.
var names = map[string]string{
	"meta.json":     "meta.json",
	"iptables-save": "iptables-save", "iptables": "iptables-save",
	"iptables-legacy-save": "iptables-legacy-save", "iptables-nft-save": "iptables-nft-save",
	"ip6tables-save": "ip6tables-save", "ip6tables": "ip6tables-save",
	"ip6tables-legacy-save": "ip6tables-legacy-save", "ip6tables-nft-save": "ip6tables-nft-save",
	"ebtables-save": "ebtables-save", "ebtables": "ebtables-save",
	"arptables-save": "arptables-save", "arptables": "arptables-save",
	"nft.json":   "nft.json",
	"ipset-save": "ipset-save", "ipset": "ipset-save",
	"ipvsadm-save": "ipvsadm-save", "ipvs": "ipvs", "ipvsadm": "ipvs", "ip_vs": "ipvs",
	"ipvs-thresholds": "ipvs-thresholds", "ipvs-timeouts": "ipvs-timeouts",
	"ipvs-conns": "ipvs-conns", "ip_vs_conn": "ipvs-conns",
	"ip-link.json": "ip-link.json", "ip-link": "ip-link.json",
	"ip-addr.json": "ip-addr.json", "ip-addr": "ip-addr.json",
	"ip-neigh.json": "ip-neigh.json", "ip-neigh": "ip-neigh.json",
	"ip-neigh-proxy.json": "ip-neigh-proxy.json", "ip-neigh-proxy": "ip-neigh-proxy.json",
	"ip-rule.json": "ip-rule.json", "ip-rule": "ip-rule.json",
	"ip-rule6.json": "ip-rule6.json", "ip-rule6": "ip-rule6.json",
	"ip-route": "ip-route", "ip-route.json": "ip-route",
	"ip-route6": "ip-route6", "ip-route6.json": "ip-route6",
	"ip-nexthop.json": "ip-nexthop.json", "ip-nexthop": "ip-nexthop.json",
	"ip-nexthop-bucket.json": "ip-nexthop-bucket.json",
	"ip-nexthop-bucket":      "ip-nexthop-bucket.json",
	"ip-addrlabel.json":      "ip-addrlabel.json", "ip-addrlabel": "ip-addrlabel.json",
	"ip-maddr.json": "ip-maddr.json", "ip-maddr": "ip-maddr.json",
	"ip-mroute.json": "ip-mroute.json", "ip-mroute": "ip-mroute.json",
	"netns-ids.json": "netns-ids.json", "netns-ids": "netns-ids.json",
	"rt_tables":       "rt_tables",
	"bridge-fdb.json": "bridge-fdb.json", "bridge-link.json": "bridge-link.json",
	"bridge-vlan.json": "bridge-vlan.json", "bridge-mdb.json": "bridge-mdb.json",
	"conntrack": "conntrack", "nf_conntrack": "conntrack", "conntrack-expect": "conntrack-expect",
	"sysctl": "sysctl", "sockets": "sockets",
}

// knownName returns the canonical name of a file, without directory.
func knownName(base string) (string, bool) {
	n, ok := names[base]
	return n, ok
}

// subdirs are the directories of a snapshot, with the number of levels below.
var subdirs = []string{"xt/recent", "xt/hashlimit", "foreign", "kube", "rt_tables.d"}

// splitName cuts a path into the snapshot's directory and the name in it.
func splitName(p string) (dir, name string, known bool) {
	dir, base := path.Dir(p), path.Base(p)
	for _, sub := range subdirs {
		if dir == sub || strings.HasSuffix(dir, "/"+sub) {
			return path.Clean("./" + strings.TrimSuffix(dir, sub)), sub + "/" + base, true
		}
	}
	if err, ok := strings.CutSuffix(base, ".err"); ok {
		if n, ok := knownName(err); ok {
			return dir, n + ".err", true
		}
	}
	n, ok := knownName(base)
	return dir, n, ok
}
