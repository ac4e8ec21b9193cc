package snapshot

import (
	"archive/zip"
	"bytes"
	"path"
	"strings"
	"testing"
)

// FuzzArchive reads what may be an archive: no path leads out of it, and it unpacks
// to no more than it may.
func FuzzArchive(f *testing.F) {
	good := tarOf(f, map[string]string{"iptables-save": "*filter\nCOMMIT\n", "xt/recent/a": ""})
	f.Add(uint8(0), good)
	f.Add(uint8(1), gzipOf(f, good))
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("a/iptables-save")
	if err == nil {
		_, err = w.Write([]byte("*filter\n"))
	}
	if err != nil || z.Close() != nil {
		f.Fatal(err)
	}
	f.Add(uint8(2), b.Bytes())
	kinds := []string{".tar", ".tar.gz", ".zip"}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		c, r := newCollector("a"), bytes.NewReader(data)
		if c.archive(kinds[int(kind)%len(kinds)], r, r.Size()) != nil {
			return
		}
		for p := range c.files {
			if path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") {
				t.Errorf("%q leads out", p)
			}
		}
		if c.total > c.limit {
			t.Errorf("%d bytes, more than %d", c.total, c.limit)
		}
	})
}
