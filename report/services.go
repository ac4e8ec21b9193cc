package report

import (
	"fmt"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// ServiceProblems tells what keeps the services of a host's load balancer from working, as
// far as it shows without a packet: a line each, which names the service. Where addresses
// or routes are open nothing is said of them. IPv6 is not routed yet.
func ServiceProblems(h *walk.Host) []string {
	c := h.Config()
	s := services{h: h, c: c, w: h.NewWorld(h.Memory().Fork())}
	for i := range c.IPVS.Services {
		s.service(&c.IPVS.Services[i])
	}
	if s.masq && !c.OpenSysctl && c.Sysctl.Int("net.ipv4.ip_forward", 0) == 0 {
		s.found = append(s.found, "net.ipv4.ip_forward is 0: what Masq servers answer is not forwarded")
	}
	return s.found
}

// services looks for problems.
type services struct {
	h     *walk.Host
	c     *walk.Config
	w     *world.World
	found []string
	masq  bool // there is a real server of NAT
}

func (s *services) add(svc *ipvs.Service, format string, args ...any) {
	s.found = append(s.found, svc.String()+": "+fmt.Sprintf(format, args...))
}

func (s *services) service(svc *ipvs.Service) {
	if svc.Mark == 0 && svc.Family == trace.IPv4 && !s.c.OpenAddrs && !s.isLocal(svc) {
		s.add(svc, "%s is not local: clients' packets do not come to INPUT, where IPVS takes them",
			svc.Addr)
	}
	weighty := 0
	for i := range svc.Dests {
		if svc.Dests[i].Weight > 0 {
			weighty++
		}
	}
	switch {
	case len(svc.Dests) == 0:
		s.add(svc, "there is no real server")
	case weighty == 0:
		s.add(svc, "all real servers have weight 0: new connections get none")
	}
	for i := range svc.Dests {
		s.server(svc, &svc.Dests[i], weighty > 0)
	}
}

// isLocal tells whether packets to a service's address are for this host.
func (s *services) isLocal(svc *ipvs.Service) bool {
	if s.h.Routes.AddrType(svc.Addr, 0, field.Dst, nil) == trace.Local {
		return true
	}
	d := s.h.Routes.Output(s.w, nil, &route.Flow{Dst: svc.Addr})
	return d.Err == 0 && d.Kind == trace.Local
}

// server looks at one real server; others tells whether others can take its connections.
func (s *services) server(svc *ipvs.Service, d *ipvs.Dest, others bool) {
	s.masq = s.masq || d.Method == ipvs.Masq
	name := fmt.Sprintf("real server %s:%d", d.Addr, d.Port)
	switch {
	case d.Weight == 0 && others && svc.Timeout > 0: // templates go on leading to it
		s.add(svc, "%s has weight 0: it gets no new clients", name)
	case d.Weight == 0 && others:
		s.add(svc, "%s has weight 0: it gets no new connections", name)
	}
	if d.Upper > 0 && d.Counts.Total() >= 0 && uint32(d.Counts.Total()) >= d.Upper {
		s.add(svc, "%s is overloaded: %d connections, its upper threshold is %d", name,
			d.Counts.Total(), d.Upper)
	}
	if !d.Addr.Is4() || s.c.OpenRoutes {
		return
	}
	// The lookup of IPVS has nothing but the destination.
	r := s.h.Routes.Output(s.w, nil, &route.Flow{Dst: d.Addr})
	if r.Err != 0 {
		s.add(svc, "no route to %s: %s", name, r.Err)
		return
	}
	if hop := r.Nexthop(d.Addr); d.Method == ipvs.Direct && r.Kind == trace.Unicast && hop != d.Addr {
		s.add(svc, "%s is behind the router %s, which sees only %s: direct routing needs one network",
			name, hop, destinationOf(svc))
	}
}

// destinationOf is what packets of a service's clients are for.
func destinationOf(svc *ipvs.Service) string {
	if svc.Mark != 0 {
		return "the client's destination"
	}
	return svc.Addr.String()
}
