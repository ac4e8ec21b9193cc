// Package ipset is the sets of addresses, ports and so on that rules ask with
// `-m set` and change with `-j SET`. It stands beside the connections: memory that a
// packet's way depends on. A set's content as the snapshot has it is immutable and
// laid out like the kernel's hash table; what packets change lies in a world.State.
//
// Kernel: net/netfilter/ipset/.
package ipset

import (
	"fmt"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

// Family is the family of a set's addresses.
type Family uint8

// The families. Unspec is for types without addresses, and before a type is known.
const (
	Unspec Family = iota
	Inet
	Inet6
)

// String returns the word behind `family`.
func (f Family) String() string { return [...]string{"unspec", "inet", "inet6"}[f] }

// hostBits is the length of an address.
func (f Family) hostBits() uint8 {
	if f == Inet6 {
		return 128
	}
	return 32
}

// addrLen is the number of bytes of an address.
func (f Family) addrLen() int { return int(f.hostBits()) / 8 }

// Options are what `ipset create` says behind the type.
type Options struct {
	Family   Family
	HashSize uint32
	// MaxElem is how many entries there may be; zero is the default, unless NoElem.
	MaxElem    uint32
	NoElem     bool
	BucketSize uint8
	// InitVal seeds the hash; without HasInitVal the kernel draws it.
	InitVal    uint32
	HasInitVal bool
	// Timeout is the default of an entry; 0 with HasTimeout is for ever.
	Timeout    uint32
	HasTimeout bool
	Counters   bool
	Comment    bool
	SKBInfo    bool
	ForceAdd   bool
	// Netmask is a prefix length, zero without the option.
	Netmask uint8
	// Bitmask is a mask of the addresses, zero without the option.
	Bitmask  packet.Addr
	MarkMask uint32
	// First to Last is the range of a bitmap of addresses.
	First, Last packet.Addr
	// FirstPort to LastPort is the range of bitmap:port.
	FirstPort, LastPort uint16
	Size                uint32 // of list:set, which means nothing any more
}

// The kernel's defaults and bounds.
//
// Kernel: include/linux/netfilter/ipset/ip_set_hash.h, ip_set_hash_gen.h.
const (
	defaultHashSize = 1024
	minHashSize     = 64
	defaultMaxElem  = 65536
	defaultListSize = 8
	minListSize     = 4
	initBucket      = 2  // AHASH_INIT_SIZE
	maxBucket       = 12 // AHASH_MAX_SIZE
	maxTuned        = 64 // AHASH_MAX_TUNED
	maxHashBits     = 26
	maxBitmap       = 1 << 16
	// MaxTimeout is IPSET_MAX_TIMEOUT.
	MaxTimeout = (1<<32 - 1) >> 1 / 1000
	// MaxName is the longest name of a set.
	MaxName = 31
	// MaxComment is the longest comment of an entry.
	MaxComment = 255
)

// Set is a set with the entries that it was loaded with. Make it with NewSet and
// Add; New takes it into a host.
type Set struct {
	Name string
	Type string
	Options
	// Line is where it was declared, zero when unknown.
	Line int
	// ProtoName names protocols that have no ports, for printing; nil, and an empty
	// name, print the number.
	ProtoName func(proto uint8) string

	kind     *kind
	hash     *table   // of hash types
	bitmap   *bitmap  // of bitmap types
	members  []member // of list:set
	ext      []ext    // of each entry, where the set has extensions
	comments map[uint32]string
	names    map[string]bool // of a list's members
}

// member is an entry of a list.
type member struct{ name string }

// ext are the extensions of an entry.
//
// Kernel: include/linux/netfilter/ipset/ip_set.h, ip_set_ext_type.
type ext struct {
	// expires is when the entry ends; zero is never. Of an incomplete entry of
	// bitmap:ip,mac it is the seconds that it will have.
	expires        world.Instant
	packets, bytes uint64
	info           Info
}

// Info is what `-j SET --map-set` gives a packet.
type Info struct {
	Mark, Mask uint32
	Prio       uint32
	Queue      uint16
}

// Len is the number of entries.
func (s *Set) Len() int {
	switch {
	case s.hash != nil:
		return s.hash.n
	case s.bitmap != nil:
		return s.bitmap.n
	}
	return len(s.members)
}

// hasExt tells whether entries carry anything that can change.
func (o *Options) hasExt() bool { return o.HasTimeout || o.Counters || o.SKBInfo }

// Error is what the kernel, or ipset before it, refuses.
type Error struct{ Msg string }

// Error implements error.
func (e *Error) Error() string { return e.Msg }

func refuse(format string, v ...any) error { return &Error{fmt.Sprintf(format, v...)} }

// NewSet makes an empty set; it refuses what the kernel does.
//
// Kernel: net/netfilter/ipset/ip_set_core.c, ip_set_create.
func NewSet(name, typ string, o Options) (*Set, error) {
	if name == "" || len(name) > MaxName {
		return nil, refuse("set name %q is not 1 to %d bytes long", cut(name), MaxName)
	}
	k := findKind(typ)
	if k == nil {
		return nil, refuse("unknown set type %q", cut(typ))
	}
	s := &Set{Name: name, Type: k.name, Options: o, kind: k}
	if err := s.checkFamily(); err != nil {
		return nil, err
	}
	if s.Timeout > MaxTimeout {
		s.Timeout = MaxTimeout
	}
	switch k.class {
	case classHash:
		return s, s.createHash()
	case classBitmap:
		return s, s.createBitmap()
	}
	s.Size = max(s.Size, minListSize)
	s.names = map[string]bool{}
	return s, nil
}

func (s *Set) checkFamily() error {
	switch {
	case s.kind.family == Inet && s.Family == Inet6:
		return refuse("%s has no family inet6", s.Type)
	case s.kind.family == Inet:
		s.Family = Inet
	case s.kind.noFamily:
		s.Family = Unspec
	case s.Family == Unspec:
		s.Family = Inet
	}
	return nil
}

// cut shortens text for an error message.
func cut(s string) string {
	if len(s) > 40 {
		return s[:37] + "..."
	}
	return s
}
