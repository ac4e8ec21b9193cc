package snapshot

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/trace"
)

// ipvsReader puts the files of the load balancer together. The list tells which services
// there are, in which order, and their counts; the saved table tells their options, and all
// where there is no list.
type ipvsReader struct {
	*reader
	list  *ipvsListing // nil without the file
	saved *serviceList // nil without the file
}

func (r *reader) ipvs() error {
	v := ipvsReader{reader: r}
	if err := v.files(); err != nil {
		return err
	}
	services := v.services()
	if services == nil || len(services.services) == 0 {
		return nil
	}
	if err := v.thresholds(services); err != nil {
		return err
	}
	if err := v.timeouts(); err != nil {
		return err
	}
	if err := v.conns(); err != nil {
		return err
	}
	r.c.IPVS.Services = services.services
	for i := range r.c.IPVS.Services {
		s := &r.c.IPVS.Services[i]
		s.Used = slices.ContainsFunc(s.Dests, func(d ipvs.Dest) bool { return d.Counts.Total() > 0 })
	}
	return nil
}

// files reads the list and the saved table.
func (v *ipvsReader) files() (err error) {
	if file, data, ok := v.file("ipvsadm-save"); ok {
		if v.saved, err = parseIPVSSave(file, data); err != nil {
			return err
		}
	}
	file, data, ok := v.file("ipvs")
	if !ok {
		return nil
	}
	if v.list, err = parseIPVSList(file, data, v.hz()); err != nil {
		return err
	}
	if len(v.list.services) == 0 || v.saved != nil {
		return nil
	}
	for _, name := range []string{"Forward", "Weight"} {
		if !v.list.columns.has(name) {
			return place{file, 1}.errorf("without ipvsadm-save a list with the column %s is needed", name)
		}
	}
	return nil
}

func (v *ipvsReader) hz() int {
	if v.c.HZ == 0 {
		return 250
	}
	return v.c.HZ
}

// services joins the list and the saved table; nil where neither is there.
func (v *ipvsReader) services() *serviceList {
	switch {
	case v.list != nil:
		if v.saved != nil {
			v.families()
			v.adopt()
		} else {
			v.listAlone()
		}
		v.order()
		return v.list.serviceList
	case v.saved != nil && len(v.saved.services) > 0:
		v.assumeTaken("no ipvs file: real servers count as added in the order of ipvsadm-save, " +
			"which ipvsadm sorts, and as without connections")
	}
	return v.saved
}

// order notes where the order of real servers can be ipvsadm's and not the kernel's.
func (v *ipvsReader) order() {
	several := false
	for i := range v.list.services {
		dests := v.list.services[i].Dests
		several = several || len(dests) > 1
		if v.list.hex || !ipvs.IsSorted(dests) {
			return
		}
	}
	if several {
		v.assume("ipvs: all real servers stand in the order that ipvsadm sorts them into without " +
			"--nosort: it is taken to be the kernel's")
	}
}

// listAlone notes what a list without the saved table does not tell.
func (v *ipvsReader) listAlone() {
	tunnel, persistent := false, false
	for i := range v.list.services {
		s := &v.list.services[i]
		persistent = persistent || s.Timeout != 0
		for j := range s.Dests {
			tunnel = tunnel || s.Dests[j].Method == ipvs.Tunnel
		}
	}
	if tunnel && !v.list.columns.has("TunnelInfo") {
		v.assume("no ipvsadm-save file: tunnels are IPIP")
	}
	if v.list.hex && len(v.list.services) > 0 {
		v.assume("no ipvsadm-save file, and /proc/net/ip_vs does not tell: no flags of schedulers, " +
			"no persistence engines, no --ops of IPv6")
	}
	if v.list.hex && persistent && v.c.HZ == 0 {
		v.assume("meta.json has no hz: persistence of /proc/net/ip_vs counts 250 ticks a second")
	}
}

// families tells services of /proc that go by a mark of which family they are.
func (v *ipvsReader) families() {
	for i := range v.list.services {
		s := &v.list.services[i]
		old, six := keyOf(s), keyOf(s)
		six.family = trace.IPv6
		_, have := v.saved.numbers[old]
		_, have6 := v.saved.numbers[six]
		if v.list.hex && s.Mark != 0 && !have && have6 {
			delete(v.list.numbers, old)
			s.Family, s.Mask = trace.IPv6, allBits(trace.IPv6)
			v.list.numbers[six] = i
		}
	}
}

// differences are what two files say differently.
type differences struct {
	count int
	first string
}

func (d *differences) add(format string, args ...any) {
	if d.count++; d.count == 1 {
		d.first = fmt.Sprintf(format, args...)
	}
}

// note makes an assumption of the differences.
func (v *ipvsReader) note(d differences, files, who string) {
	switch {
	case d.count == 1:
		v.assume("%s: %s: %s", files, d.first, who)
	case d.count > 1:
		v.assume("%s: %s, and %d more: %s", files, d.first, d.count-1, who)
	}
}

// adopt gives the list's services the options that only the saved table tells.
func (v *ipvsReader) adopt() {
	var d differences
	for i := range v.list.services {
		s := &v.list.services[i]
		number, ok := v.saved.numbers[keyOf(s)]
		if !ok {
			d.add("the service %s is not saved", s)
			continue
		}
		v.adoptService(s, &v.saved.services[number], &d)
		for j := range s.Dests {
			v.adoptDest(s, &s.Dests[j], &d)
		}
	}
	for i := range v.saved.services {
		s := &v.saved.services[i]
		if _, ok := v.list.numbers[keyOf(s)]; !ok {
			d.add("the service %s is not listed", s)
			continue
		}
		for j := range s.Dests {
			if t := &s.Dests[j]; v.list.dest(s, t) == nil {
				d.add("the real server %s:%d of %s is not listed", t.Addr, t.Port, s)
			}
		}
	}
	v.note(d, "ipvs and ipvsadm-save", "ipvs counts")
}

func (v *ipvsReader) adoptService(s, saved *ipvs.Service, d *differences) {
	if v.list.hex {
		s.Flags, s.PE = saved.Flags, saved.PE
	}
	if s.Scheduler != saved.Scheduler || s.Timeout != saved.Timeout || s.Flags != saved.Flags ||
		s.Mask != saved.Mask || s.PE != saved.PE {
		d.add("the service %s has other options", s)
	}
}

// adoptDest gives a real server what the list has no column for.
func (v *ipvsReader) adoptDest(s *ipvs.Service, to *ipvs.Dest, d *differences) {
	saved := v.saved.dest(s, to)
	if saved == nil {
		d.add("the real server %s:%d of %s is not saved", to.Addr, to.Port, s)
		return
	}
	has := v.list.columns.has
	if !has("Forward") {
		to.Method = saved.Method
	}
	if !has("Weight") {
		to.Weight = saved.Weight
	}
	if !has("TunnelInfo") && to.Method == ipvs.Tunnel {
		to.Encap, to.EncapPort, to.EncapFlags = saved.Encap, saved.EncapPort, saved.EncapFlags
	}
	if !has("Uthreshold") {
		to.Upper, to.Lower = saved.Upper, saved.Lower
	}
	if to.Method != saved.Method || to.Weight != saved.Weight {
		d.add("the real server %s:%d of %s has another weight or method", to.Addr, to.Port, s)
	}
}

// thresholds reads ipvs-thresholds.
func (v *ipvsReader) thresholds(services *serviceList) error {
	file, data, ok := v.file("ipvs-thresholds")
	if !ok {
		if !hasThresholds(services.services) && (v.list == nil || !v.list.columns.has("Uthreshold")) {
			v.assumeTaken("no ipvs-thresholds file: real servers have no thresholds")
		}
		return nil
	}
	from, err := parseIPVSList(file, data, v.hz())
	if err != nil {
		return err
	}
	if len(from.services) > 0 && !from.columns.has("Uthreshold") {
		return place{file, 1}.errorf("the column Uthreshold is missing: ipvsadm -L -n --thresholds has it")
	}
	var d differences
	for i := range services.services {
		s := &services.services[i]
		for j := range s.Dests {
			to := &s.Dests[j]
			if t := from.dest(s, to); t != nil {
				to.Upper, to.Lower = t.Upper, t.Lower
			} else {
				d.add("the real server %s:%d of %s is missing", to.Addr, to.Port, s)
			}
		}
	}
	v.note(d, "ipvs-thresholds", "no thresholds")
	return nil
}

func hasThresholds(services []ipvs.Service) bool {
	return slices.ContainsFunc(services, func(s ipvs.Service) bool {
		return slices.ContainsFunc(s.Dests, func(d ipvs.Dest) bool { return d.Upper != 0 })
	})
}

// timeouts reads ipvs-timeouts.
func (v *ipvsReader) timeouts() (err error) {
	file, data, ok := v.file("ipvs-timeouts")
	if !ok {
		v.assumeTaken("no ipvs-timeouts file: the kernel's own")
		return nil
	}
	v.c.IPVS.Timeouts, err = parseIPVSTimeouts(file, data)
	return err
}

// parseIPVSTimeouts reads `ipvsadm -L --timeout`: one line.
func parseIPVSTimeouts(file string, data []byte) (t ipvs.Timeouts, err error) {
	err = eachLine(file, data, func(p place, line string) error {
		values, ok := strings.CutPrefix(line, "Timeout (tcp tcpfin udp):")
		w := wordList{p, strings.Fields(values)}
		if !ok || len(w.words) != 3 {
			return p.errorf("%q is not what ipvsadm -L --timeout prints", line)
		}
		for _, to := range []struct {
			what string
			n    *uint32
		}{{"tcp", &t.TCP}, {"tcpfin", &t.TCPFin}, {"udp", &t.UDP}} {
			n, err := ipvsNumber(p, to.what, w.next(), math.MaxInt32)
			if err != nil {
				return err
			}
			*to.n = uint32(n)
		}
		return nil
	})
	return t, err
}

// conns reads ipvs-conns.
func (v *ipvsReader) conns() error {
	file, data, ok := v.file("ipvs-conns")
	if !ok {
		v.assumeTaken("no ipvs-conns file: nobody has a connection to a service yet")
		return nil
	}
	c, err := parseIPVSConns(file, data, v.c.Now)
	if err != nil {
		return err
	}
	if c.engines > 0 {
		v.assume("ipvs-conns: what persistence engines keep of %d templates is not read", c.engines)
	}
	v.c.IPVS.Conns = c.conns
	return nil
}

// assumeTaken assumes something of a snapshot that was taken; commands that lab.yaml lists
// are all that there is.
func (v *ipvsReader) assumeTaken(text string) {
	if v.d.Lab == nil {
		v.assume("%s", text)
	}
}
