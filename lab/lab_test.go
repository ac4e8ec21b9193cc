package lab_test

import (
	"testing"
	"testing/fstest"

	"github.com/hookpath/hookpath/demos"
	"github.com/hookpath/hookpath/lab"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

const now = world.Instant(1_750_000_000 * world.Second)

// build makes the lab of a lab.yaml.
func build(t testing.TB, yaml string) *lab.Lab {
	t.Helper()
	dirs, err := snapshot.ReadFS(fstest.MapFS{"lab.yaml": {Data: []byte(yaml)}}, "test")
	if err != nil {
		t.Fatal(err)
	}
	return hosts(t, dirs)
}

func demo(t testing.TB, name string) *lab.Lab {
	t.Helper()
	return hosts(t, demoDirs(t, name))
}

func demoDirs(t testing.TB, name string) []*snapshot.Dir {
	t.Helper()
	fsys, err := demos.Lab(name)
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := snapshot.ReadFS(fsys, name)
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

func hosts(t testing.TB, dirs []*snapshot.Dir) *lab.Lab {
	t.Helper()
	l := &lab.Lab{}
	for _, d := range dirs {
		cfg, err := d.Config(snapshot.Options{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		h, _, err := walk.Build(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l.Hosts = append(l.Hosts, h)
	}
	return l
}

func spoken(t testing.TB, sentence string) []byte {
	t.Helper()
	s, err := packet.ParseSentence(sentence)
	if err != nil {
		t.Fatal(err)
	}
	s.Complete()
	ip, err := s.Packet()
	if err != nil {
		t.Fatal(err)
	}
	return ip
}

// send walks what a program on a host sends.
func send(t *testing.T, l *lab.Lab, host, sentence string, dice *world.Dice) *lab.Journey {
	t.Helper()
	ip := spoken(t, sentence)
	for _, h := range l.Hosts {
		if h.Name != host {
			continue
		}
		j := l.Walk(&lab.Question{Host: h, Local: &walk.Local{IP: ip}, Now: now, Reply: true},
			l.Start(), dice)
		if j.Err != nil {
			t.Fatal(j.Err)
		}
		return j
	}
	t.Fatalf("no host %s", host)
	return nil
}

// ended is where and how a packet ended: the last that was told of it.
func ended(j *lab.Journey, skb int) (host string, how trace.Result, why trace.Why) {
	for _, o := range j.Outcomes {
		if o.SKB == skb {
			host, how, why = o.Host.Name, o.Result, o.Why
		}
	}
	return host, how, why
}

const line = `
hosts:
  a: {addresses: {eth0: 10.0.1.2/24}, commands: [ip route add default via 10.0.1.1]}
  b:
    addresses: {eth0: 10.0.1.1/24, eth1: 10.0.2.1/24}
    commands: [sysctl -w net.ipv4.ip_forward=1]
  c: {addresses: {eth0: 10.0.2.2/24}, commands: [ip route add default via 10.0.2.1]}
links: [[a:eth0, b:eth0]]
switches: {lan: [b:eth1, c:eth0]}
`

func TestThroughRouter(t *testing.T) {
	j := send(t, build(t, line), "a", "icmp echo 10.0.1.2 to 10.0.2.2 out", &world.Dice{})
	if host, how, _ := ended(j, 1); host != "c" || how != trace.Delivered {
		t.Errorf("the request ended on %s: %s", host, how)
	}
	if j.Inferred != nil {
		t.Errorf("cables were inferred: %q", j.Inferred)
	}
	var names []string
	for _, h := range j.Hosts() {
		names = append(names, h.Name)
	}
	if len(names) != 3 {
		t.Errorf("it came by %q", names)
	}
	// The echo reply is the kernel's own: it comes back without being asked for.
	back := false
	for _, o := range j.Outcomes {
		back = back || o.Host.Name == "a" && o.Result == trace.Delivered
	}
	if !back {
		t.Error("no echo reply came back")
	}
}

// TestAnswer walks the answer of a socket back.
func TestAnswer(t *testing.T) {
	for _, name := range []string{"lvs-nat", "lvs-dr", "lvs-tun"} {
		j := send(t, demo(t, name), "client", "tcp 192.168.2.254:40000 to 192.168.2.110:80 out",
			&world.Dice{})
		if host, how, why := ended(j, j.ReplySKB); j.ReplySKB == 0 || host != "client" ||
			how != trace.Delivered {
			t.Errorf("%s: answer %d ended on %s: %s %s", name, j.ReplySKB, host, how, why)
		}
	}
}

// TestRace lets either of two hosts be the first to answer by ARP.
func TestRace(t *testing.T) {
	l := demo(t, "lvs-dr-arp")
	by := map[string]bool{}
	for _, first := range []int{0, 1} {
		dice := &world.Dice{Forced: []int{first}}
		j := send(t, l, "client", "tcp 192.168.2.254:40000 to 192.168.2.110:80 out", dice)
		if len(dice.Taken) != 1 || dice.Taken[0].Key.What != world.ChoiceAnswer || dice.Taken[0].N != 2 {
			t.Fatalf("choices: %+v", dice.Taken)
		}
		if host, how, _ := ended(j, 1); host != "realserver" || how != trace.Delivered {
			t.Errorf("it ended on %s: %s", host, how)
		}
		balanced := "by the director"
		for _, leg := range j.Legs {
			for _, e := range leg.Trace.Events {
				if _, ok := e.(*trace.IPVS); ok && leg.Way == lab.Request {
					balanced = "balanced"
				}
			}
		}
		by[balanced] = true
	}
	if len(by) != 2 {
		t.Errorf("both went the same way: %v", by)
	}
}

// TestCircle has two routers send a packet to and fro until its time to live is used up.
func TestCircle(t *testing.T) {
	const yaml = `
hosts:
  a:
    addresses: {eth0: 10.0.0.1/24, eth1: 10.0.9.1/24}
    commands: [sysctl -w net.ipv4.ip_forward=1, ip route add default via 10.0.0.2]
  b:
    addresses: {eth0: 10.0.0.2/24}
    commands: [sysctl -w net.ipv4.ip_forward=1, ip route add default via 10.0.0.1]
  c: {addresses: {eth0: 10.0.9.2/24}, commands: [ip route add default via 10.0.9.1]}
links: [[a:eth0, b:eth0], [c:eth0, a:eth1]]
`
	l := build(t, yaml)
	j := send(t, l, "c", "udp 10.0.9.2 to 192.0.2.1:53 ttl 8 out", &world.Dice{})
	if _, how, why := ended(j, 1); how != trace.Dropped || why != "ttl" {
		t.Errorf("ended %s %s", how, why)
	}
	j = send(t, l, "c", "udp 10.0.9.2 to 192.0.2.1:53 ttl 255 out", &world.Dice{})
	if _, how, why := ended(j, 1); how != trace.Dropped || why != "loop" {
		t.Errorf("ended %s %s", how, why)
	}
}

// TestWaits has a packet wait for the answer to ARP: it goes on as the same packet.
func TestWaits(t *testing.T) {
	j := send(t, build(t, line), "a", "udp 10.0.1.2 to 10.0.2.2:53 out", &world.Dice{})
	for _, o := range j.Outcomes {
		if o.SKB == 1 && o.Why == "no-neighbour" {
			t.Error("the packet waits still")
		}
	}
	if host, _, why := ended(j, 1); host != "c" || why != "no-listener" {
		t.Errorf("ended on %s: %s", host, why)
	}
}

// TestNobodyThere has nobody answer: the packet is held.
func TestNobodyThere(t *testing.T) {
	j := send(t, build(t, line), "a", "udp 10.0.1.2 to 10.0.2.77:53 out", &world.Dice{})
	if host, how, why := ended(j, 1); host != "b" || how != trace.Absorbed || why != "no-neighbour" {
		t.Errorf("ended on %s: %s %s", host, how, why)
	}
}
