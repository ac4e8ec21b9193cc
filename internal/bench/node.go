package bench

import "fmt"

// Files is the snapshot of a node of the cluster: pods are behind pods0, the other
// nodes and the world behind eth0, and every neighbour that matters is known.
func (c Cluster) Files() map[string][]byte {
	files := map[string][]byte{"iptables-save": c.Save()}
	for name, text := range node {
		files[name] = []byte(text)
	}
	return files
}

// Client is a pod of this node and In the device behind which it is; both ends of its
// cable are in the snapshot.
const (
	Client    = "10.255.0.9"
	ClientMAC = "02:00:00:00:01:09"
	In        = "pods0"
)

var node = map[string]string{
	"meta.json": `{"host":"node","kernel":"6.18.1","hz":250,"time":"2026-03-02T09:30:00Z"}`,
	"ip-link.json": "[" + device(1, "lo", "LOOPBACK", "00:00:00:00:00:00", 65536) + "," +
		device(2, "eth0", "BROADCAST", "02:00:00:00:00:01", 1500) + "," +
		device(3, In, "BROADCAST", "02:00:00:00:01:01", 1500) + "]",
	"ip-addr.json": "[" + address(1, "lo", "127.0.0.1", 8, "host") + "," +
		address(2, "eth0", "192.0.2.10", 24, "global") + "," +
		address(3, In, "10.255.0.1", 24, "global") + "]",
	"ip-neigh.json": `[{"dst":"192.0.2.11","dev":"eth0","lladdr":"02:00:00:00:00:11",` +
		`"state":["REACHABLE"]},{"dst":"` + Client + `","dev":"` + In + `","lladdr":"` + ClientMAC +
		`","state":["REACHABLE"]}]`,
	"ip-rule.json": `[{"priority":0,"src":"all","table":"local"},` +
		`{"priority":32766,"src":"all","table":"main"},` +
		`{"priority":32767,"src":"all","table":"default"}]`,
	"ip-route": `unicast default via 192.0.2.11 dev eth0 table main proto boot scope global
unicast 10.128.0.0/9 via 192.0.2.11 dev eth0 table main proto boot scope global
unicast 10.255.0.0/24 dev pods0 table main proto kernel scope link src 10.255.0.1
unicast 192.0.2.0/24 dev eth0 table main proto kernel scope link src 192.0.2.10
local 10.255.0.1 dev pods0 table local proto kernel scope host src 10.255.0.1
broadcast 10.255.0.255 dev pods0 table local proto kernel scope link src 10.255.0.1
local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1
local 127.0.0.1 dev lo table local proto kernel scope host src 127.0.0.1
local 192.0.2.10 dev eth0 table local proto kernel scope host src 192.0.2.10
broadcast 192.0.2.255 dev eth0 table local proto kernel scope link src 192.0.2.10
`,
	"sysctl": "net.ipv4.ip_forward = 1\nnet.ipv4.conf.all.forwarding = 1\n" +
		"net.ipv4.conf.eth0.forwarding = 1\nnet.ipv4.conf.pods0.forwarding = 1\n" +
		"net.netfilter.nf_conntrack_max = 262144\n",
	"sockets": "",
}

// device is an entry of ip -j link.
func device(index int, name, kind, mac string, mtu int) string {
	return fmt.Sprintf(`{"ifindex":%d,"ifname":"%s","flags":["%s","UP","LOWER_UP"],"mtu":%d,`+
		`"operstate":"UP","group":"default","address":"%s"}`, index, name, kind, mtu, mac)
}

// address is an entry of ip -j addr.
func address(index int, name, addr string, bits int, scope string) string {
	return fmt.Sprintf(`{"ifindex":%d,"ifname":"%s","addr_info":[{"family":"inet","local":"%s",`+
		`"prefixlen":%d,"scope":"%s"}]}`, index, name, addr, bits, scope)
}
