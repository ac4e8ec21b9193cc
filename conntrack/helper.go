package conntrack

import (
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// Helper is a reader of payloads that foresees connections.
type Helper uint16

// The helpers; the zero one is none.
const (
	NoHelper Helper = iota
	FTP
	TFTP
	Amanda
	H245
	IRC
	NetBIOS
	PPTP
	Q931
	RAS
	SANE
	SIP
	SNMP
	helperMax
)

// helperNames are the kernel's names.
var helperNames = [helperMax]string{"", "ftp", "tftp", "amanda", "H.245", "irc", "netbios-ns",
	"pptp", "Q.931", "RAS", "sane", "sip", "snmp"}

// String returns the kernel's name, empty for none.
func (h Helper) String() string {
	if h >= helperMax {
		return ""
	}
	return helperNames[h]
}

// ParseHelper returns the helper of a name.
func ParseHelper(name string) (Helper, bool) {
	for i, n := range helperNames {
		if i > 0 && n == name {
			return Helper(i), true
		}
	}
	return NoHelper, false
}

// Supported tells whether the helper's payloads are read here.
func (h Helper) Supported() bool { return h == NoHelper || h == FTP || h == TFTP }

// Unread is the helper that would read the packet's payload in the kernel, and does not
// here; NoHelper for none.
func (t *Tracker) Unread(w *world.World, p *packet.Packet) Helper {
	f := t.Get(w, p.CT.Flow)
	if f == nil || f.Helper.Supported() || p.CT.Info == packet.RelatedReply {
		return NoHelper
	}
	header := 8
	if p.Protocol() == packet.TCP {
		header = 20
	}
	if len(p.L4()) <= header {
		return NoHelper
	}
	return f.Helper
}

// HelperNAT is what helpers need of NAT.
type HelperNAT interface {
	// Follow sets up an expected connection's translation like its master's.
	Follow(w *world.World, id packet.FlowID, e *Expect)
	// Mangle puts a translated address into the payload of p and adds the expectation
	// for it; false drops the packet.
	Mangle(w *world.World, p *packet.Packet, at Match, e Expect) bool
}

// Match is where a helper found an address in a payload.
type Match struct {
	Off, Len int // in the payload
	Kind     FTPKind
}

// help lets the connection's helper read the packet.
func (t *Tracker) help(w *world.World, p *packet.Packet, f *Flow) trace.Verdict {
	switch f.Helper {
	case TFTP:
		return t.tftp(w, p, f)
	case FTP:
		return t.ftp(w, p, f)
	}
	return trace.Accept
}
