package kernel

import (
	"strings"
	"testing"
)

const bridgeRules = `*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -m physdev --physdev-in eth0 --physdev-out eth1 --physdev-is-bridged
-A FORWARD -m physdev ! --physdev-is-bridged -j DROP
COMMIT
`

// TestBridge: a frame between two ports passes the IP hooks; to the bridge's own
// address it comes in by the bridge.
func TestBridge(t *testing.T) {
	links := strings.ReplaceAll(testLinks, `"mtu":1500,`, `"mtu":1500,"master":"br0",`)
	links = strings.ReplaceAll(links, `"mtu":1400,`, `"mtu":1500,"master":"br0",`)
	links = strings.TrimSuffix(links, "]") + `,{"ifindex":12,"ifname":"br0",
		"flags":["BROADCAST","MULTICAST","UP"],"mtu":1500,"link_type":"ether",
		"address":"02:00:00:00:00:0b","linkinfo":{"info_kind":"bridge","info_data":{}}}]`
	h := router(bridgeRules, map[string]string{"ip-link.json": links,
		"ip-addr.json": `[{"ifname":"br0","addr_info":[{"family":"inet","local":"10.0.0.1",
			"prefixlen":24,"scope":"global","label":"br0"}]}]`,
		"ip-neigh.json": `[{"dst":"10.0.0.9","dev":"br0","lladdr":"02:00:00:00:00:09",
			"state":["PERMANENT"]}]`,
		"sysctl": "net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n"})
	r := openRun(t, Scenario{Hosts: []Host{h}, Backend: Legacy})
	to := func(dst byte, p []byte) Hex {
		return append(Hex{2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, 9, 8, 0}, p...)
	}
	// Unknown destination: flooded to the other port, and up to the bridge.
	q := Question{In: "eth0", Frame: to(8, udp("10.0.0.9", "10.0.0.8", 1, 2, "x")), Seq: "s"}
	hold(t, r, q, `
		filter FORWARD rule 1 CONTINUE
		filter FORWARD policy 3 ACCEPT
		out eth1 17 10.0.0.9>10.0.0.8 ttl 64 ports 1>2`)
	q = Question{In: "eth0", Frame: to(0xb, echo("10.0.0.9", "10.0.0.1")), Seq: "s"}
	hold(t, r, q, `
		filter INPUT policy 1 ACCEPT
		filter OUTPUT policy 1 ACCEPT
		out eth0 1 10.0.0.1>10.0.0.9 ttl 64 type 0 code 0
		in 1 10.0.0.9>10.0.0.1 ttl 64 type 8 code 0`)
}
