package compare

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/internal/kernel/gen"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// TestDependsOn changes what an answer did not hang on, and wants the same rules
// walked and the same done to the packet. HOOKPATH_SEED repeats a run.
func TestDependsOn(t *testing.T) {
	seed := number(t, "HOOKPATH_SEED", uint64(rand.Uint32()))
	packets, changes := 500, 20
	if os.Getenv("HOOKPATH_SOAK") != "" {
		packets, changes = 10_000, 100
	}
	fmt.Printf("HOOKPATH_SEED=%d\n", seed)
	var c dependsCount
	for s := seed; c.packets < packets && !t.Failed(); s++ {
		d := newDepends(t, s)
		if d == nil {
			continue
		}
		for n := 0; n < 40 && c.packets < packets; n++ {
			d.ask(t, &c, changes)
		}
	}
	t.Logf("%d packets, %d changes: %d made no difference, %d made another question; %d packets "+
		"left out", c.packets, c.same+c.other, c.same, c.other, c.skipped)
	if c.other*20 > c.same {
		t.Errorf("more than one in twenty changes made another question")
	}
}

// dependsCount is what was tried. A change makes another question where its packet
// stands in another relation to the connections that there are, and the answer hung on
// that.
type dependsCount struct{ packets, skipped, same, other int }

// depends is one drawn host with what was asked of it.
type depends struct {
	*rand.Rand
	seed  uint64
	gen   *gen.Gen
	host  *walk.Host
	state *world.State
	files map[string]string
	addrs []netip.Addr // worth changing an address to
}

// dependsNow is the clock of all questions.
const dependsNow = 1_750_000_000 * world.Second

// newDepends draws a host; nil where it has something that is not supported.
func newDepends(t *testing.T, seed uint64) *depends {
	backend := kernel.Backend(1 + seed%2)
	d := &depends{Rand: rand.New(rand.NewPCG(seed, 2)), seed: seed,
		gen: gen.New(seed, gen.Options{Backend: backend})}
	d.files = d.gen.Scenario().Hosts[0].Files
	dir := &snapshot.Dir{Name: "r", Files: map[string][]byte{}}
	for name, text := range d.files {
		if name == "iptables-save" {
			name = saveName[backend]
		}
		dir.Files[name] = []byte(text)
	}
	d.addRoutes(t, dir)
	cfg, err := dir.Config(snapshot.Options{Now: dependsNow})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if d.host, _, err = walk.Build(cfg); err != nil {
		t.Logf("seed %d: %v", seed, err)
		return nil
	}
	d.state = d.host.Memory()
	return d
}

// addRoutes adds the routes that a kernel makes of addresses by itself.
func (d *depends) addRoutes(t *testing.T, dir *snapshot.Dir) {
	var devs []struct {
		Ifname string
		Infos  []struct {
			Local, Address string
			Prefixlen      int
			Secondary      bool
		} `json:"addr_info"`
	}
	if err := json.Unmarshal(dir.Files["ip-addr.json"], &devs); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1\n")
	for _, dev := range devs {
		for _, a := range dev.Infos {
			local := netip.MustParseAddr(a.Local)
			d.addrs = append(d.addrs, local, local.Next())
			fmt.Fprintf(&b, "local %s dev %s table local proto kernel scope host src %[1]s\n",
				a.Local, dev.Ifname)
			net := netip.PrefixFrom(local, a.Prefixlen).Masked()
			if a.Address != "" {
				net = netip.PrefixFrom(netip.MustParseAddr(a.Address), a.Prefixlen)
			}
			if net.Bits() == 32 && a.Address == "" || dev.Ifname == "lo" {
				continue
			}
			fmt.Fprintf(&b, "%s dev %s proto kernel scope link src %s\n", net, dev.Ifname, a.Local)
			if net.Bits() < 31 {
				fmt.Fprintf(&b, "broadcast %s dev %s table local proto kernel scope link src %s\n",
					lastOf(net), dev.Ifname, a.Local)
			}
		}
	}
	dir.Files["ip-route"] = append([]byte(b.String()), dir.Files["ip-route"]...)
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | 1<<(32-p.Bits()) - 1
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

// ask draws a packet, walks it, and walks its changed twins.
func (d *depends) ask(t *testing.T, c *dependsCount, changes int) {
	q := d.gen.Next()
	before := d.state.Fork()
	k := d.walk(&q, before)
	if k.Err != nil || !wellFormed(&q) {
		c.skipped++
		d.gen.Learn(kernel.Answer{})
		return
	}
	c.packets++
	d.gen.Learn(d.answer(k))
	d.state = k.World.State
	if diff := parted(k, d.walk(&q, before), &q, &q); diff != "" {
		t.Fatal("the same question again: " + d.story(k, &q, &q, diff))
	}
	for range changes {
		twin := d.change(&q, &k.Trace.Deps)
		kk := d.walk(&twin, before.Fork())
		diff := parted(k, kk, &q, &twin)
		switch {
		case diff == "":
			c.same++
		case d.otherQuestion(before, k, kk):
			c.other++
		default:
			t.Fatal(d.story(k, &q, &twin, diff))
		}
	}
}

func (d *depends) walk(q *kernel.Question, st *world.State) *walk.Walk {
	p := pair{host: d.host, state: st}
	k := p.newWalk(time.Unix(0, int64(dependsNow)), &world.Dice{})
	p.put(k, q)
	return k
}

// answer is what the generator learns from to draw replies.
func (d *depends) answer(k *walk.Walk) (a kernel.Answer) {
	for _, o := range k.Trace.Outcomes {
		switch o.Result {
		case trace.Transmitted:
			a.Out = append(a.Out, kernel.Frame{Dev: d.host.Links.ByIndex(o.Dev).Name, Bytes: o.Frame})
		case trace.Delivered:
			a.Delivered = append(a.Delivered, o.Frame)
		}
	}
	return a
}

// story tells how to see a failure again.
func (d *depends) story(k *walk.Walk, q, twin *kernel.Question, diff string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "HOOKPATH_SEED=%d question %s: %s\n", d.seed, q.ID, diff)
	for id := range k.Trace.Deps {
		if bits := k.Trace.Deps[id]; !bits.IsZero() {
			fmt.Fprintf(&b, " %s&%x:%x", field.ID(id), bits.Hi, bits.Lo)
		}
	}
	one, _ := json.Marshal(q)
	two, _ := json.Marshal(twin)
	fmt.Fprintf(&b, "\nwas  %s\nnow  %s\n%s", one, two, strings.Join(steps(k), "\n"))
	b.WriteString("\n" + d.files["iptables-save"] + d.files["ip-route"] + d.files["ip-rule.json"])
	return b.String()
}

// wellFormed tells whether a packet's lengths and checksums are right: no field names
// them, so a change could not keep them wrong.
func wellFormed(q *kernel.Question) bool {
	ip := ipOf(q)
	if len(ip) < 20 || int(binary.BigEndian.Uint16(ip[2:])) != len(ip) {
		return false
	}
	again := slices.Clone(ip)
	seal(again)
	return string(again) == string(ip)
}

// ipOf is the IP packet of a question, in place.
func ipOf(q *kernel.Question) []byte {
	if q.Out {
		return q.Packet
	}
	return q.Frame[packet.EthernetLen:]
}
