package ipvs

import (
	"fmt"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// scheduler chooses a real server for a new connection. It is made once for each service
// at load; what it remembers has a slot of its own in the world, whose first value is that
// of a service whose servers were just added one after the other.
//
// Kernel: include/net/ip_vs.h, struct ip_vs_scheduler.
type scheduler interface {
	// schedule returns a number in the service's servers, -1 where none will do.
	schedule(c *call) int
}

// call is what a scheduler is asked about.
type call struct {
	w   *world.World
	svc *service
	// The packet from the client's side: ends are swapped where it is a quoted answer.
	proto        uint8
	src, dst     packet.Addr
	sport, dport uint16
}

// server returns a real server's configuration.
func (c *call) server(i int) *Dest { return &c.svc.Dests[i] }

// counts returns a real server's connections.
func (c *call) counts(i int) *Counts { return c.svc.counts(c.w, i) }

// open tells whether a real server may get new connections: it has a weight, and is not
// overloaded.
func (c *call) open(i int) bool { return c.server(i).Weight > 0 && !c.counts(i).Overload }

// schedulers make the scheduler of a service, by name.
var schedulers = map[string]func(*world.Schema, *service) scheduler{
	"rr":  newRoundRobin,
	"wlc": newWeightedLeast,
}

// newScheduler makes a service's scheduler. With "none" nobody schedules.
func newScheduler(s *world.Schema, svc *service) (scheduler, error) {
	if svc.Scheduler == "none" {
		return nobody{}, nil
	}
	make, ok := schedulers[svc.Scheduler]
	if !ok {
		return nil, fmt.Errorf("scheduler %q is not known", svc.Scheduler)
	}
	return make(s, svc), nil
}

// nobody is the scheduler of a service that has none.
type nobody struct{}

func (nobody) schedule(*call) int { return -1 }
