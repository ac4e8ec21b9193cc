// Package world is what a decision depends on besides packet and configuration:
// the host's memory, the clock, and the dice. All three arrive as parameters of a
// walk, so that a question can be asked again and answered the same.
package world

// Instant is a moment in nanoseconds since the Unix epoch, UTC.
type Instant int64

// Second is one second of Instants.
const Second Instant = 1e9

// Unix returns the whole seconds since the epoch.
func (t Instant) Unix() int64 {
	if t < 0 && t%Second != 0 {
		return int64(t/Second) - 1
	}
	return int64(t / Second)
}

// Jiffies returns the moment in timer ticks of a kernel built with the given hz.
func (t Instant) Jiffies(hz int) int64 { return int64(t) / (int64(Second) / int64(hz)) }

// World is what one walk may change and depend on.
type World struct {
	State *State
	Now   Instant
	Dice  *Dice
	HZ    int // timer ticks a second, never zero
}
