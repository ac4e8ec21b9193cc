package ipset

// part is one dimension of a set's entries.
type part uint8

const (
	partIP part = iota
	partNet
	partPort
	partIface
	partMAC
	partMark
	partSet
)

type class uint8

const (
	classHash class = iota
	classBitmap
	classList
)

// kind is a type of set.
//
// Kernel: struct ip_set_type.
type kind struct {
	name   string
	alias  string // the name it had before ipset 6
	class  class
	parts  []part
	family Family // the only one, or Unspec for both
	// noFamily: a packet of any family may be asked about.
	noFamily bool
	// net0: prefixes of length 0 can be kept.
	net0 bool
	// packed: an entry keeps its prefix length less one.
	packed bool
	// masked: netmask and bitmask are options.
	netmask, bitmask bool
}

// kinds are the types by name.
var kinds = []kind{
	{name: "bitmap:ip", alias: "ipmap", class: classBitmap, parts: []part{partIP}, family: Inet,
		netmask: true},
	{name: "bitmap:ip,mac", alias: "macipmap", class: classBitmap, parts: []part{partIP, partMAC},
		family: Inet},
	{name: "bitmap:port", alias: "portmap", class: classBitmap, parts: []part{partPort},
		noFamily: true},
	{name: "hash:ip", alias: "iphash", parts: []part{partIP}, netmask: true, bitmask: true},
	{name: "hash:ip,mac", alias: "ipmachash", parts: []part{partIP, partMAC}},
	{name: "hash:ip,mark", alias: "ipmarkhash", parts: []part{partIP, partMark}},
	{name: "hash:ip,port", alias: "ipporthash", parts: []part{partIP, partPort}, netmask: true,
		bitmask: true},
	{name: "hash:ip,port,ip", alias: "ipportiphash", parts: []part{partIP, partPort, partIP}},
	{name: "hash:ip,port,net", alias: "ipportnethash", parts: []part{partIP, partPort, partNet},
		packed: true},
	{name: "hash:mac", alias: "machash", parts: []part{partMAC}, noFamily: true},
	{name: "hash:net", alias: "nethash", parts: []part{partNet}},
	{name: "hash:net,iface", alias: "netifacehash", parts: []part{partNet, partIface}, net0: true},
	{name: "hash:net,net", alias: "netnethash", parts: []part{partNet, partNet}, netmask: true,
		bitmask: true},
	{name: "hash:net,port", alias: "netporthash", parts: []part{partNet, partPort}, packed: true},
	{name: "hash:net,port,net", alias: "netportnethash", parts: []part{partNet, partPort, partNet},
		net0: true},
	{name: "list:set", alias: "setlist", class: classList, parts: []part{partSet}, noFamily: true},
}

func findKind(name string) *kind {
	if name == "iptree" || name == "iptreemap" {
		name = "hash:ip"
	}
	for i := range kinds {
		if kinds[i].name == name || kinds[i].alias == name {
			return &kinds[i]
		}
	}
	return nil
}

// Types are the names of all types.
func Types() []string {
	names := make([]string, len(kinds))
	for i := range kinds {
		names[i] = kinds[i].name
	}
	return names
}

// dims is the number of src and dst words that a rule must give at least.
func (k *kind) dims() int { return len(k.parts) }

// has tells whether a part is among the dimensions, and how often.
func (k *kind) count(p part) int {
	n := 0
	for _, q := range k.parts {
		if q == p {
			n++
		}
	}
	return n
}

// nets is the number of prefixes of an entry; only such types know nomatch.
func (k *kind) nets() int { return k.count(partNet) }

func (k *kind) isIface() bool { return k.count(partIface) > 0 }

// option tells whether the type has an option of `ipset create`.
func (k *kind) option(word string) bool {
	switch word {
	case "timeout", "counters", "comment", "skbinfo":
		return true
	case "family", "-4", "-6":
		return k.family == Unspec && !k.noFamily
	case "hashsize", "maxelem", "bucketsize", "initval", "forceadd":
		return k.class == classHash
	case "netmask":
		return k.netmask
	case "bitmask":
		return k.bitmask
	case "markmask":
		return k.count(partMark) > 0
	case "range":
		return k.class == classBitmap
	case "size":
		return k.class == classList
	}
	return false
}
