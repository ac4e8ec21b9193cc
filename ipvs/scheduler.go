package ipvs

import (
	"errors"
	"fmt"
	"math"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// scheduler chooses a real server for a new connection. It is made once for each service
// at load; what it remembers has a slot of its own in the world, whose first value is that
// of a service whose servers were just added one after the other.
//
// Kernel: include/net/ip_vs.h, struct ip_vs_scheduler.
type scheduler interface {
	// schedule returns a number in the service's servers, -1 where none will do. The call
	// is a value, since a pointer would be an allocation for each decision.
	schedule(c call) int
}

// call is what a scheduler is asked about.
type call struct {
	w      *world.World
	svc    *service
	totals *world.Array[Counts]
	// src and sport are the client's: ends are swapped where it is a quoted answer.
	src   packet.Addr
	sport uint16
	// dst is the destination as the packet has it, not swapped: dh, lblc and lblcr do not
	// look which way a quoted packet goes.
	dst packet.Addr
}

// server returns a real server's configuration.
func (c *call) server(i int) *Dest { return &c.svc.Dests[i] }

// counts returns a real server's connections.
func (c *call) counts(i int) Counts { return c.totals.Get(c.svc.first + i) }

// open tells whether a real server may get new connections: it has a weight, and is not
// overloaded.
func (c *call) open(i int) bool { return c.server(i).Weight > 0 && !c.counts(i).Overload }

// schedulers make the scheduler of a service, by name.
var schedulers = map[string]func(*world.Schema, *service) scheduler{
	"dh":    newDestinationHash,
	"fo":    newFailover,
	"lblc":  newLocality,
	"lblcr": newReplicated,
	"lc":    newLeast,
	"mh":    newMaglev,
	"nq":    newNeverQueue,
	"ovf":   newOverflow,
	"rr":    newRoundRobin,
	"sed":   newShortestDelay,
	"sh":    newSourceHash,
	"twos":  newTwos,
	"wlc":   newWeightedLeast,
	"wrr":   newWeightedRobin,
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
	if svc.Scheduler == "twos" && totalWeight(svc.Dests) >= math.MaxInt32 {
		return nil, errors.New("twos: the sum of the weights is over 2147483646, where the " +
			"kernel's wraps: unsupported")
	}
	return make(s, svc), nil
}

// nobody is the scheduler of a service that has none.
type nobody struct{}

func (nobody) schedule(call) int { return -1 }
