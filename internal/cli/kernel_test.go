package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hookpath/hookpath/internal/kernel"
	"github.com/hookpath/hookpath/internal/kernel/gen"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/report"
	"github.com/hookpath/hookpath/snapshot"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

func needRoot(t testing.TB) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); os.Geteuid() == 0 && err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root and /dev/net/tun")
	}
	t.Skip("needs root and /dev/net/tun")
}

func envInt(name string, def int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return def
}

// TestKernel puts random hosts and packets to this machine's kernel and to the
// engine, through the same snapshot files, and compares rule by rule and byte by
// byte. SEED, HOOKPATH_SEEDS and BACKEND (legacy, nft) choose what is drawn.
func TestKernel(t *testing.T) {
	needRoot(t)
	first, n := envInt("SEED", 1), envInt("HOOKPATH_SEEDS", 10)
	asked, same := 0, 0
	for seed := first; seed < first+n; seed++ {
		backend := kernel.Backend(1 + seed%2)
		switch os.Getenv("BACKEND") {
		case "legacy":
			backend = kernel.Legacy
		case "nft":
			backend = kernel.NFT
		}
		a, s := compareSeed(t, uint64(seed), backend)
		asked, same = asked+a, same+s
	}
	t.Logf("%d questions, %d answered alike", asked, same)
}

// compareSeed asks one scenario. After a difference the rest of the scenario says
// nothing, since the memories have parted.
func compareSeed(t *testing.T, seed uint64, backend kernel.Backend) (asked, same int) {
	g := gen.New(seed, gen.Options{Backend: backend, Rules: envInt("RULES", 0)})
	sc := g.Scenario()
	r, err := kernel.Open(t.Context(), sc)
	if err != nil {
		t.Errorf("seed %d: %v", seed, err)
		return 0, 0
	}
	defer r.Close()
	l, err := labOf(r, sc)
	if err != nil {
		t.Errorf("seed %d: %v", seed, err)
		return 0, 0
	}
	from := l.start()
	for range 30 {
		q := g.Next()
		want, err := r.Ask(q)
		if err != nil || want.Err != "" {
			t.Errorf("seed %d question %s: the kernel: %v %s", seed, q.ID, err, want.Err)
			return asked, same
		}
		g.Learn(want)
		asked++
		after, diff := compare(l, q, want, from)
		if diff != "" {
			t.Errorf("seed %d (%v) question %s: %s", seed, backend, q.ID, diff)
			return asked, same
		}
		same++
		from = after
	}
	return asked, same
}

// labOf reads the hosts as the real tools show them: what is laid out brings along
// connected routes, a local table, defaults.
func labOf(r *kernel.Run, sc kernel.Scenario) (*lab, error) {
	l := &lab{}
	for _, h := range sc.Hosts {
		files, err := r.Collect(h.Name)
		if err != nil {
			return nil, err
		}
		d := &snapshot.Dir{Name: h.Name, Files: map[string][]byte{}}
		for name, text := range files {
			d.Files[name] = []byte(text)
		}
		if err := l.add(d); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// compare asks the engine and looks for a branch that did what the kernel did.
func compare(l *lab, kq kernel.Question, want kernel.Answer, from states) (states, string) {
	line, err := json.Marshal(kq)
	if err != nil {
		return nil, err.Error()
	}
	q, err := parseQuestion(line)
	if err != nil {
		return nil, err.Error()
	}
	n, err := l.host(q.Host)
	if err != nil {
		return nil, err.Error()
	}
	at := float64(want.At.UnixNano()-int64(n.Host.Now)) / float64(world.Second)
	q.At = &at
	a, err := l.ask(q, from)
	if err != nil {
		return nil, err.Error() + "\n" + string(line)
	}
	first := ""
	for i := range a.Branches {
		diff := differ(&a.Branches[i], want, kq)
		if diff == "" {
			return a.after[i], ""
		}
		if first == "" {
			first = diff
		}
	}
	return nil, fmt.Sprintf("%s\n%s\n%s", first, line, a.Story(report.Style{Width: 140, AllRules: false}))
}

// differ says what a branch did otherwise than the kernel; empty for nothing.
func differ(b *report.Branch, want kernel.Answer, q kernel.Question) string {
	own := ids(q)
	var steps []string
	for _, s := range want.Steps {
		steps = append(steps, fmt.Sprintf("%s:%s:%s:%d", s.Table, s.Chain, s.Kind, s.N))
	}
	if got := ktraceSteps(b); !slices.Equal(got, steps) {
		return "steps\n got  " + strings.Join(got, " ") + "\n want " + strings.Join(steps, " ")
	}
	var out, delivered []string
	for i := range b.Steps {
		if e, ok := b.Steps[i].Event.(*trace.Deliver); ok {
			delivered = append(delivered, canonical(e.Frame, false, own))
		}
	}
	for i := range b.Outcomes {
		if o := &b.Outcomes[i]; o.Result == trace.Transmitted {
			out = append(out, o.Host.Links.Name(o.Dev)+" "+canonical(o.Frame, true, own))
		}
	}
	var wantOut, wantDelivered []string
	for _, f := range want.Out {
		if p, ok := packet.FromFrame(f.Bytes); ok && p.EtherType() == packet.EtherIPv4 {
			wantOut = append(wantOut, f.Dev+" "+canonical(f.Bytes, true, own))
		}
	}
	for _, d := range want.Delivered {
		wantDelivered = append(wantDelivered, canonical(d, false, own))
	}
	if slices.Sort(out); !slices.Equal(out, sorted(wantOut)) {
		return fmt.Sprintf("frames\n got  %q\n want %q", out, wantOut)
	}
	if slices.Sort(delivered); !slices.Equal(delivered, sorted(wantDelivered)) {
		return fmt.Sprintf("delivered\n got  %q\n want %q", delivered, wantDelivered)
	}
	return ""
}

func sorted(s []string) []string {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}

// choice says what of a question's bytes the kernel chose itself.
type choice uint8

const (
	nothing  choice = iota
	idOnly          // the IP id of a datagram
	theBytes        // a connecting socket's segment has options, numbers, a window
)

func ids(q kernel.Question) choice {
	switch {
	case !q.Out || q.Socket == "raw":
		return nothing
	case q.Socket == "tcp":
		return theBytes
	}
	return idOnly
}

// canonical is a packet's bytes without what the kernel draws for its own packets:
// the IP id. Whether the header checksum fits is said in its place.
func canonical(b []byte, frame bool, own choice) string {
	b = bytes.Clone(b)
	off := 0
	if frame {
		off = packet.EthernetLen
	}
	if len(b) < off+20 || b[off]>>4 != 4 {
		return fmt.Sprintf("%x", b)
	}
	h, n := b[off:], int(b[off]&0xf)*4
	sum := "bad checksum"
	if len(h) >= n && packet.Fold(packet.Sum16(h[:n], 0)) == 0 {
		sum = "ok"
	}
	isTCP := h[9] == packet.TCP && len(h) > n+13
	if own != nothing || h[9] == packet.ICMP || isTCP && h[n+13]&rst != 0 {
		copy(h[4:], []byte{0, 0})
		copy(h[10:], []byte{0, 0})
	}
	if own == theBytes && isTCP {
		copy(h[2:], []byte{0, 0})
		return fmt.Sprintf("%x flags %x %s", b[:off+n+4], h[n+13], sum)
	}
	return fmt.Sprintf("%x %s", b, sum)
}

func ktraceSteps(b *report.Branch) []string {
	a := report.Answer{Branches: []report.Branch{*b}}
	var out []string
	for line := range strings.Lines(string(a.KTrace())) {
		f := strings.Fields(line)
		if len(f) > 1 {
			out = append(out, f[1])
		}
	}
	return out
}
