package uml

import (
	"bytes"
	"encoding/gob"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// TestPacer: requests of every length around windows arrive, with replies in between.
func TestPacer(t *testing.T) {
	host, machine := net.Pipe()
	defer host.Close()
	go func() {
		defer machine.Close()
		in, out := gob.NewDecoder(&consenter{wire: machine}), gob.NewEncoder(machine)
		for {
			var q request
			if in.Decode(&q) != nil || out.Encode(&reply{Text: q.Text}) != nil {
				return
			}
		}
	}()
	out, in := gob.NewEncoder(&pacer{wire: host}), gob.NewDecoder(host)
	for _, n := range []int{0, 1, window - 1, window, window + 1, 3*window - 70, 100 * window} {
		for extra := range 70 {
			want := strings.Repeat("x", max(0, n-extra))
			var r reply
			if err := out.Encode(&request{Text: want}); err != nil {
				t.Fatal(err)
			}
			if err := in.Decode(&r); err != nil || r.Text != want {
				t.Fatalf("%d bytes: got %d, error %v", len(want), len(r.Text), err)
			}
		}
	}
}

// silent is a wire that nobody answers on.
type silent struct{ bytes.Buffer }

func (*silent) Read([]byte) (int, error) { return 0, io.EOF }

// TestWindow: without consent a pacer writes one window.
func TestWindow(t *testing.T) {
	var wire silent
	n, err := (&pacer{wire: &wire}).Write(make([]byte, 3*window))
	if n != window || !errors.Is(err, io.EOF) || wire.Len() != window {
		t.Errorf("got %d bytes, error %v; %d on the wire", n, err, wire.Len())
	}
}
