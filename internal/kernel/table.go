package kernel

import (
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// table follows the connection table of one namespace. A dump walks the hash
// table of the whole machine, whatever the namespace holds; so a new entry is
// learned from its event, and then asked for by its tuple. Other events are not
// enough: a packet that is dropped behind conntrack changes its entry without
// telling.
type table struct {
	known map[string]bool // attributes of a request by tuple
	whole bool            // dump instead: rules silence events, or a request is ambiguous
}

// maxRequests bounds the requests of one system call.
const maxRequests = 64

// learn notes the entry of an event.
func (t *table) learn(m message) { t.known[requestOf(m.attrs)] = true }

// requestOf are the attributes that ask for an entry again.
func requestOf(attrs []byte) string {
	var key []byte
	eachAttr(attrs, func(typ uint16, data []byte) {
		switch typ {
		case ctaOrig:
			key = attrNest(key, typ, data)
		case ctaZone:
			key = attr(key, typ, data)
		}
	})
	return string(key)
}

// start learns what is there already.
func (t *table) start(c *conn) error {
	t.known = map[string]bool{}
	return c.dump(ctGet, message{family: unix.AF_INET}, t.learn)
}

// flows lists the table, sorted.
func (t *table) flows(c *conn) ([]string, error) {
	if t.whole {
		return c.flows()
	}
	keys := make([]string, 0, len(t.known))
	for key := range t.known {
		keys = append(keys, key)
	}
	out := make([]string, 0, len(keys))
	for part := range slices.Chunk(keys, maxRequests) {
		lines, err := t.get(c, part)
		if err != nil {
			return nil, err
		}
		if t.whole {
			return c.flows()
		}
		out = append(out, lines...)
	}
	slices.Sort(out)
	return out, nil
}

// get asks for some entries at once, and forgets those that are gone.
func (t *table) get(c *conn, keys []string) ([]string, error) {
	first := c.seq + 1
	var b []byte
	for _, key := range keys {
		b = c.request(b, ctGet, 0, message{family: unix.AF_INET, attrs: []byte(key)})
	}
	if err := c.send(b); err != nil {
		return nil, err
	}
	var out []string
	for left := len(keys); left > 0; {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if err != nil {
			return nil, err
		}
		for b := c.buf[:n]; len(b) >= unix.NLMSG_HDRLEN; {
			body, kind, seq, rest := cut(b)
			b = rest
			i := int(seq - first)
			if i < 0 || i >= len(keys) {
				continue
			}
			left--
			if kind == unix.NLMSG_ERROR {
				if err := ackError(body); !errors.Is(err, unix.ENOENT) {
					return nil, fmt.Errorf("get connection: %w", err)
				}
				delete(t.known, keys[i])
			} else if m, ok := parseMessage(kind, body); ok {
				// An entry in the other direction has the tuple too: zones of one direction
				// can't be asked for.
				t.whole = t.whole || requestOf(m.attrs) != keys[i]
				out = append(out, parseFlow(m.attrs).String())
			}
		}
	}
	return out, nil
}
