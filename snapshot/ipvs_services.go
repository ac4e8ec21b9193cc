package snapshot

import (
	"math"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
)

// serviceKey is what no two services have in common.
type serviceKey struct {
	family trace.Family
	proto  uint8
	addr   packet.Addr
	port   uint16
	mark   uint32
}

// destKey is what no two real servers have in common.
type destKey struct {
	service int // in the list
	addr    packet.Addr
	port    uint16
}

// serviceList is the services of one file, and where they stand in it.
type serviceList struct {
	services []ipvs.Service
	numbers  map[serviceKey]int
	dests    map[destKey]int
}

// newServiceList makes a list for the services of a file with so many lines, most of which
// are real servers'.
func newServiceList(lines int) *serviceList {
	return &serviceList{numbers: map[serviceKey]int{}, dests: make(map[destKey]int, lines)}
}

func keyOf(s *ipvs.Service) serviceKey {
	return serviceKey{s.Family, s.Proto, s.Addr, s.Port, s.Mark}
}

// addService takes a service in.
func (l *serviceList) addService(p place, s ipvs.Service) error {
	k := keyOf(&s)
	if _, ok := l.numbers[k]; ok {
		return p.errorf("the service %s is there twice", s.String())
	}
	l.numbers[k] = len(l.services)
	l.services = append(l.services, s)
	return nil
}

// addDest takes a real server of a service in, as the kernel would.
//
// Kernel: net/netfilter/ipvs/ip_vs_ctl.c, ip_vs_add_dest and ip_vs_genl_parse_dest.
func (l *serviceList) addDest(p place, service int, d ipvs.Dest) error {
	s := &l.services[service]
	if v4 := s.Family == trace.IPv4; d.Addr.Is4() != v4 && d.Method != ipvs.Tunnel {
		return p.errorf("real server %s of %s: only tunnels lead to the other family", d.Addr, s)
	}
	if d.Lower > d.Upper || d.Upper > math.MaxInt32 {
		return p.errorf("real server %s of %s: its lower threshold %d is above the upper, %d",
			d.Addr, s, d.Lower, d.Upper)
	}
	k := destKey{service, d.Addr, d.Port}
	if _, ok := l.dests[k]; ok {
		return p.errorf("the real server %s:%d of %s is there twice", d.Addr, d.Port, s)
	}
	l.dests[k] = len(s.Dests)
	s.Dests = append(s.Dests, d)
	return nil
}

// dest finds a real server of another list's service; nil where it is not there.
func (l *serviceList) dest(s *ipvs.Service, d *ipvs.Dest) *ipvs.Dest {
	service, ok := l.numbers[keyOf(s)]
	if !ok {
		return nil
	}
	at, ok := l.dests[destKey{service, d.Addr, d.Port}]
	if !ok {
		return nil
	}
	return &l.services[service].Dests[at]
}
