package ipvs

import "github.com/hookpath/hookpath/world"

// newShortestDelay makes the scheduler that takes the server where a client would wait the
// least: it counts the active connections and the one to come, for the weight.
//
// Kernel: net/netfilter/ipvs/ip_vs_sed.c, ip_vs_sed_schedule.
func newShortestDelay(*world.Schema, *service) scheduler { return weightedLeast{delay} }

// delay is the number of clients at a server if one more comes.
//
// Kernel: net/netfilter/ipvs/ip_vs_sed.c, ip_vs_sed_dest_overhead.
func delay(n Counts) int32 { return n.Active + 1 }
