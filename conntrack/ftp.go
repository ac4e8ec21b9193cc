package conntrack

import (
	"bytes"
	"encoding/binary"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/trace"
	"github.com/hookpath/hookpath/world"
)

// FTPKind is a form in which FTP names an address.
//
// Kernel: include/uapi/linux/netfilter/nf_conntrack_ftp.h, nf_ct_ftp_type.
type FTPKind uint8

// The forms.
const (
	FTPPort FTPKind = iota // PORT 10,0,0,1,4,1
	FTPPasv                // 227 ... 10,0,0,1,4,1
	FTPEprt                // EPRT |1|10.0.0.1|1025|
	FTPEpsv                // 229 ... (|||1025|)
)

// ftpLines are the places behind the last line ends that were seen: only what begins
// there is a command.
//
// Kernel: include/linux/netfilter/nf_conntrack_ftp.h, nf_ct_ftp_master.
type ftpLines struct {
	seq [2][2]uint32
	n   [2]uint8
}

// starts tells whether a line begins at seq.
func (l *ftpLines) starts(d Dir, seq uint32) bool {
	for i := range l.n[d] {
		if l.seq[d][i] == seq {
			return true
		}
	}
	return false
}

// add notes that a line begins at seq, unless both places that are known are newer.
//
// Kernel: net/netfilter/nf_conntrack_ftp.c, update_nl_seq.
func (l *ftpLines) add(d Dir, seq uint32) {
	if l.starts(d, seq) {
		return
	}
	s := &l.seq[d]
	if n := l.n[d]; int(n) < len(s) {
		s[n] = seq
		l.n[d]++
		return
	}
	oldest := 1
	if before(s[0], s[1]) {
		oldest = 0
	}
	if after(seq, s[oldest]) {
		s[oldest] = seq
	}
}

// ftp reads commands and answers, and foresees the data connections that they name.
//
// Kernel: net/netfilter/nf_conntrack_ftp.c, help.
func (t *Tracker) ftp(w *world.World, p *packet.Packet, f *Flow) trace.Verdict {
	h := p.L4()
	if p.CT.Info != packet.Established && p.CT.Info != packet.EstablishedReply ||
		f.Proto() != packet.TCP || len(h) < 20 || int(h[12]>>4)*4 >= len(h) {
		return trace.Accept
	}
	data, d := h[int(h[12]>>4)*4:], DirOf(p.CT.Info)
	seq := binary.BigEndian.Uint32(h[4:])
	end, newline := seq+uint32(len(data)), data[len(data)-1] == '\n'
	memory := t.lines.In(w.State)
	lines, _ := memory.Get(p.CT.Flow)
	v := trace.Accept
	if lines.starts(d, seq) {
		c := ftpCommand{addr: f.Tuples[d].Src}
		switch found := c.find(d, data); {
		case found < 0:
			return trace.DropIt
		case found > 0 && c.addr == f.Tuples[d].Src:
			v = t.expectFTP(w, p, f, &c)
		}
	}
	if newline {
		lines.add(d, end)
		memory.Put(p.CT.Flow, lines)
	}
	return v
}

// expectFTP foresees the data connection of a command.
func (t *Tracker) expectFTP(w *world.World, p *packet.Packet, f *Flow,
	c *ftpCommand) trace.Verdict {
	d := DirOf(p.CT.Info)
	to := &f.Tuples[d.Not()]
	e := Expect{
		Tuple:   Tuple{Src: to.Src, Dst: to.Dst, DPort: c.port, Proto: packet.TCP},
		SrcMask: fullMask(), Master: p.CT.Flow,
		Timeout: w.Now + expectSeconds*world.Second,
	}
	ok := false
	if f.Any(NATMask) && t.NAT != nil {
		e.FollowNAT, e.Dir, e.SavedPort = true, d.Not(), c.port
		ok = t.NAT.Mangle(w, p, c.at, e)
	} else {
		ok = t.AddExpect(w, e)
	}
	if !ok {
		return trace.DropIt
	}
	return trace.Accept
}

// ftpCommand is an address that was found in a line.
type ftpCommand struct {
	addr packet.Addr
	port uint16
	at   Match
}

// ftpForm is how a form looks: its word, what stands before the numbers, what ends them.
type ftpForm struct {
	word       string
	skip, term byte
	kind       FTPKind
}

// ftpForms are the forms that each direction uses.
//
// Kernel: net/netfilter/nf_conntrack_ftp.c, search.
var ftpForms = [2][2]ftpForm{
	{{"PORT", ' ', '\r', FTPPort}, {"EPRT", ' ', '\r', FTPEprt}},
	{{"227 ", 0, 0, FTPPasv}, {"229 ", '(', ')', FTPEpsv}},
}

// find looks for a form at the line's beginning: 1 found, 0 not there, -1 cut off.
func (c *ftpCommand) find(d Dir, data []byte) int {
	for i := range ftpForms[d] {
		if r := c.form(&ftpForms[d][i], data); r != 0 {
			return r
		}
	}
	return 0
}

// form looks for one form.
//
// Kernel: net/netfilter/nf_conntrack_ftp.c, find_pattern.
func (c *ftpCommand) form(f *ftpForm, data []byte) int {
	n := min(len(data), len(f.word))
	if !bytes.EqualFold(data[:n], []byte(f.word[:n])) {
		return 0
	}
	if len(data) <= len(f.word) {
		return -1
	}
	at := len(f.word)
	if f.skip != 0 {
		i := bytes.IndexByte(data[at:], f.skip)
		if i < 0 || at+i == len(data)-1 {
			return -1
		}
		at += i + 1
	}
	if f.kind == FTPPasv {
		i := bytes.IndexAny(data[at:], "0123456789")
		if i < 0 {
			return -1
		}
		at += i
	}
	size := c.numbers(f, data[at:])
	c.at = Match{Off: at, Len: size, Kind: f.kind}
	if size == 0 {
		return -1
	}
	return 1
}

// numbers reads address and port, and returns how long they are.
func (c *ftpCommand) numbers(f *ftpForm, s []byte) int {
	switch f.kind {
	case FTPEprt:
		return c.eprt(s)
	case FTPEpsv:
		return c.epsv(s)
	}
	var a [6]uint32
	n := ftpNumbers(s, a[:], ',', f.term)
	if n > 0 {
		c.addr = packet.V4(a[0]<<24 | a[1]<<16 | a[2]<<8 | a[3])
		c.port = uint16(a[4]<<8 | a[5])
	}
	return n
}

// Kernel: net/netfilter/nf_conntrack_ftp.c, try_eprt.
func (c *ftpCommand) eprt(s []byte) int {
	if len(s) <= 3 || !ftpDelimiter(s[0]) || s[2] != s[0] || s[1] != '1' {
		return 0
	}
	var a [4]uint32
	n := ftpNumbers(s[3:], a[:], '.', s[0])
	if n == 0 {
		return 0
	}
	c.addr = packet.V4(a[0]<<24 | a[1]<<16 | a[2]<<8 | a[3])
	return c.number(s, 3+n+1, s[0])
}

// Kernel: net/netfilter/nf_conntrack_ftp.c, try_epsv_response.
func (c *ftpCommand) epsv(s []byte) int {
	if len(s) <= 3 || !ftpDelimiter(s[0]) || s[1] != s[0] || s[2] != s[0] {
		return 0
	}
	return c.number(s, 3, s[0])
}

// number reads a port up to its delimiter.
//
// Kernel: net/netfilter/nf_conntrack_ftp.c, get_port.
func (c *ftpCommand) number(s []byte, start int, delim byte) int {
	var port uint16
	for i := start; i < len(s); i++ {
		switch {
		case s[i] == delim:
			if port == 0 {
				return 0
			}
			c.port = port
			return i + 1
		case s[i] < '0' || s[i] > '9':
			return 0
		}
		port = port*10 + uint16(s[i]-'0')
	}
	return 0
}

func ftpDelimiter(b byte) bool { return b >= 33 && b <= 126 && (b < '0' || b > '9') }

// ftpNumbers reads so many numbers, and returns how long they are; term zero ends them
// with anything.
//
// Kernel: net/netfilter/nf_conntrack_ftp.c, try_number.
func ftpNumbers(s []byte, a []uint32, sep, term byte) int {
	i := 0
	for n := 0; n < len(s) && i < len(a); n++ {
		switch b := s[n]; {
		case b >= '0' && b <= '9':
			a[i] = a[i]*10 + uint32(b-'0')
		case b == sep:
			i++
		case (b == term || term == 0) && i == len(a)-1:
			return n
		default:
			return 0
		}
	}
	return 0
}
