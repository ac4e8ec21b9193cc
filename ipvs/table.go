package ipvs

import (
	"fmt"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Config is what a table is made of.
type Config struct {
	Schema   *world.Schema
	Sysctl   link.Sysctl
	Tracker  *conntrack.Tracker
	Services []Service
	Timeouts Timeouts
}

// Timeouts are those that ipvsadm --set changes, in seconds; zero is the kernel's own.
type Timeouts struct{ TCP, TCPFin, UDP uint32 }

// Table is the load balancer of a host. It is immutable; connections, what servers have of
// them and what schedulers remember are in the world.
type Table struct {
	services []*service
	byAddr   map[serviceKey]*service
	byMark   map[markKey]*service
	// servers are the real servers of all services, by the number that counts go by.
	servers  []server
	settings settings
	tracker  *conntrack.Tracker
	times    times
	tcp      *machine
	sctp     *machine

	totals world.Slot[*world.Array[Counts]]
	conns  world.Slot[*world.Array[conn]]
	in     world.Slot[*world.Table[inKey, ConnID]]
	out    world.Slot[*world.Table[outKey, ConnID]]
	vars   world.Slot[*world.Var[vars]]
}

type serviceKey struct {
	proto uint8
	addr  packet.Addr
	port  uint16
}

type markKey struct {
	family trace.Family
	mark   uint32
}

// service is a virtual service of a table.
type service struct {
	Service
	table     *Table
	number    int // in the table's services
	first     int // number of its first server in the table's
	scheduler scheduler
}

// server is a real server of a service.
type server struct {
	*Dest
	svc   *service
	index int // in the service's servers
}

// New makes a table. The error names the service.
func New(cfg Config) (*Table, error) {
	t := &Table{byAddr: map[serviceKey]*service{}, byMark: map[markKey]*service{},
		settings: readSettings(cfg.Sysctl), tracker: cfg.Tracker}
	t.times = newTimes(cfg.Timeouts)
	t.tcp, t.sctp = tcpMachine(t.settings.secureTCP), sctpMachine()
	for i := range cfg.Services {
		if err := t.add(cfg.Schema, &cfg.Services[i]); err != nil {
			return nil, err
		}
	}
	t.totals = world.Add(cfg.Schema, t.firstCounts)
	t.conns = world.Add(cfg.Schema, func() *world.Array[conn] { return world.NewArray[conn](1) })
	t.in = world.Add(cfg.Schema, world.NewTable[inKey, ConnID])
	t.out = world.Add(cfg.Schema, world.NewTable[outKey, ConnID])
	t.vars = world.Add(cfg.Schema, func() *world.Var[vars] { return &world.Var[vars]{} })
	return t, nil
}

// add takes a service in. Kernel: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_add_service.
func (t *Table) add(schema *world.Schema, s *Service) error {
	svc := &service{Service: *s, table: t, number: len(t.services), first: len(t.servers)}
	for i := range svc.Dests {
		t.servers = append(t.servers, server{&svc.Dests[i], svc, i})
	}
	var err error
	if svc.scheduler, err = newScheduler(schema, svc); err != nil {
		return fmt.Errorf("service %s: %w", svc, err)
	}
	t.services = append(t.services, svc)
	if s.Mark != 0 {
		t.byMark[markKey{s.Family, s.Mark}] = svc
	} else {
		t.byAddr[serviceKey{s.Proto, s.Addr, s.Port}] = svc
	}
	return nil
}

// firstCounts are what the servers had when the snapshot was taken.
func (t *Table) firstCounts() *world.Array[Counts] {
	all := world.NewArray[Counts](len(t.servers))
	for i := range t.servers {
		d := t.servers[i].Dest
		c := all.Ref(i)
		*c = d.Counts
		c.Overload = d.Upper != 0 && uint32(c.Total()) >= d.Upper
	}
	return all
}

// InUse tells whether there is a service: only then the hooks do anything.
func (t *Table) InUse() bool { return t != nil && len(t.services) > 0 }

// String is the service as messages name it: "TCP 10.0.0.1:80", "FWM 5".
func (s *Service) String() string {
	if s.Mark != 0 {
		return fmt.Sprintf("FWM %d", s.Mark)
	}
	return fmt.Sprintf("%s %s:%d", protoName(s.Proto), s.Addr, s.Port)
}

func protoName(proto uint8) string {
	switch proto {
	case packet.TCP:
		return "TCP"
	case packet.UDP:
		return "UDP"
	case packet.SCTP:
		return "SCTP"
	}
	return fmt.Sprintf("IP_%d", proto)
}
