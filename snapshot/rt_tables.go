package snapshot

import (
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/route"
)

// parseRTTables reads iproute2's rt_tables: a number and a name a line, # begins
// a comment.
func parseRTTables(file string, data []byte) (*route.Names, error) {
	n := &route.Names{Tables: map[uint32]string{}}
	err := textLines(file, data, func(p place, line string) error {
		line, _, _ = strings.Cut(line, "#")
		f := strings.Fields(line)
		if len(f) == 0 {
			return nil
		}
		if len(f) != 2 {
			return p.errorf("%q is not a number and a name", line)
		}
		id, err := strconv.ParseUint(f[0], 0, 32)
		if err != nil {
			return p.errorf("%q is not a table's number", f[0])
		}
		if _, dup := n.Tables[uint32(id)]; !dup {
			n.Tables[uint32(id)] = f[1]
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return n, nil
}
