package match

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hookpath/hookpath/field"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/xtables"
)

// timeMatch matches the time at which the rule is asked: between two dates, on days
// of the month or week, within a time of the day.
//
// Kernel: net/netfilter/xt_time.c, time_mt.
type timeMatch struct {
	Start, Stop         dayTime
	DateStart, DateStop dateTime
	Month, Week         daySet
	NotMonth, NotWeek   bool
	UTC, Local, Zone    bool
	Contiguous          bool
}

const (
	secondsADay = 86400
	lastSecond  = secondsADay - 1
	lastDate    = 1<<31 - 1
	allMonth    = 0xfffffffe // bits 1 to 31
	allWeek     = 0xfe       // bits 1 to 7
)

func newTime() xtables.Match {
	return &timeMatch{Stop: lastSecond, DateStop: lastDate, Month: daySet{n: allMonth, last: 31},
		Week: daySet{n: allWeek, last: 7, words: weekWords}}
}

// Options implements xtables.Match.
func (m *timeMatch) Options(s *xtables.Spec) {
	s.Var("timestart", &m.Start).PrintAs(m.printTimes)
	s.Var("timestop", &m.Stop).PrintAs(func(b []byte) []byte { return b })
	s.Var("monthdays", &m.Month).Not(&m.NotMonth).PrintAs(m.printMonth)
	s.Var("weekdays", &m.Week).Not(&m.NotWeek).PrintAs(m.printWeek)
	s.Var("datestart", &m.DateStart)
	s.Var("datestop", &m.DateStop).Always()
	s.Flag("kerneltz", &m.Zone)
	s.Flag("localtz", &m.Local).PrintAs(func(b []byte) []byte { return b })
	s.Flag("utc", &m.UTC).PrintAs(func(b []byte) []byte { return b })
	s.Flag("contiguous", &m.Contiguous)
	s.OneOf("utc", "kerneltz", "localtz")
	s.Check(m.check)
}

func (m *timeMatch) check(*xtables.Context) error {
	if m.Contiguous && m.Start < m.Stop {
		return fmt.Errorf("--contiguous makes sense only when --timestop is before --timestart")
	}
	m.Zone = m.Zone || m.Local
	if m.NotMonth {
		m.Month.n, m.NotMonth = allMonth&^m.Month.n, false
	}
	if m.NotWeek {
		m.Week.n, m.NotWeek = allWeek&^m.Week.n, false
	}
	return nil
}

func (m *timeMatch) printTimes(b []byte) []byte {
	if m.Start == 0 && m.Stop == lastSecond {
		return b
	}
	b = m.Start.Append(append(b, " --timestart "...), 0)
	return m.Stop.Append(append(b, " --timestop "...), 0)
}

func (m *timeMatch) printMonth(b []byte) []byte {
	if m.Month.n == allMonth {
		return b
	}
	return m.Month.Append(append(b, " --monthdays "...), 0)
}

func (m *timeMatch) printWeek(b []byte) []byte {
	if m.Week.n == allWeek {
		return b
	}
	return m.Week.Append(append(b, " --weekdays "...), 0)
}

// Pred implements xtables.Match. The kernel's time zone is not in a snapshot: it is
// taken to be UTC, as it is unless settimeofday has set it.
func (m *timeMatch) Pred(b *xtables.Build) field.Pred {
	if m.Zone {
		assume(b, "the kernel's time zone of -m time --kerneltz is taken to be UTC")
	}
	dates := field.Is(field.Now, field.Between(uint64(m.DateStart), uint64(m.DateStop)))
	if m.Start == 0 && m.Stop == lastSecond && m.Month.n == allMonth && m.Week.n == allWeek {
		return dates
	}
	return field.And(dates, xtables.Derived(func(e *xtables.Env) bool {
		now, _ := e.Field(field.Now)
		return m.holds(int64(now.Lo))
	}, field.Now))
}

// holds asks the time of the day, then the day.
func (m *timeMatch) holds(stamp int64) bool {
	sec := dayTime(stamp % secondsADay)
	if m.Start < m.Stop {
		if sec < m.Start || sec > m.Stop {
			return false
		}
	} else {
		if sec < m.Start && sec > m.Stop {
			return false
		}
		// What belongs to a night that began yesterday counts as yesterday.
		if m.Contiguous && sec <= m.Stop {
			stamp -= secondsADay
		}
	}
	return m.day(stamp / secondsADay)
}

func (m *timeMatch) day(days int64) bool {
	week := uint32(4+days-1)%7 + 1 // 1970-01-01 was a Thursday
	if m.Week.n>>week&1 == 0 {
		return false
	}
	if m.Month.n == allMonth {
		return true
	}
	return m.Month.n>>time.Unix(days*secondsADay, 0).UTC().Day()&1 != 0
}

// dayTime is hh:mm[:ss] as seconds of a day.
type dayTime uint32

// Parse implements xtables.Value.
func (v *dayTime) Parse(a *xtables.Args) error {
	n, ok := parseClock(strings.Split(a.Word, ":"))
	if !ok || strings.Count(a.Word, ":") == 0 {
		return fmt.Errorf("%q is not a time hh:mm[:ss]", a.Word)
	}
	*v = dayTime(n)
	return nil
}

// parseClock reads hours, minutes and seconds, as far as they are given.
func parseClock(parts []string) (seconds uint64, ok bool) {
	limits := [...]uint64{23, 59, 59}
	if len(parts) > len(limits) {
		return 0, false
	}
	for i, max := range limits {
		seconds *= 60
		if i < len(parts) {
			n, err := strconv.ParseUint(parts[i], 10, 8)
			if err != nil || n > max {
				return 0, false
			}
			seconds += n
		}
	}
	return seconds, true
}

// Append implements xtables.Value.
func (v dayTime) Append(b []byte, _ trace.Family) []byte {
	return fmt.Appendf(b, "%02d:%02d:%02d", v/3600, v/60%60, v%60)
}

// Unset implements xtables.Value.
func (v dayTime) Unset() bool { return v == 0 }

// dateTime is YYYY[-MM[-DD[Thh[:mm[:ss]]]]] as seconds since the epoch.
type dateTime uint32

// Parse implements xtables.Value.
func (v *dateTime) Parse(a *xtables.Args) error {
	date, clock, hasClock := strings.Cut(a.Word, "T")
	bad := fmt.Errorf("%q is not a date YYYY[-MM[-DD[Thh[:mm[:ss]]]]] from 1970 to 2038", a.Word)
	parts := strings.Split(date, "-")
	if len(parts) > 3 || hasClock && len(parts) != 3 {
		return bad
	}
	ymd := [3]int{0, 1, 1}
	limits := [3][2]int{{1970, 2038}, {1, 12}, {1, 31}}
	for i, p := range parts {
		n, err := strconv.Atoi(p)
		if err != nil || p[0] < '0' || n < limits[i][0] || n > limits[i][1] {
			return bad
		}
		ymd[i] = n
	}
	var seconds uint64
	if hasClock {
		var ok bool
		if seconds, ok = parseClock(strings.Split(clock, ":")); !ok {
			return bad
		}
	}
	unix := time.Date(ymd[0], time.Month(ymd[1]), ymd[2], 0, 0, int(seconds), 0, time.UTC).Unix()
	if unix > lastDate {
		return bad
	}
	*v = dateTime(unix)
	return nil
}

// Append implements xtables.Value.
func (v dateTime) Append(b []byte, _ trace.Family) []byte {
	return time.Unix(int64(v), 0).UTC().AppendFormat(b, "2006-01-02T15:04:05")
}

// Unset implements xtables.Value.
func (v dateTime) Unset() bool { return v == 0 }

// daySet is a list of days, by number or by the beginning of a word.
type daySet struct {
	n     uint32 // bit n for day number n
	last  int
	words []string
}

var weekWords = []string{"", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}

// Parse implements xtables.Value.
func (v *daySet) Parse(a *xtables.Args) error {
	v.n = 0
	for _, word := range strings.Split(a.Word, ",") {
		n, ok := v.day(word)
		if !ok {
			return fmt.Errorf("%q: %q is not a day from 1 to %d", a.Word, word, v.last)
		}
		v.n |= 1 << n
	}
	return nil
}

func (v *daySet) day(word string) (int, bool) {
	if n, err := strconv.Atoi(word); err == nil {
		return n, n >= 1 && n <= v.last
	}
	for i, w := range v.words {
		if i > 0 && len(word) >= 2 && w[:2] == word[:2] {
			return i, true
		}
	}
	return 0, false
}

// Append implements xtables.Value.
func (v *daySet) Append(b []byte, _ trace.Family) []byte {
	first := true
	for i := 1; i <= v.last; i++ {
		if v.n>>i&1 == 0 {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		if v.words == nil {
			b = strconv.AppendInt(b, int64(i), 10)
			continue
		}
		b = append(b, v.words[i]...)
	}
	return b
}

// Unset implements xtables.Value.
func (v *daySet) Unset() bool { return v.n|1 == allMonth|1 || v.n == allWeek }
