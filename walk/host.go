// Package walk is the house itself: a host, the catalogue of what stands at its
// hooks, and a packet's way through it from station to station. The other rooms
// decide; only walk moves a packet, re-enters a hook, or sends.
package walk

import (
	"fmt"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/ipvs"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/nat"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/socket"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// Config is all that a host is built from; package snapshot reads one. The zero
// value of a layer that may be open (see the Open fields) is "not there".
type Config struct {
	Name, Netns string
	Kernel      xtables.Kernel // zero: 6.18
	HZ          int            // zero: 250
	Now         world.Instant
	Links       link.Config
	Routes      route.Config
	Sockets     []socket.Socket
	Sysctl      link.Sysctl
	Flows       []conntrack.Flow
	Expects     []conntrack.Foreseen
	Sets        []ipset.Set
	// IPVS is the load balancer's configuration and its connections; without a service
	// it does nothing.
	IPVS struct {
		Services []ipvs.Service
		Timeouts ipvs.Timeouts
		Conns    []ipvs.Conn
	}
	Rules []*xtables.Ruleset
	// Hooked are the base chains that nft really has, "filter/INPUT"; nil where
	// nobody asked it.
	Hooked  map[string]bool
	Foreign []Foreign
	// Cables are the devices whose other end other hosts of the lab have: one on a cable,
	// several on a switch.
	Cables map[string][]Peer
	// Open layers.
	OpenLinks, OpenAddrs, OpenNeigh, OpenRoutes, OpenSysctl, OpenSockets bool
	// Assumed are the assumptions that reading the snapshot made.
	Assumed []Assumption
}

// Peer is the other end of a cable.
type Peer struct{ Host, Dev string }

// Foreign is something on the packet's way that this engine does not run.
type Foreign struct {
	What string // "nft base chain inet f/input", "tc filter on eth0" ...
	Hook string // where it stands; empty when unknown
}

// Assumption is something that the answer rests on and the snapshot does not say.
type Assumption string

// Host is a machine, or one network namespace of it. It is immutable and may be
// shared; what changes is in a world.State.
type Host struct {
	xtables.Rooms
	Name     string
	HZ       int
	Now      world.Instant
	cfg      *Config
	programs []*xtables.Program
	hooks    [5][]stage
	schema   *world.Schema
	memory   *world.State

	fragments fragments
	waiting   world.Slot[*world.Table[hop, waiting]]
	peers     world.Slot[*world.Table[peerKey, peer]]

	conntrackUsed, defragUsed, natUsed bool
}

// Build makes a host. What the kernel would refuse to load is an error that names
// the place.
func Build(cfg Config) (*Host, []Assumption, error) {
	h := &Host{Name: cfg.Name, HZ: cfg.HZ, Now: cfg.Now, cfg: &cfg, schema: &world.Schema{}}
	if h.HZ == 0 {
		h.HZ = 250
	}
	h.Kernel = cfg.Kernel
	if h.Kernel == (xtables.Kernel{}) {
		h.Kernel = xtables.Kernel{Major: 6, Minor: 18}
	}
	h.Sysctl = cfg.Sysctl
	if err := h.buildRooms(&cfg); err != nil {
		return nil, nil, err
	}
	assumed := cfg.Assumed
	if err := h.buildRules(&cfg, &assumed); err != nil {
		return nil, nil, err
	}
	h.memory = h.schema.NewState()
	if err := h.fill(&cfg); err != nil {
		return nil, nil, err
	}
	for hook := range h.hooks {
		h.hooks[hook] = h.stages(trace.Hook(hook))
	}
	return h, assumed, nil
}

// buildRooms makes the rooms in the order of the house.
func (h *Host) buildRooms(cfg *Config) (err error) {
	cfg.Links.Schema = h.schema
	if h.Links, err = link.New(cfg.Links); err != nil {
		return fmt.Errorf("links: %w", err)
	}
	cfg.Routes.Links, cfg.Routes.Schema = h.Links, h.schema
	cfg.Routes.Sysctl = cfg.Sysctl
	cfg.Routes.Kernel = fmt.Sprintf("%d.%d", h.Kernel.Major, h.Kernel.Minor)
	if h.Routes, err = route.New(cfg.Routes); err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	if h.Sockets, err = socket.New(h.schema, cfg.Sockets); err != nil {
		return fmt.Errorf("sockets: %w", err)
	}
	h.Conntrack = conntrack.New(h.schema, conntrack.Config{Sysctl: cfg.Sysctl,
		Kernel: h.Kernel.Major<<16 | h.Kernel.Minor<<8 | min(h.Kernel.Patch, 255)})
	h.fragments = newFragments(h.schema, cfg.Sysctl)
	h.waiting = world.Add(h.schema, world.NewTable[hop, waiting])
	h.peers = world.Add(h.schema, world.NewTable[peerKey, peer])
	h.NAT = nat.New(h.Conntrack, h.Links)
	h.Conntrack.NAT = h.NAT
	if h.Sets, err = ipset.New(h.schema, cfg.Sets,
		ipset.Kernel(h.Kernel.Major, h.Kernel.Minor)); err != nil {
		return fmt.Errorf("sets: %w", err)
	}
	return h.buildIPVS(cfg)
}

// buildIPVS makes the load balancer, where there are services.
func (h *Host) buildIPVS(cfg *Config) (err error) {
	if len(cfg.IPVS.Services) == 0 {
		return nil
	}
	h.IPVS, err = ipvs.New(ipvs.Config{Schema: h.schema, Sysctl: cfg.Sysctl, Tracker: h.Conntrack,
		Services: cfg.IPVS.Services, Timeouts: cfg.IPVS.Timeouts})
	if err != nil {
		return fmt.Errorf("ipvs: %w", err)
	}
	h.conntrackUsed = h.conntrackUsed || h.IPVS.Tracks()
	return nil
}

func (h *Host) buildRules(cfg *Config, assumed *[]Assumption) error {
	c := xtables.Compiler{Build: xtables.Build{Rooms: &h.Rooms, Schema: h.schema, HZ: h.HZ,
		Now:    cfg.Now,
		Assume: func(s string) { *assumed = append(*assumed, Assumption(s)) }}}
	c.Counters = world.Add(h.schema, func() *world.Array[xtables.Counters] {
		return world.NewArray[xtables.Counters](c.Next)
	})
	for _, rs := range cfg.Rules {
		h.scan(rs)
		for _, t := range rs.Tables {
			p, err := c.Compile(rs, t, len(h.programs))
			if err != nil {
				return err
			}
			h.programs = append(h.programs, p)
		}
	}
	return nil
}

// fill puts into memory what the snapshot remembers.
func (h *Host) fill(cfg *Config) error {
	w := h.NewWorld(h.memory)
	for i := range cfg.Flows {
		if err := h.Conntrack.Load(w, cfg.Flows[i]); err != nil {
			return fmt.Errorf("conntrack: %w", err)
		}
		h.conntrackUsed = true
	}
	if err := h.Conntrack.LoadExpects(w, cfg.Expects...); err != nil {
		return fmt.Errorf("conntrack-expect: %w", err)
	}
	if h.IPVS == nil {
		return nil
	}
	if err := h.IPVS.Load(w, cfg.IPVS.Conns); err != nil {
		return fmt.Errorf("ipvs-conns: %w", err)
	}
	return nil
}

// Memory is what the host remembers as the snapshot has it. It is frozen: Fork it
// for each question.
func (h *Host) Memory() *world.State { return h.memory }

// NewWorld returns a world at the snapshot's time with the given memory.
func (h *Host) NewWorld(st *world.State) *world.World {
	return &world.World{State: st, Now: h.Now, Dice: &world.Dice{}, HZ: h.HZ}
}

// Program returns the table of a number, as trace.RuleRef holds it.
func (h *Host) Program(n int) *xtables.Program { return h.programs[n] }

// Programs are the host's tables.
func (h *Host) Programs() []*xtables.Program { return h.programs }

// Config is what the host was built from.
func (h *Host) Config() *Config { return h.cfg }

// Tracks tells whether something on the host makes it track connections.
func (h *Host) Tracks() bool { return h.conntrackUsed }
