package ipset

import (
	"math/bits"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// Entry is one element as `ipset add` takes it and `ipset save` prints it. What a
// type has no use for is ignored.
type Entry struct {
	// Addr[/Prefix] or Addr-To; Prefix is meant only with HasPrefix.
	Addr, To  [2]packet.Addr
	Prefix    [2]uint8
	HasPrefix [2]bool
	// Port, or Port-PortTo; of ICMP type and code. Proto 0 is none.
	Port, PortTo uint16
	HasPortTo    bool
	Proto        uint8
	Mark         uint32
	MAC          packet.MAC
	HasMAC       bool
	Iface        string
	PhysDev      bool
	Wildcard     bool
	NoMatch      bool
	Set          string // of a list
	Before       string
	After        string

	Timeout    uint32
	HasTimeout bool
	Packets    uint64
	Bytes      uint64
	HasCounts  bool
	Comment    string
	Info       Info
	HasInfo    bool
}

// maxRange is how many elements one entry may stand for.
const maxRange = 1 << 20

// Add puts an entry into the set, as `ipset add` does (with -exist for exist) at a
// time. The error says what the kernel refuses.
//
// Kernel: *_uadt of each type.
func (s *Set) Add(e *Entry, exist bool, now world.Instant) error {
	if err := s.checkExt(e); err != nil {
		return err
	}
	l := loading{s: s, e: e, exist: exist, now: now}
	switch {
	case s.kind.class == classList:
		return l.addMember()
	case s.kind.class == classHash:
		return l.addHash()
	case s.kind.count(partPort) > 0:
		return l.addPorts()
	}
	return l.addPlaces()
}

// checkExt refuses extensions that the set was made without.
//
// Kernel: net/netfilter/ipset/ip_set_core.c, ip_set_get_extensions.
func (s *Set) checkExt(e *Entry) error {
	switch {
	case e.HasTimeout && !s.HasTimeout:
		return refuse("timeout can't be used: the set was created without timeout support")
	case e.HasCounts && !s.Counters:
		return refuse("packets and bytes can't be used: the set was created without counter support")
	case e.Comment != "" && !s.Comment:
		return refuse("comment can't be used: the set was created without comment support")
	case e.HasInfo && !s.SKBInfo:
		return refuse("skbmark, skbprio and skbqueue can't be used: " +
			"the set was created without skbinfo support")
	case len(e.Comment) > MaxComment:
		return refuse("the comment is longer than %d bytes", MaxComment)
	case e.NoMatch && s.kind.nets() == 0:
		return refuse("%s has no nomatch", s.Type)
	case e.Wildcard && !s.kind.isIface():
		return refuse("%s has no wildcard", s.Type)
	}
	return nil
}

// loading is an entry on its way into a set that is being loaded.
type loading struct {
	s     *Set
	e     *Entry
	exist bool
	now   world.Instant
	n     int // elements so far
}

// ext is what the entry carries.
func (l *loading) ext() ext {
	seconds := l.s.Timeout
	if l.e.HasTimeout {
		seconds = min(l.e.Timeout, MaxTimeout)
	}
	x := ext{packets: l.e.Packets, bytes: l.e.Bytes, info: l.e.Info}
	if seconds != 0 {
		x.expires = l.now + world.Instant(seconds)*world.Second
	}
	return x
}

func (l *loading) setComment(at uint32) {
	if l.e.Comment == "" {
		delete(l.s.comments, at)
		return
	}
	if l.s.comments == nil {
		l.s.comments = map[uint32]string{}
	}
	l.s.comments[at] = l.e.Comment
}

// one puts a single element into a hash.
func (l *loading) one(r *rec) error {
	if l.n++; l.n > maxRange {
		return refuse("a range of more than %d elements is not supported", maxRange)
	}
	s := l.s
	var attr byte
	if l.e.NoMatch {
		attr |= attrNoMatch
	}
	if l.e.Wildcard {
		attr |= attrWildcard
	}
	e := s.pack(&s.hash.l, r)
	at, there, err := s.insert(&e, attr)
	switch {
	case err != nil:
		return err
	case there && !l.exist:
		return refuse("the element is already added to the set")
	case there && s.kind.nets() > 0:
		b := s.hash.attrs(at)
		*b = *b&^attrNoMatch | attr&attrNoMatch
	}
	if s.hasExt() {
		l.keep(at, there)
	}
	l.setComment(at)
	return nil
}

// keep sets the extensions of an element.
func (l *loading) keep(at uint32, there bool) {
	x := l.ext()
	if !there {
		l.s.ext = append(l.s.ext, x)
		return
	}
	if !l.e.HasCounts {
		x.packets, x.bytes = l.s.ext[at].packets, l.s.ext[at].bytes
	}
	l.s.ext[at] = x
}

// addHash adds all elements that the entry stands for.
func (l *loading) addHash() error {
	s, r := l.s, rec{mark: l.e.Mark & l.s.MarkMask, mac: l.e.MAC, physdev: l.e.PhysDev}
	if err := l.check(); err != nil {
		return err
	}
	if s.kind.isIface() {
		copy(r.iface[:15], l.e.Iface)
	}
	return l.eachAddr(0, &r)
}

// check refuses what no element of the set can have.
func (l *loading) check() error {
	s, e := l.s, l.e
	for i := range s.kind.count(partIP) + s.kind.nets() {
		if e.Addr[i].IsZero() && s.Family == Inet || e.Addr[i].Is4() != (s.Family == Inet) {
			return refuse("%s is not an address of family %s", e.Addr[i], s.Family)
		}
		if s.Family == Inet6 && !e.To[i].IsZero() {
			return refuse("ranges of IPv6 addresses are not supported by the kernel")
		}
		if err := l.checkPrefix(i); err != nil {
			return err
		}
		if s.Bitmask != (packet.Addr{}) && (s.Netmask == 0 || s.Type != "hash:ip") && l.isSpan(i) {
			return refuse("a range in a set with %s is not supported", maskWord(s))
		}
	}
	switch {
	case s.kind.count(partPort) > 0 && e.Proto == 0:
		return refuse("the protocol is missing or 0")
	case s.kind.count(partMAC) > 0 && e.MAC == packet.MAC{}:
		return refuse("the MAC address is zero or missing")
	case s.kind.isIface() && (e.Iface == "" || len(e.Iface) > 15):
		return refuse("%q is not the name of an interface", cut(e.Iface))
	}
	return nil
}

func maskWord(s *Set) string {
	if s.Netmask != 0 {
		return "netmask"
	}
	return "bitmask"
}

// isSpan tells whether address i stands for more than one element.
func (l *loading) isSpan(i int) bool {
	e := l.e
	return !e.To[i].IsZero() ||
		!l.s.kind.isNet(i) && e.HasPrefix[i] && e.Prefix[i] != l.s.Family.hostBits()
}

// isNet tells whether address i of the entries is a prefix.
func (k *kind) isNet(i int) bool {
	n := 0
	for _, p := range k.parts {
		if p != partIP && p != partNet {
			continue
		}
		if n == i {
			return p == partNet
		}
		n++
	}
	return false
}

func (l *loading) checkPrefix(i int) error {
	s, e := l.s, l.e
	if !e.HasPrefix[i] {
		return nil
	}
	host := s.Family.hostBits()
	switch {
	case e.Prefix[i] > host || e.Prefix[i] == 0 && !(s.kind.net0 && s.kind.isNet(i)):
		return refuse("the prefix length %d is not valid for %s", e.Prefix[i], s.Type)
	case s.Family == Inet6 && !s.kind.isNet(i) && e.Prefix[i] != host:
		return refuse("%s of family inet6 takes no prefix", s.Type)
	case i == 1 && s.kind.name == "hash:ip,port,ip" && e.Prefix[i] != host:
		return refuse("the second address of %s takes no prefix", s.Type)
	}
	return nil
}

// eachAddr goes on with each value of address i, then with the ports.
func (l *loading) eachAddr(i int, r *rec) error {
	k := l.s.kind
	if i == k.count(partIP)+k.nets() {
		return l.eachPort(r)
	}
	if k.isNet(i) {
		return l.eachNet(i, r)
	}
	from, to := l.span(i)
	if l.s.Family == Inet6 {
		return l.withAddr(i, r, l.e.Addr[i])
	}
	step := uint64(1)
	if l.s.Netmask != 0 {
		step = 1 << (32 - l.s.Netmask)
		from &^= uint32(step - 1)
	}
	for ip := uint64(from); ip <= uint64(to); ip += step {
		if err := l.withAddr(i, r, packet.V4(uint32(ip))); err != nil {
			return err
		}
	}
	return nil
}

// span is the range that address i stands for.
func (l *loading) span(i int) (from, to uint32) {
	e := l.e
	from = e.Addr[i].Uint32()
	to = from
	switch {
	case !e.To[i].IsZero():
		to = e.To[i].Uint32()
	case e.HasPrefix[i] && e.Prefix[i] < 32:
		rest := uint32(1)<<(32-e.Prefix[i]) - 1
		return from &^ rest, from | rest
	}
	return min(from, to), max(from, to)
}

func (l *loading) withAddr(i int, r *rec, a packet.Addr) error {
	if l.s.Bitmask != (packet.Addr{}) {
		a = andAddr(a, l.s.Bitmask, l.s.Family)
	}
	if a.IsAny() && i == 0 && l.refusesAny(r) {
		return refuse("an element with address zero can't be in %s", l.s.Type)
	}
	r.ip[i] = a
	return l.eachAddr(i+1, r)
}

func (l *loading) refusesAny(r *rec) bool {
	switch l.s.kind.name {
	case "hash:ip", "hash:ip,port":
		return true
	case "hash:ip,mark":
		return r.mark == 0 && l.s.Family == Inet
	}
	return false
}

// eachNet goes on with each network that address i stands for.
func (l *loading) eachNet(i int, r *rec) error {
	e, s, n := l.e, l.s, 0
	if i == 1 && s.kind.nets() == 2 {
		n = 1
	}
	if e.To[i].IsZero() {
		c := s.Family.hostBits()
		if e.HasPrefix[i] {
			c = e.Prefix[i]
		}
		return l.withNet(i, n, r, maskAddr(e.Addr[i], c, s.Family), c)
	}
	from, to := l.span(i)
	if from == 0 && to == 1<<32-1 {
		return refuse("the whole of IPv4 can't be in %s", s.Type)
	}
	for ip := uint64(from); ip <= uint64(to); {
		c := rangePrefix(uint32(ip), to)
		if err := l.withNet(i, n, r, packet.V4(uint32(ip)), c); err != nil {
			return err
		}
		ip += 1 << (32 - c)
	}
	return nil
}

func (l *loading) withNet(i, n int, r *rec, a packet.Addr, cidr uint8) error {
	if l.s.Bitmask != (packet.Addr{}) {
		a = andAddr(a, l.s.Bitmask, l.s.Family)
	}
	r.ip[i], r.cidr[n] = a, cidr
	return l.eachAddr(i+1, r)
}

// rangePrefix is the length of the widest network that begins at from and does not
// reach beyond to.
//
// Kernel: net/netfilter/ipset/pfxlen.c, ip_set_range_to_cidr.
func rangePrefix(from, to uint32) uint8 {
	c := uint8(1)
	if from != 0 {
		c = max(c, 32-uint8(bits.TrailingZeros32(from)))
	}
	for ; c < 32; c++ {
		if uint64(from)+1<<(32-c)-1 <= uint64(to) {
			return c
		}
	}
	return 32
}

// eachPort goes on with each port.
//
// Kernel: net/netfilter/ipset/ip_set_getport.c, ip_set_proto_with_ports.
func (l *loading) eachPort(r *rec) error {
	if l.s.kind.count(partPort) == 0 {
		return l.one(r)
	}
	r.proto = l.e.Proto
	from, to := l.e.Port, l.e.Port
	icmp := packet.ICMP
	if l.s.Family == Inet6 {
		icmp = packet.ICMPv6
	}
	switch {
	case withPorts(r.proto):
		if l.e.HasPortTo {
			from, to = min(l.e.Port, l.e.PortTo), max(l.e.Port, l.e.PortTo)
		}
	case r.proto != icmp:
		from, to = 0, 0
	}
	for p := int(from); p <= int(to); p++ {
		r.port = uint16(p)
		if err := l.one(r); err != nil {
			return err
		}
	}
	return nil
}

func withPorts(proto uint8) bool {
	switch proto {
	case packet.TCP, packet.SCTP, packet.UDP, packet.UDPLite:
		return true
	}
	return false
}

// addPorts adds to bitmap:port.
func (l *loading) addPorts() error {
	from, to := l.e.Port, l.e.Port
	if l.e.HasPortTo {
		from, to = min(l.e.Port, l.e.PortTo), max(l.e.Port, l.e.PortTo)
	}
	if from < l.s.FirstPort || to > l.s.LastPort {
		return refuse("the element is out of the range of the set")
	}
	for p := int(from); p <= int(to); p++ {
		if err := l.mark(uint32(p - int(l.s.FirstPort))); err != nil {
			return err
		}
	}
	return nil
}

// addPlaces adds to bitmap:ip and bitmap:ip,mac.
func (l *loading) addPlaces() error {
	if !l.e.Addr[0].Is4() {
		return refuse("%s is not an IPv4 address", l.e.Addr[0])
	}
	if l.e.HasPrefix[0] && (l.e.Prefix[0] == 0 || l.e.Prefix[0] > 32) {
		return refuse("the prefix length %d is not valid", l.e.Prefix[0])
	}
	from, to := l.span(0)
	if a := l.e.Addr[0].Uint32(); a < l.s.First.Uint32() || a > l.s.Last.Uint32() ||
		from < l.s.First.Uint32() || to > l.s.Last.Uint32() {
		return refuse("the element is out of the range of the set")
	}
	for ip := uint64(from); ip <= uint64(to); ip += uint64(l.s.bitmap.hosts) {
		if err := l.mark(l.s.ipPlace(uint32(ip))); err != nil {
			return err
		}
	}
	return nil
}

// mark sets a place of a bitmap.
func (l *loading) mark(id uint32) error {
	b := l.s.bitmap
	there := b.bits[id/64]>>(id%64)&1 != 0
	_, filled := b.macs[id]
	hasMAC := l.s.kind.count(partMAC) > 0
	if there && !l.exist && !(hasMAC && l.e.HasMAC && !filled) {
		return refuse("the element is already added to the set")
	}
	if !there {
		b.n++
	}
	b.bits[id/64] |= 1 << (id % 64)
	if hasMAC && l.e.HasMAC {
		b.macs[id] = l.e.MAC
		filled = true
	}
	if l.s.hasExt() {
		x := l.ext()
		if hasMAC && !filled && x.expires != 0 {
			x.expires = (x.expires - l.now) / world.Second
		}
		l.s.ext[id] = x
	}
	l.setComment(id)
	return nil
}

// addMember adds to a list; that the member exists is seen when the host is built.
//
// Kernel: net/netfilter/ipset/ip_set_list_set.c, list_set_uadd.
func (l *loading) addMember() error {
	s, e := l.s, l.e
	if s.names[e.Set] {
		if !l.exist {
			return refuse("the set is already added to the list")
		}
		return nil
	}
	at := len(s.members)
	if ref := e.Before + e.After; ref != "" {
		if at = s.memberAt(ref); at < 0 {
			return refuse("%q is not in the list", cut(ref))
		}
		if e.After != "" {
			at++
		}
	}
	s.names[e.Set] = true
	s.members = append(s.members[:at:at], append([]member{{e.Set}}, s.members[at:]...)...)
	if s.hasExt() {
		s.ext = append(s.ext[:at:at], append([]ext{l.ext()}, s.ext[at:]...)...)
	}
	l.shiftComments(at)
	return nil
}

func (s *Set) memberAt(name string) int {
	for i := range s.members {
		if s.members[i].name == name {
			return i
		}
	}
	return -1
}

// shiftComments makes room for a member's comment.
func (l *loading) shiftComments(at int) {
	for i := len(l.s.members) - 1; i > at; i-- {
		if c, ok := l.s.comments[uint32(i-1)]; ok {
			l.s.comments[uint32(i)] = c
			delete(l.s.comments, uint32(i-1))
		}
	}
	l.setComment(uint32(at))
}
