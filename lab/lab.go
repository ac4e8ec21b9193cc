// Package lab joins hosts by cables and switches, and walks a packet over all of them:
// what one host transmits the next one receives, until the packet is delivered, lost, or
// leaves the lab. Hosts know nothing of each other; ARP between them is real frames.
package lab

import (
	"maps"
	"slices"

	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// Lab is hosts and what lies between them. It is immutable and may be shared.
type Lab struct {
	Hosts []*walk.Host
	// Infer joins hosts also where no configuration names a cable: a frame goes to the
	// host that has its MAC address or owns the next hop.
	Infer bool
}

func (l *Lab) index(name string) int {
	return slices.IndexFunc(l.Hosts, func(h *walk.Host) bool { return h.Name == name })
}

// Start is the memory of every host before any question.
func (l *Lab) Start() States {
	s := make(States, len(l.Hosts))
	for _, h := range l.Hosts {
		s[h.Name] = h.Memory()
	}
	return s
}

// States is the memory of each host by its name.
type States map[string]*world.State

// With returns a copy in which the given hosts remember something else.
func (s States) With(more States) States {
	out := maps.Clone(s)
	maps.Copy(out, more)
	return out
}
