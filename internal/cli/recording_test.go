package cli

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/packet"
)

// recording is a host whose kernel logged the way of a few packets, by TRACE and by
// the log watcher of ebtables.
type recording struct {
	Host struct {
		Save   string `json:"iptables_save"`
		Bridge struct {
			Name, Address, MAC string
			Ports              []struct{ Name, Peer, MAC string }
		}
		Eth0 struct{ Address, MAC string }
	}
	dir   string
	parts []recorded
}

// recorded is one packet: the lines that iptables logged, and how many ebtables did.
type recorded struct {
	name   string
	lines  []string
	bridge int
}

func readRecording(t *testing.T, name string) *recording {
	root := os.Getenv("HOOKPATH_CORPUS")
	if root == "" {
		missing(t, "HOOKPATH_CORPUS is not set: no recording to read")
	}
	r := &recording{dir: filepath.Join(root, "kernel-traces")}
	if err := json.Unmarshal(r.file(t, name+".json"), r); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(r.file(t, name+".trace.txt"))) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "# "); ok {
			r.parts = append(r.parts, recorded{name: name})
			continue
		}
		p := &r.parts[len(r.parts)-1]
		if strings.HasPrefix(line, "TRACE: eb:") {
			p.bridge++
		} else {
			p.lines = append(p.lines, line)
		}
	}
	return r
}

func (r *recording) file(t *testing.T, name string) []byte {
	data, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// snapshot writes the host as a snapshot. The published rules lack the mangle table,
// which the log of one flow shows: it was loaded between the two.
func (r *recording) snapshot(t *testing.T, mangle bool) string {
	dir := filepath.Join(t.TempDir(), "h")
	save := string(r.file(t, r.Host.Save))
	if mangle {
		save += "*mangle\nCOMMIT\n"
	}
	br := r.Host.Bridge
	at := netip.MustParsePrefix(br.Address)
	links := []string{linkJSON(2, "eth0", r.Host.Eth0.MAC, ""),
		linkJSON(3, br.Name, br.MAC, `,"linkinfo":{"info_kind":"bridge","info_data":{}}`)}
	var neighbours []string
	for i, p := range br.Ports {
		links = append(links, linkJSON(5+2*i, p.Name, fmt.Sprintf("3e:00:00:00:00:%02x", i),
			fmt.Sprintf(`,"master":%q,"linkinfo":{"info_kind":"veth"}`, br.Name)))
		neighbours = append(neighbours, fmt.Sprintf(`{"dst":%q,"dev":%q,"lladdr":%q,`+
			`"state":["REACHABLE"]}`, p.Peer[strings.LastIndex(p.Peer, " ")+1:], br.Name, p.MAC))
	}
	for name, text := range map[string]string{
		"iptables-save": save,
		"ip-addr.json": fmt.Sprintf(`[{"ifname":%q,"addr_info":[{"family":"inet","local":%q,`+
			`"prefixlen":%d,"scope":"global"}]}]`, br.Name, at.Addr(), at.Bits()),
		"ip-link.json":  "[" + strings.Join(links, ",") + "]",
		"ip-neigh.json": "[" + strings.Join(neighbours, ",") + "]",
	} {
		writeFile(t, filepath.Join(dir, name), text)
	}
	return dir
}

func linkJSON(index int, name, mac, more string) string {
	return fmt.Sprintf(`{"ifindex":%d,"ifname":%q,"flags":["BROADCAST","UP","LOWER_UP"],`+
		`"mtu":1500,"link_type":"ether","address":%q%s}`, index, name, mac, more)
}

func writeFile(t *testing.T, name, text string) {
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

var logField = regexp.MustCompile(`([A-Z]+)=(\S*)`)

// packet builds the IP packet that a line tells of: an echo with zeros as payload.
func (p *recorded) packet() []byte {
	n, ids := map[string]uint16{}, []uint16(nil)
	var src, dst netip.Addr
	for _, m := range logField.FindAllStringSubmatch(p.lines[0], -1) {
		var v uint16
		_, _ = fmt.Sscan(m[2], &v)
		n[m[1]] = v
		switch m[1] {
		case "ID":
			ids = append(ids, v) // that of IP, then that of ICMP
		case "SRC":
			src = netip.MustParseAddr(m[2])
		case "DST":
			dst = netip.MustParseAddr(m[2])
		}
	}
	b := make([]byte, n["LEN"])
	b[0], b[8], b[9] = 0x45, byte(n["TTL"]), packet.ICMP
	binary.BigEndian.PutUint16(b[2:], n["LEN"])
	binary.BigEndian.PutUint16(b[4:], ids[0])
	if strings.Contains(p.lines[0], " DF ") {
		b[6] = 0x40
	}
	copy(b[12:], src.AsSlice())
	copy(b[16:], dst.AsSlice())
	b[20], b[21] = byte(n["TYPE"]), byte(n["CODE"])
	binary.BigEndian.PutUint16(b[24:], ids[1])
	binary.BigEndian.PutUint16(b[26:], n["SEQ"])
	binary.BigEndian.PutUint16(b[22:], packet.Fold(packet.Sum16(b[20:], 0)))
	packet.FixIP4(b[:20])
	return b
}

// asker asks for one packet after another on the recorded host.
type asker struct {
	t *testing.T
	s *stream
}

func newAsker(t *testing.T, dir string) *asker {
	l, err := loadHosts(&Env{Now: testNow}, []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	return &asker{t, &stream{l: l, start: l.joined().Start(), seqs: map[string]*sequence{}}}
}

// ask walks a packet and returns its lines as the kernel would log them.
func (a *asker) ask(q question) ([]string, error) {
	q.Host, q.Seq = "h", "s"
	line, err := json.Marshal(&q)
	if err != nil {
		a.t.Fatal(err)
	}
	parsed, err := parseQuestion(line)
	if err != nil {
		a.t.Fatal(err)
	}
	from, err := a.s.from(parsed)
	if err != nil {
		a.t.Fatal(err)
	}
	answer, err := a.s.l.ask(parsed, from)
	if err != nil {
		return nil, err
	}
	a.s.seqs["s"] = &sequence{answer.after}
	return strings.Split(strings.TrimSpace(string(answer.KTrace())), "\n"), nil
}

// frame puts a packet behind an Ethernet header.
func frame(dst, src string, ip []byte) string {
	return strings.ReplaceAll(dst+src, ":", "") + "0800" + hex.EncodeToString(ip)
}

// notWalked are what a line says of the bridge, and of the program that sent.
var notWalked = regexp.MustCompile(`PHYS(IN|OUT)=\S* |UID=\d+ GID=\d+ ?`)

// TestRecordedLocal walks the ping of the host to a container. What iptables logged is
// walked line by line; the bridge below, which ebtables logged, is not there yet: its
// answer is asked for where the bridge hands it up.
func TestRecordedLocal(t *testing.T) {
	r := readRecording(t, "docker-bridge-local-process-to-container")
	a := newAsker(t, r.snapshot(t, true))
	bridge := r.Host.Bridge
	n := 0
	for i, q := range []question{
		{Out: true, Packet: hex.EncodeToString(r.parts[0].packet()), Socket: "raw"},
		{In: bridge.Name, Frame: frame(bridge.MAC, bridge.Ports[0].MAC, r.parts[1].packet())},
	} {
		got, err := a.ask(q)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, line := range r.parts[i].lines {
			want = append(want, notWalked.ReplaceAllString(line, ""))
		}
		// The first is the rule with TRACE itself: the kernel begins behind it.
		holdLines(t, &r.parts[i], got[1:], want)
		n += len(want)
	}
	if n != 10 {
		t.Errorf("%d lines were compared, the recording has 10", n)
	}
}

// TestRecordedBridged holds the rules of the frames that the bridge forwards between
// two containers. The bridge is not walked: a frame on its port is an error that says
// so. So the same packets are sent to the bridge's own address, which takes them over
// the same tables with the same devices; only the TTL is that of a routed packet, and
// since Linux 5.7 POSTROUTING knows the in interface.
func TestRecordedBridged(t *testing.T) {
	r := readRecording(t, "docker-bridge-container-to-container")
	a := newAsker(t, r.snapshot(t, false))
	bridge := r.Host.Bridge
	_, err := a.ask(question{In: bridge.Ports[0].Name,
		Frame: frame(bridge.Ports[1].MAC, bridge.Ports[0].MAC, r.parts[0].packet())})
	if err == nil || !strings.Contains(err.Error(), "port of bridge "+bridge.Name) {
		t.Errorf("a frame on a port of the bridge: %v", err)
	}
	for i := range r.parts {
		part := &r.parts[i]
		got, err := a.ask(question{In: bridge.Name,
			Frame: frame(bridge.MAC, bridge.Ports[i%2].MAC, part.packet())})
		if err != nil {
			t.Fatal(err)
		}
		var rules, want []string
		for _, line := range got[1:] {
			if !strings.Contains(line, "GATEWAY=") { // the redirect of the router
				rules = append(rules, place(line))
			}
		}
		for _, line := range part.lines {
			want = append(want, place(line))
		}
		holdLines(t, part, rules, want)
	}
}

// place is the rule of a line, with the devices that bridge and route agree in.
func place(line string) string {
	f := strings.Fields(line)
	if strings.Contains(f[1], ":POSTROUTING:") {
		return f[1] + " " + f[3]
	}
	return strings.Join(f[1:4], " ")
}

func holdLines(t *testing.T, p *recorded, got, want []string) {
	t.Helper()
	t.Logf("%s: %d lines of iptables; %d of ebtables are not run", p.name, len(want), p.bridge)
	for i := range want {
		if i >= len(got) || strings.TrimSpace(got[i]) != strings.TrimSpace(want[i]) {
			t.Errorf("%s: line %d\nwant %s\n got %s", p.name, i+1, want[i],
				strings.Join(got[min(i, len(got)):], "\n     "))
			return
		}
	}
	if len(got) > len(want) {
		t.Errorf("%s: more than was recorded: %s", p.name, strings.Join(got[len(want):], "\n"))
	}
}
