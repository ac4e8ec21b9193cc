package link

import (
	"fmt"
	"strconv"
)

// UnsupportedError names something of the host's configuration that is on the
// packet's way and not modelled. File and Line are empty where they are not
// known.
type UnsupportedError struct {
	File string
	Line int
	What string // the option or thing
	Why  string
}

// Error implements error.
func (e *UnsupportedError) Error() string {
	place := ""
	if e.File != "" {
		place = e.File + ":"
		if e.Line > 0 {
			place += strconv.Itoa(e.Line) + ":"
		}
		place += " "
	}
	if e.Why == "" {
		return fmt.Sprintf("%s%s is not supported", place, e.What)
	}
	return fmt.Sprintf("%s%s is not supported: %s", place, e.What, e.Why)
}
