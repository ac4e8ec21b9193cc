package conntrack

import "github.com/hookpath/hookpath/packet"

// Template is what a CT target says of a packet before it is tracked.
//
// Kernel: net/netfilter/xt_CT.c.
type Template struct {
	Zone     Zone
	ZoneMark bool // the zone is the packet's mark
	Helper   Helper
}

// Template registers what a CT target says, while the host is built, and returns
// the number that packet.Meta.Template takes.
func (t *Tracker) Template(tm Template) uint32 {
	for i, old := range t.templates[1:] {
		if old == tm {
			return uint32(i + 1)
		}
	}
	t.templates = append(t.templates, tm)
	return uint32(len(t.templates) - 1)
}

// Attach gives a packet a template, zero for NOTRACK. Packets that have a connection
// or a template already, or are not tracked, keep what they have.
//
// Kernel: net/netfilter/xt_CT.c, xt_ct_target.
func (t *Tracker) Attach(p *packet.Packet, template uint32) {
	if p.CT != (packet.CT{}) || p.Template != 0 {
		return
	}
	if template == 0 {
		p.CT.Info = packet.Untracked
		return
	}
	p.Template = template
}

// takeTemplate uses up the packet's template.
func (v *visit) takeTemplate() {
	n := v.p.Template
	if n == 0 || int(n) >= len(v.t.templates) {
		return
	}
	v.zone = v.t.zoneOf(v.p)
	v.p.Template = 0
	v.tmpl = &v.t.templates[n]
}

// zoneOf is the zone that the packet's template gives it.
//
// Kernel: include/net/netfilter/nf_conntrack_zones.h, nf_ct_zone_tmpl.
func (t *Tracker) zoneOf(p *packet.Packet) Zone {
	if int(p.Template) >= len(t.templates) {
		return Zone{}
	}
	tm := &t.templates[p.Template]
	z := tm.Zone
	if tm.ZoneMark {
		z.ID = uint16(p.Mark)
	}
	return z
}
