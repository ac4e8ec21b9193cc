package cli

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// filler gives the same byte over and over.
type filler byte

func (f filler) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(f)
	}
	return len(b), nil
}

// long is a text with so many megabytes of the digit 1 in the middle.
func long(mb int64, head, tail string) io.Reader {
	return io.MultiReader(strings.NewReader(head), io.LimitReader(filler('1'), mb*1e6),
		strings.NewReader(tail))
}

// tarball is an archive of one entry.
func tarball(t *testing.T, h tar.Header, body io.Reader) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(w, body); err != nil {
		t.Fatal(err)
	}
	return &b
}

// bomb is a small archive of a large file.
func bomb(t *testing.T, size int64) io.Reader {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	h := tar.Header{Name: "h/iptables-save", Typeflag: tar.TypeReg, Size: size}
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(w, io.LimitReader(filler('#'), size))
	if err = errors.Join(err, w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return &b
}

// zipped is a zip of a file of a size, under names.
func zipped(t *testing.T, size int64, names ...string) io.Reader {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range names {
		w, err := z.Create(name)
		if err == nil {
			_, err = io.Copy(w, io.LimitReader(filler('#'), size))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

// TestBadInput gives the command what is too large or means harm: it says so in a
// line, ends with 2, and takes no more memory than the input has a right to.
func TestBadInput(t *testing.T) {
	tests := []struct {
		name, file string
		data       io.Reader
		args, want string
		mb         int64 // peak memory
	}{
		{"rules", "save", long(100, "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -s ", "\nCOMMIT\n"),
			"rules save", "save:3: the line has 100000012 bytes, more than 1048576", 400},
		{"rules from standard input", "save", long(100, "*filter\n:", "\n"), "rules -",
			"-:2: the line has 100000001 bytes, more than 1048576", 500},
		{"half a line", "save", strings.NewReader("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j"),
			"rules save", "save:3: -j: the option needs an argument; the file ends in this line, " +
				"without COMMIT: it is cut short", 100},
		{"routes", "d/ip-route", long(100, "default via ", "\n"), "show -s d",
			"d/ip-route:1: the line has 100000012 bytes", 300},
		{"ip rules", "d/ip-rule.json", long(20, "0:\tfrom all lookup ", "\n"), "show -s d",
			"d/ip-rule.json:1: the line has 20000019 bytes", 150},
		{"links", "d/ip-link.json", long(20, "1: ", "\n"), "show -s d", "d/ip-link.json:1: the line has",
			150},
		{"neighbours", "d/ip-neigh.json", long(20, "10.0.0.1 dev ", "\n"), "show -s d",
			"d/ip-neigh.json:1: the line has", 150},
		{"a set", "d/ipset-save", long(20, "create a hash:ip\nadd a ", "\n"), "show -s d",
			"d/ipset-save:2: the line has", 150},
		{"connections", "d/conntrack", long(20, "tcp 6 ", "\n"), "show -s d",
			"d/conntrack:1: the line has", 150},
		{"sysctls", "d/sysctl", long(20, "net.ipv4.ip_forward = ", "\n"), "show -s d",
			"d/sysctl:1: the line has", 150},
		{"sockets", "d/sockets", long(20, "tcp LISTEN 0 ", "\n"), "show -s d",
			"d/sockets:1: the line has", 150},
		{"JSON", "d/ip-addr.json", long(100, `[{"ifname":"`, `"}]`), "show -s d", "d/ip-addr.json:1: ", 900},
		{"questions", "q", long(100, `{"id":"`, "\"}\n"), "trace -s d --packets q",
			"q:1: the line is longer than 4194304 bytes", 100},

		{"a path upwards", "a.tar", tarball(t, tar.Header{Name: "h/../../iptables-save", Size: 1},
			strings.NewReader("#")), "show -s a.tar",
			`a.tar: "h/../../iptables-save" leads out of the archive`, 100},
		{"a path from the root", "a.tar", tarball(t, tar.Header{Name: "/etc/iptables-save", Size: 1},
			strings.NewReader("#")), "show -s a.tar",
			`a.tar: "/etc/iptables-save" leads out of the archive`, 100},
		{"a link", "a.tar", tarball(t, tar.Header{Name: "iptables-save", Typeflag: tar.TypeSymlink,
			Linkname: "/etc/passwd"}, strings.NewReader("")), "show -s a.tar",
			`a.tar: "iptables-save" is neither a file nor a directory`, 100},
		{"a device", "a.tar", tarball(t, tar.Header{Name: "iptables-save", Typeflag: tar.TypeBlock},
			strings.NewReader("")), "show -s a.tar", "is neither a file nor a directory", 100},
		{"a claim", "a.tar", tarball(t, tar.Header{Name: "iptables-save", Size: 1 << 29},
			strings.NewReader("*filter\n")), "show -s a.tar", "a.tar: iptables-save: unexpected EOF",
			100},
		{"a bomb", "a.tar.gz", bomb(t, 1<<30), "show -s a.tar.gz",
			"a.tar.gz: h/iptables-save: more text than a snapshot can have", 400},
		{"half an archive", "a.tar.gz", io.LimitReader(bomb(t, 1<<20), 500), "show -s a.tar.gz",
			"a.tar.gz: h/iptables-save: unexpected EOF", 100},
		{"not an archive", "a.tgz", strings.NewReader("*filter\n"), "show -s a.tgz", "a.tgz: ", 100},
		{"a zip upwards", "a.zip", zipped(t, 1, "../iptables-save"), "show -s a.zip",
			`a.zip: "../iptables-save" leads out of the archive`, 100},
		{"a zip bomb", "a.zip", zipped(t, 1<<29, "iptables-save"), "show -s a.zip",
			"a.zip: iptables-save: more text than a snapshot can have", 400},
		{"a zip of many bombs", "a.zip", zipped(t, 40<<20, "a/sysctl", "b/sysctl", "c/sysctl"),
			"show -s a.zip", "a.zip: b/sysctl: more text than a snapshot can have", 400},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeData(t, filepath.Join(dir, tt.file), tt.data)
			writeData(t, filepath.Join(dir, "d/meta.json"), strings.NewReader("{}"))
			status, stderr, mb := inDir(t, dir, tt.file, strings.Fields(tt.args))
			if status != exitUsage || !strings.HasPrefix(stderr, "hookpath: ") ||
				!strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 ||
				len(stderr) > 5000 {
				t.Errorf("status %d, %.500q, want 2 and %q", status, stderr, tt.want)
			}
			if mb > tt.mb {
				t.Errorf("took %d MB, more than %d", mb, tt.mb)
			}
		})
	}
}

func writeData(t *testing.T, name string, data io.Reader) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(f, data)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// inDir runs hookpath in a directory with a file as its standard input and tells
// its exit status, its errors and its peak memory in MB.
func inDir(t *testing.T, dir, in string, args []string) (status int, stderr string, mb int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // it hangs
	defer cancel()
	f, err := os.Open(filepath.Join(dir, in))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "hookpath", args...)
	cmd.Dir, cmd.Stdin, cmd.Stderr = dir, f, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	use := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return cmd.ProcessState.ExitCode(), errs.String(), use.Maxrss >> 10
}
