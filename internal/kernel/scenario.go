package kernel

import (
	"encoding/hex"
	"time"
)

// Backend says which iptables the rules are loaded with. The zero Backend
// follows the header of each host's iptables-save.
type Backend uint8

// The back ends.
const (
	Auto Backend = iota
	Legacy
	NFT
)

// String is the name as iptables -V prints it.
func (b Backend) String() string {
	switch b {
	case Legacy:
		return "legacy"
	case NFT:
		return "nf_tables"
	}
	return "auto"
}

// Hex is bytes that JSON shows as hexadecimal digits. Nil is the empty string.
type Hex []byte

// MarshalText writes lower-case digits.
func (h Hex) MarshalText() ([]byte, error) {
	return hex.AppendEncode(nil, h), nil
}

// UnmarshalText reads digits of either case.
func (h *Hex) UnmarshalText(text []byte) error {
	out, err := hex.AppendDecode(nil, text)
	if err != nil {
		return err
	}
	*h = out
	return nil
}

// Host is one network namespace: a snapshot directory's files by name.
type Host struct {
	Name  string            `json:"name"`
	Files map[string]string `json:"files"`
	// Setup are commands that are typed there when all files are laid out, one after the other,
	// as in lab.yaml.
	Setup []string `json:"setup,omitempty"`
	// Cables are the far ends of its devices, besides those of meta.json; several on a switch,
	// which hands each frame to all of them.
	Cables map[string][]Port `json:"cables,omitempty"`
}

// Port is an interface of a host of the scenario.
type Port struct{ Host, Dev string }

// Scenario is a lab of hosts, and the questions to ask it in order.
type Scenario struct {
	Hosts     []Host     `json:"hosts"`
	Backend   Backend    `json:"backend,omitempty"`
	Questions []Question `json:"questions,omitempty"`
}

// Question is one packet: a Frame that arrives on In, or, with Out, a Packet
// that a socket of Host sends. It is the JSON line that trace --packets reads.
type Question struct {
	ID   string `json:"id,omitempty"`
	Host string `json:"host,omitempty"`

	In    string `json:"in,omitempty"`
	Frame Hex    `json:"frame,omitempty"`

	Out         bool   `json:"out,omitempty"`
	Packet      Hex    `json:"packet,omitempty"`
	Socket      string `json:"socket,omitempty"`
	Mark        uint32 `json:"mark,omitempty"`
	UID         uint32 `json:"uid,omitempty"`
	GID         uint32 `json:"gid,omitempty"`
	Dev         string `json:"dev,omitempty"`
	Transparent bool   `json:"transparent,omitempty"`
	// Bound binds a raw socket to the packet's source, so that its route is looked up as that of
	// a connection's segment; net/ipv4/raw.c, raw_sendmsg, asks without a source else.
	Bound bool `json:"bound,omitempty"`

	// Seq names the sequence in which connections, neighbours, sockets and
	// counters carry on. A question without one starts from the snapshot.
	Seq string `json:"seq,omitempty"`
	// At is the sequence's clock. The kernel's own clock cannot be set: a run
	// records it (Answer.At) and does not read this field.
	At float64 `json:"at,omitempty"`
}

// Step is one line of the kernel's rule trace.
type Step struct {
	Host    string `json:"host,omitempty"`
	Family  string `json:"family"` // ip or ip6
	Table   string `json:"table"`
	Chain   string `json:"chain"`
	Kind    string `json:"kind"` // rule, return, policy; hotdrop (nf_tables only)
	N       int    `json:"n"`    // 1-based; behind the last rule for return and policy
	Verdict string `json:"verdict,omitempty"`
}

// Frame is an Ethernet frame (an IP packet where the device has no link layer)
// that left through Dev. Cabled says that it went on into the peer host.
type Frame struct {
	Host   string `json:"host,omitempty"`
	Dev    string `json:"dev"`
	Bytes  Hex    `json:"bytes"`
	Cabled bool   `json:"cabled,omitempty"`
}

// Delivery is an IP packet that passed INPUT of Host, with the device it came
// in by and the mark it had there.
type Delivery struct {
	Host string `json:"host,omitempty"`
	Dev  string `json:"dev"`
	Mark uint32 `json:"mark,omitempty"`
	// Early packets were seen before IPVS and nat INPUT, which may have given them other ends: a
	// kernel without nf_tables shows no more of what no raw socket gets.
	Early bool `json:"early,omitempty"`
}

// Answer is what the kernel did with one Question.
type Answer struct {
	ID    string  `json:"id,omitempty"`
	Steps []Step  `json:"steps,omitempty"`
	Out   []Frame `json:"out,omitempty"`
	// Sent holds the IP packets that the host itself made, before OUTPUT.
	Sent []Hex `json:"sent,omitempty"`
	// Delivered holds the IP packets that passed INPUT, whether or not a socket
	// took them; Inputs says the device and mark of each.
	Delivered []Hex      `json:"delivered,omitempty"`
	Inputs    []Delivery `json:"inputs,omitempty"`
	// Flows is the whole connection table after the question, sorted, one line
	// an entry (see flow text in conntrack.go). Nil if Options.Flows is off.
	Flows []string `json:"flows,omitempty"`
	// Logs are the prefixes of LOG rules (legacy) and of NFLOG rules of group 0.
	Logs []string `json:"logs,omitempty"`
	// Send is the error name (EPERM, ENETUNREACH ...) that the sending program
	// got, empty if it got none.
	Send string `json:"send,omitempty"`
	// Err says why the question could not be asked.
	Err string `json:"err,omitempty"`
	// At is the wall clock just before the packet was injected.
	At time.Time `json:"at"`
}
