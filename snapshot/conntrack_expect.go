package snapshot

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/hookpath/hookpath/conntrack"
	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/world"
)

func parseTupleAddr(p place, key, val string) (packet.Addr, error) {
	a, err := netip.ParseAddr(val)
	if err != nil || a.Zone() != "" {
		return packet.Addr{}, p.errorf("%s: %q is no address", key, val)
	}
	return packet.AddrFrom(a), nil
}

// parseExpect reads `conntrack -L expect`. The seconds left count from now.
func parseExpect(file string, data []byte, now world.Instant) ([]conntrack.Foreseen, error) {
	var out []conntrack.Foreseen
	err := eachLine(file, data, func(p place, line string) error {
		if strings.Contains(line, conntrackFooter) {
			return nil
		}
		r := expectReader{place: p}
		if err := r.line(strings.Fields(line), now); err != nil {
			return err
		}
		out = append(out, r.e)
		return nil
	})
	return out, err
}

// expectReader reads one line: the expected tuple, its mask, the master's tuple.
type expectReader struct {
	place
	e    conntrack.Foreseen
	part int // 0 the tuple, 1 the mask, 2 the master
}

func (r *expectReader) line(words []string, now world.Instant) error {
	if len(words) == 0 {
		return nil
	}
	sec, err := strconv.ParseUint(words[0], 10, 32)
	if err != nil {
		return r.errorf("%q is not the seconds left", words[0])
	}
	r.e.Timeout = now + world.Instant(sec)*world.Second
	for _, w := range words[1:] {
		key, val, ok := strings.Cut(w, "=")
		if !ok {
			err = r.flag(w)
		} else {
			err = r.pair(key, val)
		}
		if err != nil {
			return err
		}
	}
	if r.part != 2 || r.e.Tuple.Proto == 0 {
		return r.errorf("an expectation has a protocol, a tuple, a mask and a master")
	}
	r.e.MasterTuple.Proto = masterProto(r.e.Helper, r.e.Tuple.Proto)
	r.e.Helper = conntrack.NoHelper // of the master, not of what it expects
	return nil
}

// masterProto is the protocol of the connection that a helper reads.
func masterProto(h conntrack.Helper, expected uint8) uint8 {
	switch h {
	case conntrack.FTP:
		return packet.TCP
	case conntrack.TFTP:
		return packet.UDP
	}
	return expected
}

func (r *expectReader) flag(w string) error {
	switch w {
	case "PERMANENT", "[PERMANENT]":
		r.e.Permanent = true
	case "INACTIVE", "[INACTIVE]":
		r.e.Inactive = true
	case "USERSPACE", "[USERSPACE]":
	default:
		return r.errorf("%q is not understood", w)
	}
	return nil
}

func (r *expectReader) pair(key, val string) (err error) {
	tuples := [...]*conntrack.Tuple{&r.e.Tuple, nil, &r.e.MasterTuple}
	var mask packet.Addr
	switch key {
	case "proto":
		n, err := r.number(key, val, 8)
		r.e.Tuple.Proto = uint8(n)
		return err
	case "mask-src", "master-src":
		r.part++
	case "class":
		return nil
	case "helper":
		h, ok := conntrack.ParseHelper(val)
		if !ok {
			return r.unsupported("helper="+val, "no such helper is known")
		}
		r.e.Helper = h
		return nil
	}
	if r.part > 2 {
		return r.errorf("%s= is one too many", key)
	}
	switch key {
	case "src", "master-src":
		tuples[r.part].Src, err = parseTupleAddr(r.place, key, val)
	case "dst", "master-dst":
		tuples[r.part].Dst, err = parseTupleAddr(r.place, key, val)
	case "mask-src":
		mask, err = parseTupleAddr(r.place, key, val)
		r.e.SrcMask = wholeMask(mask)
	case "mask-dst":
	case "sport", "dport":
		return r.port(tuples[r.part], key, val)
	default:
		return r.unsupported(key+"=", "this word is not known")
	}
	return err
}

// wholeMask makes an IPv4 mask count for the mapping prefix too.
func wholeMask(m packet.Addr) packet.Addr {
	if m.Is4() {
		for i := range 12 {
			m[i] = 0xff
		}
	}
	return m
}

func (r *expectReader) port(tu *conntrack.Tuple, key, val string) error {
	n, err := r.number(key, val, 16)
	switch {
	case tu == nil && key == "sport":
		r.e.SPortMask = uint16(n)
	case tu == nil:
	case key == "sport":
		tu.SPort = uint16(n)
	default:
		tu.DPort = uint16(n)
	}
	return err
}

func (r *expectReader) number(key, val string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(val, 10, bits)
	if err != nil {
		return 0, r.errorf("%s: %q is no number of %d bits", key, val, bits)
	}
	return n, nil
}
