package walk

import (
	"sort"

	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// station is a stage of the catalogue: something that stands at a hook.
type station struct {
	priority int
	name     string
	stands   func(*Host) bool
	// table is set for a stage that is one for each loaded table of its name.
	table bool
	run   func(*Walk, *stage) trace.Verdict
}

// The catalogue: what stands at each hook of IPv4, in the order in which a packet
// meets it. Build keeps what this host has.
//
// Kernel: include/uapi/linux/netfilter_ipv4.h, nf_ip_hook_priorities.
var (
	prerouting = []station{
		{-400, "defrag", defragInUse, false, (*Walk).defrag},
		{-300, "raw", nil, true, (*Walk).table},
		{-200, "conntrack", conntrackInUse, false, (*Walk).track},
		{-150, "mangle", nil, true, (*Walk).table},
		{-100, "nat", natInUse, true, (*Walk).natPrerouting},
	}
	input = []station{
		{-150, "mangle", nil, true, (*Walk).table},
		{0, "filter", nil, true, (*Walk).table},
		{50, "security", nil, true, (*Walk).table},
		{98, "ipvs", ipvsInUse, false, (*Walk).ipvsOut},
		{99, "ipvs", ipvsInUse, false, (*Walk).ipvsIn},
		{100, "nat", natInUse, true, (*Walk).nat},
		{last, "confirm", conntrackInUse, false, (*Walk).confirm},
	}
	forward = []station{
		{-150, "mangle", nil, true, (*Walk).table},
		{0, "filter", nil, true, (*Walk).table},
		{50, "security", nil, true, (*Walk).table},
		{99, "ipvs", ipvsInUse, false, (*Walk).ipvsForwardICMP},
		{100, "ipvs", ipvsInUse, false, (*Walk).ipvsOut},
	}
	output = []station{
		{-400, "defrag", defragInUse, false, (*Walk).defrag},
		{-300, "raw", nil, true, (*Walk).table},
		{-200, "conntrack", conntrackInUse, false, (*Walk).track},
		{-150, "mangle", nil, true, (*Walk).mangleOutput},
		{-100, "nat", natInUse, true, (*Walk).natOutput},
		{-99, "ipvs", ipvsInUse, false, (*Walk).ipvsOut},
		{-98, "ipvs", ipvsInUse, false, (*Walk).ipvsIn},
		{0, "filter", nil, true, (*Walk).table},
		{50, "security", nil, true, (*Walk).table},
	}
	postrouting = []station{
		{-150, "mangle", nil, true, (*Walk).table},
		{100, "nat", natInUse, true, (*Walk).nat},
		{last, "confirm", conntrackInUse, false, (*Walk).confirm},
	}
	catalogue = [...][]station{trace.Prerouting: prerouting, trace.Input: input,
		trace.Forward: forward, trace.Output: output, trace.Postrouting: postrouting}
)

// last is NF_IP_PRI_CONNTRACK_CONFIRM, INT_MAX.
const last = 1<<31 - 1

// nftSecurity is where iptables-nft hooks its security table: behind nat in INPUT.
const nftSecurity = 150

// stage is a station that this host has, with its table.
type stage struct {
	priority int
	name     string
	program  *xtables.Program
	run      func(*Walk, *stage) trace.Verdict
}

// stages are the stations of a hook that the host has. The sort is stable, so
// equal priorities keep the order of registration: legacy before nft.
func (h *Host) stages(hook trace.Hook) []stage {
	var out []stage
	for _, st := range catalogue[hook] {
		if st.stands != nil && !st.stands(h) {
			continue
		}
		if !st.table {
			out = append(out, stage{st.priority, st.name, nil, st.run})
			continue
		}
		found := false
		for _, p := range h.programs {
			if p.Name != st.name || p.Family != trace.IPv4 || !h.hooked(p, hook) {
				continue
			}
			found = true
			out = append(out, stage{priorityOf(st, p), st.name, p, st.run})
		}
		// NAT translates known connections also where no nat table has this chain.
		if !found && st.name == "nat" {
			out = append(out, stage{st.priority, st.name, nil, st.run})
		}
	}
	sort.SliceStable(out, func(i, j int) bool { return out[i].priority < out[j].priority })
	return out
}

func priorityOf(st station, p *xtables.Program) int {
	if st.name == "security" && p.Backend == xtables.NFT {
		return nftSecurity
	}
	return st.priority
}

func (h *Host) hooked(p *xtables.Program, hook trace.Hook) bool {
	if !p.HasHook(hook) {
		return false
	}
	if p.Backend == xtables.Legacy || h.cfg.Hooked == nil {
		return true
	}
	return h.cfg.Hooked[p.Name+"/"+hook.String()]
}

func conntrackInUse(h *Host) bool { return h.conntrackUsed }
func defragInUse(h *Host) bool    { return h.conntrackUsed || h.defragUsed }
func natInUse(h *Host) bool       { return h.conntrackUsed && h.natUsed }

// Extensions that make a namespace track connections as soon as a rule has them:
// their checkentry calls nf_ct_netns_get.
var trackers = map[string]bool{
	"-m conntrack": true, "-m state": true, "-m connmark": true, "-m connlimit": true,
	"-m connbytes": true, "-m connlabel": true, "-m helper": true, "-m cluster": true,
	"-j DNAT": true, "-j SNAT": true, "-j MASQUERADE": true, "-j REDIRECT": true,
	"-j NETMAP": true, "-j CONNMARK": true, "-j CT": true, "-j CONNSECMARK": true,
	"-j SYNPROXY": true,
}

// defragmenters make a namespace reassemble fragments before PREROUTING.
var defragmenters = map[string]bool{"-m socket": true, "-j TPROXY": true}

// scan finds what the rules make the host do beside asking them.
func (h *Host) scan(rs *xtables.Ruleset) {
	for _, t := range rs.Tables {
		if t.Name == "nat" {
			h.natUsed = true
		}
		seen := map[any]bool{}
		for _, c := range t.Chains {
			for i := range c.Rules {
				h.scanRule(&c.Rules[i], seen)
			}
		}
	}
}

// scanRule looks at a rule's extensions, but for those that were seen before.
func (h *Host) scanRule(r *xtables.Rule, seen map[any]bool) {
	for _, m := range r.Matches {
		if !seen[m.Ext] {
			seen[m.Ext] = true
			h.use("-m " + m.Ext.Name)
		}
	}
	if r.Ext == nil || seen[r.Ext] {
		return
	}
	// CT --notrack is the one form that does not make the namespace track.
	if n, ok := r.Target.(interface{ NoTrack() bool }); ok && n.NoTrack() {
		return
	}
	seen[r.Ext] = true
	h.use("-j " + r.Ext.Name)
}

func (h *Host) use(name string) {
	h.conntrackUsed = h.conntrackUsed || trackers[name]
	h.defragUsed = h.defragUsed || defragmenters[name]
}

// Stage is something that stands at a hook.
type Stage struct {
	Priority int
	Name     string // raw, conntrack, mangle, nat, ipvs ...
}

// Stages lists what stands at a hook of this host, in the order in which a packet meets it.
func (h *Host) Stages(hook trace.Hook) []Stage {
	var out []Stage
	for _, st := range h.hooks[hook] {
		out = append(out, Stage{st.priority, st.name})
	}
	return out
}
