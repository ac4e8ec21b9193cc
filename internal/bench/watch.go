package bench

import (
	"math"
	"syscall"
	"time"
)

// Watch is a stop watch of this process's processor time, which other work on the
// machine disturbs less than the clock on the wall.
type Watch struct{ at time.Duration }

// StartWatch starts one.
func StartWatch() Watch { return Watch{processorTime()} }

// Spent is the processor time since the start, of all threads together.
func (w Watch) Spent() time.Duration { return processorTime() - w.at }

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0 // no system has it fail for the process itself
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Meter is what a benchmark reports to: *testing.B.
type Meter interface {
	ReportAllocs()
	Loop() bool
	ReportMetric(n float64, unit string)
}

// batch is so many calls that a batch of fast ones ends before the scheduler gives the
// processor to somebody else.
const batch = 128

// Measure runs f as a benchmark that also tells its processor time, and the time of a
// call in the fastest batch: on a busy machine that is what an undisturbed call takes.
func Measure(m Meter, f func()) {
	m.ReportAllocs()
	w, n := StartWatch(), 0
	best, at := time.Duration(math.MaxInt64), time.Now()
	for m.Loop() {
		f()
		if n++; n%batch == 0 {
			now := time.Now()
			best, at = min(best, now.Sub(at)), now
		}
	}
	m.ReportMetric(float64(w.Spent())/float64(n), "cpu-ns/op")
	if n >= batch {
		m.ReportMetric(float64(best)/batch, "best-ns/op")
	}
}
