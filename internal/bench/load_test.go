package bench

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// BenchmarkLoad loads the rules of the large cluster and lets iptables-legacy-restore
// load the same file in a namespace of its own, one after the other. The ratios are of
// the medians.
func BenchmarkLoad(b *testing.B) {
	needRestore(b)
	files := Large().Files()
	var ours, theirs costs
	b.ReportAllocs()
	for b.Loop() {
		ours.add(ofUs(func() { load(b, files) }))
		b.StopTimer()
		theirs.add(ofTool(b, files["iptables-save"], "unshare", "-n", "iptables-legacy-restore"))
		b.StartTimer()
	}
	o, t := ours.median(), theirs.median()
	b.ReportMetric(o.wall.Seconds()*1e3, "ms")
	b.ReportMetric(o.cpu.Seconds()*1e3, "cpu-ms")
	b.ReportMetric(t.wall.Seconds()*1e3, "restore-ms")
	b.ReportMetric(t.cpu.Seconds()*1e3, "restore-cpu-ms")
	b.ReportMetric(float64(o.wall)/float64(t.wall), "of-restore")
	b.ReportMetric(float64(o.cpu)/float64(t.cpu), "cpu-of-restore")
}

// BenchmarkCommand runs the command itself on the large cluster's snapshot, a whole
// process for one packet there and back: its time, and the most memory that it had.
func BenchmarkCommand(b *testing.B) {
	c := Large()
	dir := b.TempDir()
	bin := filepath.Join(dir, "hookpath")
	build := exec.Command("go", "build", "-o", bin, "github.com/hookpath/hookpath/cmd/hookpath")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	node := filepath.Join(dir, "node")
	if err := os.Mkdir(node, 0o755); err != nil {
		b.Fatal(err)
	}
	for name, text := range c.Files() {
		if err := os.WriteFile(filepath.Join(node, name), text, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	sentence := "tcp " + Client + ":1000 to " + c.VIP(c.Services-1).String() + ":80 in " + In
	var all costs
	for b.Loop() {
		all.add(ofTool(b, nil, bin, "trace", "-s", node, sentence))
	}
	m := all.median()
	b.ReportMetric(m.wall.Seconds()*1e3, "ms")
	b.ReportMetric(m.cpu.Seconds()*1e3, "cpu-ms")
	b.ReportMetric(float64(all.memory())/(1<<20), "peak-MB")
}

func needRestore(b *testing.B) {
	_, err := exec.LookPath("iptables-legacy-restore")
	if os.Geteuid() == 0 && err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		b.Fatal("needs root and iptables-legacy-restore")
	}
	b.Skip("SKIP: needs root and iptables-legacy-restore")
}

// cost is what one run took: on the clock, of the processors, and at most of memory.
type cost struct {
	wall, cpu time.Duration
	peak      int64 // bytes; zero where it was not measured
}

type costs []cost

func (cs *costs) add(c cost) { *cs = append(*cs, c) }

// median is the median of each measure by itself.
func (cs costs) median() cost {
	wall, cpu := make([]time.Duration, len(cs)), make([]time.Duration, len(cs))
	for i, c := range cs {
		wall[i], cpu[i] = c.wall, c.cpu
	}
	slices.Sort(wall)
	slices.Sort(cpu)
	return cost{wall: wall[len(wall)/2], cpu: cpu[len(cpu)/2]}
}

// memory is the largest peak.
func (cs costs) memory() (most int64) {
	for _, c := range cs {
		most = max(most, c.peak)
	}
	return most
}

// ofUs runs f in this process, without what the run before left behind.
func ofUs(f func()) cost {
	runtime.GC()
	w, at := StartWatch(), time.Now()
	f()
	return cost{wall: time.Since(at), cpu: w.Spent()}
}

// ofTool runs a program. It may exit with a status that means "it depends".
func ofTool(b *testing.B, stdin []byte, args ...string) cost {
	const depends = 3
	cmd := exec.Command(args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &out
	at := time.Now()
	err := cmd.Run()
	wall := time.Since(at)
	st := cmd.ProcessState
	if err != nil && st.ExitCode() != depends {
		b.Fatalf("%v: %v\n%s", args, err, out.Bytes())
	}
	return cost{wall, st.UserTime() + st.SystemTime(),
		st.SysUsage().(*syscall.Rusage).Maxrss * 1024}
}
