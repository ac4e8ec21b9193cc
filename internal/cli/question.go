package cli

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/hookpath/hookpath/packet"
	"github.com/hookpath/hookpath/route"
	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
)

// question is one packet to ask about: a frame that arrives on In, or with Out a
// packet that a program sends. It is a line of trace --packets.
type question struct {
	ID   string `json:"id"`
	Host string `json:"host"`

	In    string `json:"in"`
	Frame string `json:"frame"`

	Out         bool   `json:"out"`
	Packet      string `json:"packet"`
	Socket      string `json:"socket"`
	Mark        uint32 `json:"mark"`
	UID         uint32 `json:"uid"`
	GID         uint32 `json:"gid"`
	Dev         string `json:"dev"`
	Transparent bool   `json:"transparent"`

	Seq    string   `json:"seq"`
	At     *float64 `json:"at"`
	Branch *int     `json:"branch"`
	Drawn  []uint16 `json:"drawn"`
	Reply  bool     `json:"reply"`

	// What only a sentence can say.
	bytes []byte
	hint  route.Hint
	ct    string
	skips bool
	data  bool // walk what follows a handshake too
	// Fields that a sentence leaves open: a test on one forks the walk.
	unknownMAC, unknownUID, unknownGID bool
}

// parseQuestion reads a JSON line. The id is returned as far as it could be read.
func parseQuestion(line []byte) (*question, error) {
	q := &question{}
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(q); err != nil {
		var id struct{ ID string }
		_ = json.Unmarshal(line, &id)
		return &question{ID: id.ID}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return q, fmt.Errorf("text follows the object")
	}
	return q, q.check()
}

func (q *question) check() (err error) {
	switch {
	case q.Out && (q.In != "" || q.Frame != ""):
		return fmt.Errorf("out goes with packet, not with in and frame")
	case q.Out:
		q.bytes, err = decodeHex("packet", q.Packet)
	case q.In == "":
		return fmt.Errorf("in is missing: the interface that the frame arrives on")
	case q.Packet != "":
		return fmt.Errorf("packet goes with out; a frame arrives on in")
	default:
		q.bytes, err = decodeHex("frame", q.Frame)
	}
	if err != nil {
		return err
	}
	return q.checkRest()
}

func (q *question) checkRest() error {
	switch q.Socket {
	case "", "raw", "udp", "tcp", "icmp":
	default:
		return fmt.Errorf("socket: %q is not raw, udp, tcp or icmp", q.Socket)
	}
	if q.Branch != nil && (*q.Branch < 0 || q.Seq == "") {
		return fmt.Errorf("branch: counts from 0 and needs seq")
	}
	return nil
}

// maxPacket is the largest frame that is read.
const maxPacket = 1 << 17

func decodeHex(what, s string) ([]byte, error) {
	if s == "" {
		return nil, fmt.Errorf("%s is missing", what)
	}
	if len(s) > 2*maxPacket {
		return nil, fmt.Errorf("%s has more than %d bytes", what, maxPacket)
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return b, nil
}

// asked is a question made ready for its host.
type asked struct {
	*question
	n     *node
	in    packet.Dev
	local walk.Local
	now   world.Instant
}

// ready finds the host and the interfaces that the question names.
func (l *hosts) ready(q *question) (*asked, error) {
	n, err := l.host(q.Host)
	if err != nil {
		return nil, err
	}
	a := &asked{question: q, n: n}
	if q.Out {
		a.local = walk.Local{IP: q.bytes, Socket: q.Socket, Mark: q.Mark, UID: q.UID, GID: q.GID,
			Transparent: q.Transparent}
		if q.Dev != "" {
			if a.local.Dev, err = n.device(q.Dev); err != nil {
				return nil, err
			}
		}
	} else if a.in, err = n.device(q.In); err != nil {
		return nil, err
	}
	a.now = n.Host.Now
	if q.At != nil {
		a.now += world.Instant(*q.At * float64(world.Second))
	}
	return a, nil
}
