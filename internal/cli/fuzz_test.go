package cli

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"testing"
)

// FuzzQuestion reads a line of --packets: what is not a question is an error, and
// what is one has bytes.
func FuzzQuestion(f *testing.F) {
	f.Add([]byte(`{"id":"a","host":"r","in":"eth0","frame":"020000000001","seq":"x","branch":1}`))
	f.Add([]byte(`{"id":"b","out":true,"packet":"4500","socket":"udp","mark":1,"drawn":[677],"at":2}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		q, err := parseQuestion(line)
		if q == nil {
			t.Fatal("no question to take the id of")
		}
		if err == nil && len(q.bytes) == 0 {
			t.Errorf("%q has no bytes and no error", line)
		}
	})
}

// FuzzLines cuts standard input into lines, of which nothing gets lost.
func FuzzLines(f *testing.F) {
	f.Add([]byte("{}\n\n{\"id\":1}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(data), 16)
		var all []byte
		for {
			line, err := readLine(r)
			all = append(all, line...)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(all, data) {
			t.Errorf("got %q, want %q", all, data)
		}
	})
}
