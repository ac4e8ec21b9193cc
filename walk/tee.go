package walk

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/target"
)

// Tee implements xtables.Mover: it sends a copy of the present packet through OUTPUT
// to a gateway, whatever the copy's destination. What comes of a copy is not copied.
//
// Kernel: net/ipv4/netfilter/nf_dup_ipv4.c, nf_dup_ipv4.
func (k *Walk) Tee(_ *xtables.Env, gateway packet.Addr, out packet.Dev) {
	if k.teeing {
		return
	}
	const tosBits = 0x1e // RT_TOS
	d := k.lookup(&route.Flow{Dst: gateway, TOS: k.p.TOS() & tosBits, Out: out})
	if d.Err != 0 {
		return
	}
	if d.Gateway.IsZero() {
		d.Gateway = gateway
	}
	k.teeing = true
	k.nested(func() {
		parent := k.p.SKB
		k.p = target.TeeCopy(k.p, k.hook)
		k.number(k.p)
		k.p.Socket = 0 // pskb_copy
		k.send(d, parent)
	})
	k.teeing = false
	k.softirq()
}
