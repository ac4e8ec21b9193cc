package snapshot

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hookpath/hookpath/ipset"
	"github.com/hookpath/hookpath/link"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
	"github.com/hookpath/hookpath/xtables/match"
	"github.com/hookpath/hookpath/xtables/target"
)

// setRig is a network namespace with eth0, whose other end is in0, and the same sets
// and rules on our side.
type setRig struct {
	t    *testing.T
	sock int
	to   unix.SockaddrLinklayer

	rooms    xtables.Rooms
	schema   world.Schema
	world    *world.World
	program  *xtables.Program
	counters world.Slot[*world.Array[xtables.Counters]]
	rules    int
	// create are the lines that made the sets.
	create string
}

const setRigSetup = `
set -e
ip link set lo up
ip link add eth0 index 2 address 02:00:00:00:00:01 type veth peer name in0 index 12
for d in all default eth0 in0; do
	f=/proc/sys/net/ipv6/conf/$d/disable_ipv6
	if [ -e $f ]; then echo 1 > $f; fi
done
for d in eth0 in0; do ip link set $d up; done
ip addr add 10.0.0.1/24 dev eth0
`

// needSetTools skips without root and the tools; where CI is set that is a failure.
func needSetTools(t *testing.T) {
	t.Helper()
	missing := ""
	if os.Getuid() != 0 {
		missing = "root"
	}
	for _, tool := range []string{"ip", "ipset", "iptables-legacy-restore"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = tool
		}
	}
	switch {
	case missing == "":
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is needed", missing)
	default:
		t.Skipf("%s is needed: sets are not held against the kernel", missing)
	}
}

// inSetNamespace runs f in a fresh network namespace, which goes away with its thread.
func inSetNamespace(t *testing.T, f func(k *setRig)) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("unshare: %v", err)
			return
		}
		k := &setRig{t: t}
		if _, ok := k.run(setRigSetup, "sh"); !ok {
			return
		}
		s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Errorf("packet socket: %v", err)
			return
		}
		k.sock, k.to = s, unix.SockaddrLinklayer{Ifindex: 12}
		f(k)
		_ = unix.Close(s)
	}()
	<-done
}

// run gives text to a program.
func (k *setRig) run(in string, name string, args ...string) (string, bool) {
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(in)
	out, err := cmd.CombinedOutput()
	if err != nil {
		k.t.Errorf("%s: %v: %s\n%s", name, err, out, in)
	}
	return string(out), err == nil
}

func (k *setRig) save() string {
	out, err := exec.Command("ipset", "save").Output()
	if err != nil {
		k.t.Errorf("ipset save: %v", err)
	}
	return string(out)
}

// load reads the kernel's sets and compiles the rules.
func (k *setRig) load(rules []string) bool {
	now := world.Instant(time.Now().UnixNano())
	sets, err := parseIPSet("ipset-save", []byte(k.save()), now)
	if err != nil {
		k.t.Error(err)
		return false
	}
	for i := range sets { // which ipset 7.17 does not print
		line := regexp.MustCompile("create " + sets[i].Name + " .*forceadd")
		sets[i].ForceAdd = line.MatchString(k.create)
	}
	up := link.Up | link.LowerUp
	k.rooms.Links, err = link.New(link.Config{Links: []link.Link{
		{Index: 1, Name: "lo", Flags: up | link.LoopbackFlag, MTU: 65536},
		{Index: 2, Name: "eth0", Flags: up | link.Broadcast, MTU: 1500}}, Schema: &k.schema})
	if err == nil {
		k.rooms.Sets, err = ipset.New(&k.schema, sets, ipset.Kernel(k.kernel().Major, k.kernel().Minor))
	}
	if err == nil {
		err = k.compile(rules)
	}
	if err != nil {
		k.t.Error(err)
		return false
	}
	k.world = &world.World{State: k.schema.NewState(), Now: now, Dice: &world.Dice{}, HZ: 250}
	k.rules = len(rules)
	return true
}

// kernel is the version of this machine's kernel.
func (k *setRig) kernel() (v xtables.Kernel) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		k.t.Error(err)
	}
	_, _ = fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &v.Major, &v.Minor)
	return v
}

func (k *setRig) before(major, minor int) bool { return k.kernel().Before(major, minor) }

func (k *setRig) compile(rules []string) error {
	text := "*mangle\n" + strings.Join(rules, "\n") + "\nCOMMIT\n"
	rs, err := xtables.Parse(text, xtables.ParseOptions{File: "rules",
		Catalog: xtables.NewCatalog(trace.IPv4, match.All(), target.All())})
	if err != nil {
		return err
	}
	c := xtables.Compiler{Build: xtables.Build{Rooms: &k.rooms, Schema: &k.schema, HZ: 250}}
	c.Counters = world.Add(&k.schema, func() *world.Array[xtables.Counters] {
		return world.NewArray[xtables.Counters](c.Next)
	})
	k.counters = c.Counters
	k.program, err = c.Compile(rs, rs.Tables[0], 0)
	return err
}

// send takes a frame through both.
func (k *setRig) send(frame []byte) {
	p, _ := packet.FromFrame(frame)
	p.Trim(int(binary.BigEndian.Uint16(p.IP()[2:])))
	p.In = 2
	k.world.Now = world.Instant(time.Now().UnixNano())
	if err := unix.Sendto(k.sock, frame, 0, &k.to); err != nil {
		k.t.Fatalf("send: %v", err)
	}
	k.program.Run(&xtables.Env{Rooms: &k.rooms, World: k.world, Packet: p, Hook: trace.Prerouting})
}

// ours are our counters of the rules.
func (k *setRig) ours() []uint64 {
	ns := make([]uint64, k.rules)
	cells := k.counters.In(k.world.State)
	for i := range ns {
		ns[i] = cells.Get(i).Packets
	}
	return ns
}

// theirs are the kernel's, once it has seen all packets.
func (k *setRig) theirs(sent uint64) (ns []uint64) {
	for range 500 {
		out, err := exec.Command("iptables-legacy-save", "-c", "-t", "mangle").Output()
		if err != nil {
			k.t.Fatal(err)
		}
		ns = ns[:0]
		for _, line := range bytes.Split(out, []byte("\n")) {
			if len(line) > 0 && line[0] == '[' {
				n, _ := strconv.ParseUint(string(line[1:bytes.IndexByte(line, ':')]), 10, 64)
				ns = append(ns, n)
			}
		}
		if len(ns) > 0 && ns[0] == sent {
			return ns
		}
	}
	k.t.Fatalf("the kernel has not seen all of %d packets", sent)
	return nil
}

// content is what our sets hold, as `ipset save` prints it, without the timeouts.
func (k *setRig) content() map[string][]string {
	out := map[string][]string{}
	for i := range k.rooms.Sets.Len() {
		s := k.rooms.Sets.Set(i)
		lines := []string{}
		k.rooms.Sets.Entries(k.world, i, func(e *ipset.Entry) bool {
			lines = append(lines, k.plain(string(s.AppendEntry(nil, e))))
			return true
		})
		out[s.Name] = lines
	}
	return out
}

// plain is an entry without what can't be compared: seconds that pass, and comments
// where the kernel (6.1) forgets them when a packet adds the entry again.
func (k *setRig) plain(s string) string {
	if k.before(6, 18) {
		s = strings.Replace(s, ` comment "a note"`, "", 1)
	}
	w := strings.Fields(s)
	if i := slices.Index(w, "timeout"); i > 0 && w[i+1] != "0" {
		w = slices.Delete(w, i, i+2)
	}
	return strings.Join(w, " ")
}

// kernelContent is the same of the kernel's sets.
func (k *setRig) kernelContent() map[string][]string {
	out := map[string][]string{}
	for line := range strings.SplitSeq(k.save(), "\n") {
		w := strings.Fields(line)
		switch {
		case len(w) > 1 && w[0] == "create":
			out[w[1]] = []string{}
		case len(w) > 2:
			out[w[1]] = append(out[w[1]], k.plain(strings.Join(w[2:], " ")))
		}
	}
	return out
}

// setDraw makes random sets, rules and packets that are bent to meet one another.
type setDraw struct {
	*rand.Rand
	bitmask bool // the kernel knows bitmask, and netmask of more types
}

func (d setDraw) of(xs ...string) string { return xs[d.IntN(len(xs))] }

func (d setDraw) chance(percent int) bool { return d.IntN(100) < percent }

func (d setDraw) ip() string {
	return d.of("10.0.0.", "10.0.1.", "10.1.0.", "11.0.0.") + fmt.Sprint(d.IntN(8))
}

func (d setDraw) net() string {
	return d.ip() + d.of("", "", "/32", "/31", "/30", "/24", "/16", "/15", "/8", "/4", "/1")
}

func (d setDraw) port() string {
	return d.of("", "tcp:", "udp:", "sctp:", "udplite:") + d.of("0", "22", "80", "443", "65535")
}

func (d setDraw) protoPort() string {
	return d.of(d.port(), d.port(), d.port(), "icmp:echo-request", "icmp:3/1", "icmp:0/0", "47:0",
		"icmp:13/7")
}

func (d setDraw) mac() string { return fmt.Sprintf("02:00:00:00:00:%02X", 8+d.IntN(3)) }

// element draws one for a type.
func (d setDraw) element(typ string) string {
	switch typ {
	case "bitmap:port":
		return fmt.Sprint(d.IntN(100))
	case "bitmap:ip":
		return fmt.Sprintf("10.0.%d.%d", d.IntN(2), d.IntN(8))
	case "bitmap:ip,mac":
		return fmt.Sprintf("10.0.0.%d", d.IntN(8)) + d.of("", ","+d.mac())
	}
	_, parts, _ := strings.Cut(typ, ":")
	var out []string
	for part := range strings.SplitSeq(parts, ",") {
		switch part {
		case "ip":
			out = append(out, d.ip())
		case "net":
			n := d.net()
			if typ == "hash:net,iface" || typ == "hash:net,port,net" {
				n = d.of(n, n, n, "0.0.0.0/0")
			}
			out = append(out, n)
		case "port":
			out = append(out, d.protoPort())
		case "iface":
			out = append(out, d.of("", "", "physdev:")+d.of("eth0", "eth0", "eth1", "lo", "eth", "e"))
		case "mac":
			out = append(out, d.mac())
		case "mark":
			out = append(out, fmt.Sprintf("%#x", d.IntN(4)))
		}
	}
	return strings.Join(out, ",")
}

// create draws the options of a set.
func (d setDraw) create(typ string) string {
	var o []string
	add := func(percent int, words ...string) {
		if d.chance(percent) {
			o = append(o, d.of(words...))
		}
	}
	switch {
	case typ == "bitmap:port":
		o = append(o, "range 0-99")
	case strings.HasPrefix(typ, "bitmap:"):
		o = append(o, "range 10.0.0.0-10.0.1.255")
		if typ == "bitmap:ip" {
			add(30, "netmask 31", "netmask 24", "netmask 30")
		}
	default:
		add(40, "hashsize 64", "hashsize 512")
		add(30, "maxelem 4", "maxelem 20", "maxelem 100")
		add(30, "bucketsize 2", "bucketsize 4")
		add(20, "forceadd")
		o = append(o, fmt.Sprint("initval ", d.Uint32()))
		if typ == "hash:ip" {
			add(20, "netmask 24", "netmask 31")
		}
		if d.bitmask && (typ == "hash:ip,port" || typ == "hash:net,net") {
			add(20, "netmask 24", "bitmask 255.255.0.7")
		}
		if typ == "hash:ip,mark" {
			add(30, "markmask 0x2", "markmask 0xffff")
		}
	}
	add(30, "timeout 0", "timeout 100000")
	add(40, "counters")
	add(30, "skbinfo")
	add(10, "comment")
	return strings.Join(o, " ")
}

// entryOptions draws what stands behind an element.
func (d setDraw) entryOptions(typ, create string) string {
	var o []string
	if strings.Contains(create, "timeout") && d.chance(40) {
		o = append(o, d.of("timeout 0", "timeout 5000"))
	}
	if strings.Contains(typ, "net") && d.chance(25) {
		o = append(o, "nomatch")
	}
	if typ == "hash:net,iface" && d.chance(30) {
		o = append(o, "wildcard")
	}
	if strings.Contains(create, "counters") && d.chance(50) {
		o = append(o, fmt.Sprintf("packets %d bytes %d", d.IntN(5), d.IntN(500)))
	}
	if strings.Contains(create, "skbinfo") && d.chance(70) {
		o = append(o, fmt.Sprintf("skbmark %#x/%#x skbprio 1:%x", d.IntN(4), d.IntN(8), d.IntN(99)))
	}
	if strings.Contains(create, "comment") {
		o = append(o, `comment "a note"`)
	}
	return strings.Join(o, " ")
}

// sets draws sets of the given types, and lists of them. Elements that the kernel may
// refuse are put in one by one.
func (d setDraw) sets(types []string) (create string, adds []string, of map[string]string) {
	var names []string
	of = map[string]string{}
	for i := range 6 {
		typ, name := types[d.IntN(len(types))], fmt.Sprintf("s%d", i)
		options := d.create(typ)
		create += "create " + name + " " + typ + " " + options + "\n"
		for range 1 + d.IntN(30) {
			adds = append(adds, "add "+name+" "+d.element(typ)+" "+d.entryOptions(typ, options))
		}
		names = append(names, name)
		of[name] = typ
	}
	options := d.of("", "counters", "skbinfo counters", "timeout 0")
	create += "create l list:set " + options + "\n"
	for range 3 {
		adds = append(adds, "add l "+d.of(names...)+" "+d.entryOptions("list:set", options))
	}
	of["l"] = "list:set"
	return create, adds, of
}

func (d setDraw) dirs() string {
	words := make([]string, 1+d.IntN(3))
	for i := range words {
		words[i] = d.of("src", "dst")
	}
	return strings.Join(words, ",")
}

func (d setDraw) counterTest() string {
	switch d.IntN(8) {
	case 0:
		return d.of(" ! ", " ") + fmt.Sprint("--packets-eq ", d.IntN(20))
	case 1:
		return fmt.Sprint(d.of(" --packets-lt ", " --packets-gt "), d.IntN(30))
	case 2:
		return fmt.Sprint(d.of(" --bytes-lt ", " --bytes-gt "), d.IntN(1500))
	}
	return ""
}

func (d setDraw) rule(names []string) string {
	switch d.IntN(10) {
	case 0, 1:
		return "-j SET --add-set " + d.of(names...) + " " + d.dirs() + d.of("", " --exist") +
			d.of("", "", " --timeout 0", " --timeout 7000")
	case 2:
		return "-j SET --del-set " + d.of(names...) + " " + d.dirs()
	case 3:
		return "-j SET --map-set " + d.of(names...) + " " + d.dirs() + " --map-mark"
	case 4:
		return fmt.Sprintf("-m mark --mark %d/%d", d.IntN(4), d.IntN(4))
	}
	return "-m set " + d.of("", "", "! ") + "--match-set " + d.of(names...) + " " + d.dirs() +
		d.of("", "", "", " --return-nomatch") + d.of("", "", "", " ! --update-counters") +
		d.of("", "", "", " ! --update-subcounters") + d.counterTest()
}

// frame draws a packet.
func (d setDraw) frame() []byte {
	proto := []uint8{packet.TCP, packet.TCP, packet.UDP, packet.ICMP, packet.SCTP, packet.UDPLite,
		packet.GRE, packet.ICMPv6}[d.IntN(8)]
	ports := []uint16{0, 22, 80, 443, 65535, uint16(d.IntN(100))}
	l4 := make([]byte, 20)
	binary.BigEndian.PutUint16(l4, ports[d.IntN(len(ports))])
	binary.BigEndian.PutUint16(l4[2:], ports[d.IntN(len(ports))])
	switch proto {
	case packet.ICMP:
		copy(l4, [][]byte{{8, 0}, {3, 1}, {0, 0}, {13, 7}}[d.IntN(4)])
	case packet.TCP:
		l4[12], l4[13] = 0x50, 2
	}
	if d.chance(8) {
		l4 = l4[:d.IntN(20)]
	}
	ip := make([]byte, 20, 60)
	ip[0], ip[8], ip[9] = 0x45, 64, proto
	ip = append(ip, l4...)
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	if d.chance(10) {
		binary.BigEndian.PutUint16(ip[6:], []uint16{0x2000, 1, 185}[d.IntN(3)])
	}
	src, dst := packet.MustParseAddr(d.ip()), packet.MustParseAddr(d.ip())
	if d.chance(2) {
		src = packet.V4(0)
	}
	copy(ip[12:], src.Bytes())
	copy(ip[16:], dst.Bytes())
	packet.FixIP4(ip)
	f := append([]byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00"), byte(8+d.IntN(3)), 8, 0)
	return append(f, ip...)
}

// setTypes are the types that this machine's kernel has.
func (k *setRig) setTypes() (types []string) {
	for _, typ := range ipset.Types() {
		options := ""
		if typ == "bitmap:port" {
			options = "range 0-1"
		} else if strings.HasPrefix(typ, "bitmap:") {
			options = "range 10.0.0.0/24"
		}
		err := exec.Command("ipset", strings.Fields("create x "+typ+" "+options)...).Run()
		if err == nil && typ != "list:set" {
			types = append(types, typ)
		}
		_ = exec.Command("ipset", "destroy", "x").Run()
	}
	return types
}

// TestSetsAgainstKernel puts random sets, rules and packets to this machine's kernel:
// the counters of all rules, what the sets hold afterwards, and `ipset test` must
// agree.
func TestSetsAgainstKernel(t *testing.T) {
	needSetTools(t)
	seeds := uint64(8)
	if n, err := strconv.ParseUint(os.Getenv("HOOKPATH_SET_SEEDS"), 10, 32); err == nil {
		seeds = n
	}
	hits := map[string][2]int{}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			inSetNamespace(t, func(k *setRig) { k.compare(setDraw{rand.New(rand.NewPCG(seed, 9)), !k.before(6, 2)}, hits) })
		})
	}
	for _, typ := range slices.Sorted(maps.Keys(hits)) {
		t.Logf("%-18s %6d matches, %6d misses", typ, hits[typ][0], hits[typ][1])
	}
}

func (k *setRig) compare(d setDraw, hits map[string][2]int) {
	create, adds, of := d.sets(k.setTypes())
	k.create = create
	cmd := exec.Command("ipset", "-")
	cmd.Stdin = strings.NewReader(create + strings.Join(adds, "\n") + "\nquit\n")
	_ = cmd.Run() // some are refused
	list, _ := exec.Command("ipset", "list", "-n").Output()
	names := strings.Fields(string(list))
	rules := []string{"-A PREROUTING"}
	for range 40 {
		rules = append(rules, "-A PREROUTING "+d.rule(names))
	}
	rules = append(rules, "-A PREROUTING -j DROP")
	text := "*mangle\n" + strings.Join(rules, "\n") + "\nCOMMIT\n"
	if _, ok := k.run(text, "iptables-legacy-restore"); !ok || !k.load(rules) {
		return
	}
	if os.Getenv("HOOKPATH_SET_SHOW") != "" {
		k.t.Log(k.save())
	}
	const packets, batch = 300, 50
	for n := 0; n < packets && !k.t.Failed(); n += batch {
		before := k.ours()
		for range batch {
			k.send(d.frame())
		}
		k.check(rules, n+batch)
		count(rules, before, k.ours(), batch, of, hits)
	}
	for range 60 {
		k.ask(d, names, of)
	}
}

// check compares the counters and the sets.
func (k *setRig) check(rules []string, sent int) {
	ours, theirs := k.ours(), k.theirs(uint64(sent))
	for i := range rules {
		if ours[i] != theirs[i] {
			k.t.Errorf("after %d packets: %s: counted %d, the kernel %d", sent, rules[i], ours[i], theirs[i])
		}
	}
	got, want := k.content(), k.kernelContent()
	for name := range want {
		a, b := slices.Clone(got[name]), slices.Clone(want[name])
		slices.Sort(a)
		slices.Sort(b)
		if !slices.Equal(a, b) {
			k.t.Errorf("after %d packets: set %s holds\n%s\nthe kernel's\n%s", sent, name,
				strings.Join(a, "\n"), strings.Join(b, "\n"))
		}
	}
	if k.t.Failed() {
		k.t.Logf("rules:\n%s\nsets:\n%s", strings.Join(rules, "\n"), k.save())
	}
}

// count keeps how often each type was matched and not.
func count(rules []string, before, after []uint64, n int, of map[string]string, hits map[string][2]int) {
	for i, r := range rules {
		_, rest, ok := strings.Cut(r, "--match-set ")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(rest, " ")
		h, m := hits[of[name]], int(after[i]-before[i])
		hits[of[name]] = [2]int{h[0] + m, h[1] + n - m}
	}
}

// ask compares `ipset test` of a random element.
func (k *setRig) ask(d setDraw, names []string, of map[string]string) {
	name := d.of(names...)
	el := d.of(names...)
	if of[name] != "list:set" {
		el = d.element(of[name])
	}
	if strings.Contains(of[name], "net") && d.chance(20) {
		el += " nomatch"
	}
	want := exec.Command("ipset", append([]string{"test", name}, strings.Fields(el)...)...).Run() == nil
	i, _ := k.rooms.Sets.ByName(name)
	var rd ipset.Reader
	e, _, err := rd.Entry(k.rooms.Sets.Set(i), strings.Fields(el))
	if err != nil {
		k.t.Errorf("%s: %v", el, err)
		return
	}
	k.world.Now = world.Instant(time.Now().UnixNano())
	if got := k.rooms.Sets.Holds(k.world, i, &e); got != want {
		k.t.Errorf("ipset test %s %s (%s): %v, the kernel says %v", name, el, of[name], got, want)
	}
}
