package conntrack

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

func (t *Tracker) ftp(w *world.World, p *packet.Packet, f *Flow) trace.Verdict {
	return trace.Accept
}
