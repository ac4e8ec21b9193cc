package walk

import (
	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/packet/icmp"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// optionHost is the host as the options of the present packet ask it.
type optionHost struct{ *Walk }

// SpecDst implements packet.OptionHost.
func (h optionHost) SpecDst() packet.Addr { return h.Routes.SpecDst(h.p, h.dst.Kind) }

// IsUnicast implements packet.OptionHost.
func (h optionHost) IsUnicast(a packet.Addr) bool {
	return h.Routes.AddrType(a, 0, field.Dst, nil) == trace.Unicast
}

// Milliseconds implements packet.OptionHost.
//
// Kernel: net/ipv4/af_inet.c, inet_current_timestamp.
func (h optionHost) Milliseconds() uint32 {
	const day = 86400 * world.Second
	return uint32((h.World.Now%day + day) % day / (world.Second / 1000))
}

// receiveOptions acts on the IP options of a packet that came in. It is false where
// they end the packet.
//
// Kernel: net/ipv4/ip_input.c, ip_rcv_options.
func (k *Walk) receiveOptions() bool {
	k.needs(field.IPOpts)
	if k.p.IP()[0]&0xf == 5 {
		return true
	}
	k.needs(field.Bytes) // no field names what stands in an option
	if k.p.HasCIPSO() {
		k.Err = &link.UnsupportedError{What: "IP option CIPSO"}
		return false
	}
	if bad := k.p.CompileOptions(optionHost{k}); bad != 0 {
		k.nested(func() { k.sendICMP(icmp.ParamProblem, 0, uint32(bad)<<24) })
		k.drop("NOT_SPECIFIED", "bad-ip-option")
		return false
	}
	if k.p.Options.SourceRoute == 0 {
		return true
	}
	if l := k.Links.ByIndex(k.p.In); l != nil && !l.Conf.AcceptSourceRoute {
		k.drop("NOT_SPECIFIED", "source-route-off")
		return false
	}
	if why := k.followSourceRoute(); why != "" {
		k.drop("NOT_SPECIFIED", why)
		return false
	}
	return true
}

// followSourceRoute finds where the packet goes next. Addresses of this host are
// passed at once.
//
// Kernel: net/ipv4/ip_options.c, ip_options_rcv_srr.
func (k *Walk) followSourceRoute() trace.Why {
	const atDst = 16 << 24
	o := &k.p.Options
	switch {
	case k.p.Type != packet.Host:
		return "other-host"
	case k.dst.Err == 0 && k.dst.Kind == trace.Unicast:
		if !o.Strict {
			return ""
		}
		k.nested(func() { k.sendICMP(icmp.ParamProblem, 0, atDst) })
		return "source-route-failed"
	case k.dst.Err != 0 || k.dst.Kind != trace.Local:
		return "source-route-failed"
	}
	addrs, whole := k.p.NextSource()
	for _, next := range addrs {
		var d route.Decision
		k.Routes.InputTo(k.World, k.Trace, k.p, next, &k.env, &d)
		if d.Err != 0 || d.Kind != trace.Unicast && d.Kind != trace.Local {
			return "source-route-failed"
		}
		k.dst, o.Changed = d, true
		if d.Kind == trace.Unicast {
			o.Nexthop = next
			return ""
		}
		copy(k.p.IP()[16:20], next.Bytes())
	}
	if !whole {
		k.nested(func() { k.sendICMP(icmp.ParamProblem, 0, uint32(o.SourceRoute+2)<<24) })
		return "bad-ip-option"
	}
	return ""
}

// forwardOptions finishes the options of a packet that is forwarded.
func (k *Walk) forwardOptions() {
	if k.p.Options.Len == 0 {
		return
	}
	k.p.ForwardOptions(func() packet.Addr { return k.Routes.ForwardSource(k.p, &k.dst) })
}
