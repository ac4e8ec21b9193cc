package route

import "strconv"

// Names are the names of iproute2's files. A nil *Names has the defaults only.
type Names struct {
	Tables map[uint32]string
	Realms map[uint32]string
	Protos map[uint8]string
}

// protoNames is iproute2's etc/iproute2/rt_protos.
var protoNames = map[uint8]string{0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static",
	8: "gated", 9: "ra", 10: "mrt", 11: "zebra", 12: "bird", 13: "dnrouted", 14: "xorp",
	15: "ntk", 16: "dhcp", 18: "keepalived", 42: "babel", 186: "bgp", 187: "isis", 188: "ospf",
	189: "rip", 192: "eigrp"}

// Table is a table's name, its number where it has none.
func (n *Names) Table(id uint32) string {
	if n != nil {
		if s, ok := n.Tables[id]; ok {
			return s
		}
	}
	switch id {
	case TableLocal:
		return "local"
	case TableMain:
		return "main"
	case TableDefault:
		return "default"
	case TableUnspec:
		return "unspec"
	}
	return strconv.FormatUint(uint64(id), 10)
}

// TableID finds a table by its name or number.
func (n *Names) TableID(s string) (uint32, bool) {
	if n != nil {
		for id, name := range n.Tables {
			if name == s {
				return id, true
			}
		}
	}
	for _, id := range []uint32{TableLocal, TableMain, TableDefault, TableUnspec} {
		if s == (*Names)(nil).Table(id) {
			return id, true
		}
	}
	id, err := strconv.ParseUint(s, 0, 32)
	return uint32(id), err == nil
}

// Proto is the name of a routing protocol, its number where it has none.
func (n *Names) Proto(id uint8) string {
	if n != nil {
		if s, ok := n.Protos[id]; ok {
			return s
		}
	}
	if s, ok := protoNames[id]; ok {
		return s
	}
	return strconv.Itoa(int(id))
}

// ProtoID finds a routing protocol by its name or number.
func (n *Names) ProtoID(s string) (uint8, bool) {
	if n != nil {
		for id, name := range n.Protos {
			if name == s {
				return id, true
			}
		}
	}
	for id, name := range protoNames {
		if name == s {
			return id, true
		}
	}
	id, err := strconv.ParseUint(s, 0, 8)
	return uint8(id), err == nil
}

// Realm is a realm's name, its number where it has none.
func (n *Names) Realm(id uint32) string {
	if n != nil {
		if s, ok := n.Realms[id]; ok {
			return s
		}
	}
	if id == 0 {
		return "cosmos"
	}
	return strconv.FormatUint(uint64(id), 10)
}

// RealmID finds a realm by its name or number.
func (n *Names) RealmID(s string) (uint32, bool) {
	if n != nil {
		for id, name := range n.Realms {
			if name == s {
				return id, true
			}
		}
	}
	if s == "cosmos" {
		return 0, true
	}
	id, err := strconv.ParseUint(s, 0, 16)
	return uint32(id), err == nil
}
