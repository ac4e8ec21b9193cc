package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"time"

	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/world"
	"github.com/hookpath/hookpath/xtables"
)

// Meta is meta.json: what no tool prints. Everything in it may be left out.
type Meta struct {
	Host   string              `json:"host,omitempty"`
	Netns  string              `json:"netns,omitempty"`
	Kernel string              `json:"kernel,omitempty"`
	HZ     int                 `json:"hz,omitempty"`
	Time   string              `json:"time,omitempty"`
	Links  map[string]MetaLink `json:"links,omitempty"`
	Absent []string            `json:"absent,omitempty"`
}

// MetaLink is the other end of a cable.
type MetaLink struct {
	PeerHost string `json:"peer_host"`
	Peer     string `json:"peer"`
}

// parseMeta reads meta.json; a key that it does not have is an error.
func parseMeta(file string, data []byte) (Meta, error) {
	var m Meta
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		line := 1 + bytes.Count(data[:min(int(d.InputOffset()), len(data))], []byte{'\n'})
		return m, place{file, line}.errorf("%w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return m, place{file, 1}.errorf("text follows the object")
	}
	if m.HZ < 0 || m.HZ > 10000 {
		return m, place{file, 1}.errorf("hz: %d is not a number of timer ticks", m.HZ)
	}
	return m, nil
}

var kernelPattern = regexp.MustCompile(`^(\d{1,3})\.(\d{1,4})(?:\.(\d{1,5}))?(\.|-|$)`)

// oneProcessor knows Debian's user-mode-linux: distributions give the kernels of
// machines a suffix.
var oneProcessor = regexp.MustCompile(`^6\.1(\.\d+)?$`)

// kernelVersion reads the version of "6.18.1-amd64".
func kernelVersion(s string) (xtables.Kernel, error) {
	m := kernelPattern.FindStringSubmatch(s)
	if m == nil {
		return xtables.Kernel{}, fmt.Errorf("kernel: %q is not a version like 6.18.1", s)
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	patch, _ := strconv.Atoi(m[3]) // none is zero
	return xtables.Kernel{Major: major, Minor: minor, Patch: patch,
		OneProcessor: oneProcessor.MatchString(s)}, nil
}

// apply puts what meta.json says into a configuration.
func (m *Meta) apply(file string, c *walk.Config) error {
	c.Netns, c.HZ = m.Netns, m.HZ
	if m.Host != "" {
		c.Name = m.Host
	}
	if m.Kernel != "" {
		k, err := kernelVersion(m.Kernel)
		if err != nil {
			return place{file, 1}.errorf("%w", err)
		}
		c.Kernel = k
	}
	if m.Time != "" {
		t, err := time.Parse(time.RFC3339Nano, m.Time)
		if err != nil {
			return place{file, 1}.errorf("time: %w", err)
		}
		c.Now = world.Instant(t.UnixNano())
	}
	for dev, l := range m.Links {
		if l.PeerHost == "" || l.Peer == "" {
			return place{file, 1}.errorf("links: %s: peer_host and peer belong together", dev)
		}
		if c.Cables == nil {
			c.Cables = map[string][]walk.Peer{}
		}
		c.Cables[dev] = []walk.Peer{{Host: l.PeerHost, Dev: l.Peer}}
	}
	return nil
}
