// Package snapshot reads a host from text: a directory, an archive or a single
// file of what the usual tools print. Each format has a file; together they give
// the walk.Config that a host is built from. Nothing here asks the running
// machine, except live.go, which only reads.
package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hookpath/hookpath/walk"
	"github.com/hookpath/hookpath/xtables"
)

// Dir is one snapshot: the files of one network namespace by their names, such as
// "iptables-save" or "xt/recent/ssh". Unread are files that no reader knows.
type Dir struct {
	Name   string
	Files  map[string][]byte
	Unread []string
	// Single is the path of the one file that was given; its name or content said
	// what it is. Empty for a directory.
	Single string
	// Version, when set, overrides the release of iptables that the rules' header
	// names.
	Version *xtables.Version
	// Setup are commands that are typed on the host of the files, and Cables the far ends
	// of its interfaces, beside those of meta.json; both come from lab.yaml.
	Setup  []string
	Cables map[string][]walk.Peer
	// Lab is the lab that the host belongs to, nil for none.
	Lab *Lab
	at  string // where lab.yaml describes the host, for errors
}

// Bounds of what is read, against archives that unpack to more than they seem.
const (
	maxFiles     = 20000
	maxFile      = 512 << 20
	maxTotal     = 1 << 30
	maxDepth     = 6
	freeUnpacked = 64 << 20 // that much may any archive unpack to
	maxRatio     = 100      // beyond that, so many times its own size
	maxClaimed   = 1 << 20  // no more memory is taken because an archive says so
)

// Read reads the snapshot at a path: a directory, a .tar, .tar.gz, .tgz or .zip of
// one, a directory of such directories (a lab), or a single file.
func Read(name string) ([]*Dir, error) {
	st, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return readTree(name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c := newCollector(name)
	switch kind := archiveKind(name); {
	case kind != "":
		err = c.archive(kind, f, st.Size())
	default:
		return readSingle(name, f, st.Size())
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c.dirs(baseName(name))
}

func archiveKind(name string) string {
	for _, ext := range []string{".tar", ".tar.gz", ".tgz", ".zip"} {
		if strings.HasSuffix(strings.ToLower(name), ext) {
			return ext
		}
	}
	return ""
}

// baseName is the host's name that a path suggests.
func baseName(name string) string {
	if abs, err := filepath.Abs(name); err == nil {
		name = abs
	}
	base := filepath.Base(name)
	if ext := archiveKind(base); ext != "" {
		base = base[:len(base)-len(ext)]
	}
	return base
}

// readTree reads a directory; links that lead out of it are refused.
func readTree(name string) ([]*Dir, error) {
	root, err := os.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return ReadFS(root.FS(), name)
}

// ReadFS reads a snapshot directory, or a lab of them, from a file system.
func ReadFS(fsys fs.FS, name string) ([]*Dir, error) {
	c := newCollector(name)
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if strings.Count(p, "/") >= maxDepth {
				return fs.SkipDir
			}
			return nil
		}
		return c.fromFS(fsys, p)
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c.dirs(baseName(name))
}

// collector gathers files under their paths.
type collector struct {
	name  string
	files map[string][]byte
	total int64
	limit int64
}

func newCollector(name string) *collector {
	return &collector{name: name, files: map[string][]byte{}, limit: maxTotal}
}

func (c *collector) fromFS(fsys fs.FS, p string) error {
	st, err := fs.Stat(fsys, p)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return nil
	}
	f, err := fsys.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	return c.add(p, f, st.Size())
}

// add reads one file of about size bytes. A path that leads out of the snapshot is
// an error.
func (c *collector) add(p string, r io.Reader, size int64) error {
	if strings.Contains(p, "\\") || path.IsAbs(p) || slices.Contains(strings.Split(p, "/"), "..") {
		return fmt.Errorf("%q leads out of the archive", p)
	}
	p = path.Clean(p)
	if len(c.files) >= maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	data, err := c.read(r, size)
	if err != nil {
		return fmt.Errorf("%s: %w", p, err)
	}
	c.files[p] = data
	return nil
}

var errTooLarge = errors.New("more text than a snapshot can have")

// read reads a file whose size is about known, or said to be by an archive.
func (c *collector) read(r io.Reader, size int64) ([]byte, error) {
	room := min(maxFile, c.limit-c.total)
	if size > room {
		return nil, errTooLarge
	}
	var parts [][]byte // one buffer that doubles would take three times as much
	for n := size + 1; ; n = 1 << 20 {
		var b bytes.Buffer
		b.Grow(int(n) + bytes.MinRead)
		got, err := io.CopyN(&b, r, n)
		parts, room = append(parts, b.Bytes()), room-got
		switch {
		case room < 0:
			return nil, errTooLarge
		case errors.Is(err, io.EOF):
			return c.join(parts), nil
		case err != nil:
			return nil, err
		}
	}
}

func (c *collector) join(parts [][]byte) []byte {
	data := parts[0]
	if len(parts) > 1 {
		data = bytes.Join(parts, nil)
	}
	c.total += int64(len(data))
	return data
}

// dirs sorts the files into snapshots, in the order of their directories' names.
func (c *collector) dirs(base string) ([]*Dir, error) {
	byDir := map[string]*Dir{}
	var stray []string
	for p, data := range c.files {
		dir, name, known := splitName(p)
		if !known || c.better(dir, name, p) {
			if path.Base(p) != "demo.json" && p != LabFile { // tells about a demo, not about its host
				stray = append(stray, p)
			}
			continue
		}
		if byDir[dir] == nil {
			byDir[dir] = &Dir{Name: base, Files: map[string][]byte{}}
			if dir != "." {
				byDir[dir].Name = path.Base(dir)
			}
		}
		byDir[dir].Files[name] = data
	}
	if c.files[LabFile] != nil {
		return c.lab(byDir)
	}
	if len(byDir) == 0 {
		return nil, fmt.Errorf("%s: there is no file of a snapshot in it (iptables-save, ip-rule.json, "+
			"ip-route ...)", c.name)
	}
	giveStray(byDir, stray)
	return sortedDirs(byDir), nil
}

// better tells whether another file is there that holds what this one does under another
// name: the name that comes first in the alphabet counts, the canonical one before all.
func (c *collector) better(dir, name, p string) bool {
	if _, ok := c.files[path.Join(dir, name)]; ok {
		return path.Join(dir, name) != p
	}
	for other, canonical := range names {
		if _, ok := c.files[path.Join(dir, other)]; ok && canonical == name &&
			path.Join(dir, other) < p {
			return true
		}
	}
	return false
}

// giveStray notes files that nobody reads with the snapshot that they lie in.
func giveStray(byDir map[string]*Dir, stray []string) {
	slices.Sort(stray)
	for _, p := range stray {
		for d := path.Dir(p); ; d = path.Dir(d) {
			if dir := byDir[d]; dir != nil {
				dir.Unread = append(dir.Unread, strings.TrimPrefix(p, d+"/"))
				break
			}
			if d == "." || d == "/" {
				break
			}
		}
	}
}

func sortedDirs(byDir map[string]*Dir) []*Dir {
	var keys []string
	for k := range byDir {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var out []*Dir
	for _, k := range keys {
		out = append(out, byDir[k])
	}
	return out
}

// readSingle reads one file and finds out what it is.
func readSingle(name string, r io.Reader, size int64) ([]*Dir, error) {
	data, err := newCollector(name).read(r, size)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	kind, ok := knownName(filepath.Base(name))
	if !ok {
		kind = sniff(data)
	}
	if kind == "" {
		return nil, fmt.Errorf("%s: it is not known what this file holds: expected what a tool "+
			"like iptables-save, ip rule, ip route, ipset save or ipvsadm -L -n prints", name)
	}
	// Errors name the file as it was given.
	return []*Dir{{Name: "host", Files: map[string][]byte{kind: data}, Single: name}}, nil
}

// sniff tells a file by its first lines; empty when it can't.
func sniff(data []byte) string {
	head := string(data[:min(len(data), 4096)])
	for line := range strings.Lines(head) {
		line = strings.TrimSpace(line)
		switch {
		case strings.Contains(line, "Generated by ip6tables"):
			return "ip6tables-save"
		case strings.HasPrefix(line, "IP Virtual Server version"),
			strings.HasPrefix(line, "Prot LocalAddress:Port"):
			return "ipvs"
		case strings.HasPrefix(line, "-A -"), strings.HasPrefix(line, "ipvsadm -A "):
			return "ipvsadm-save"
		case strings.HasPrefix(line, "*"), strings.Contains(line, "Generated by iptables"),
			strings.HasPrefix(line, ":"), strings.HasPrefix(line, "-A "):
			return "iptables-save"
		case strings.HasPrefix(line, "create "), strings.HasPrefix(line, "add "),
			strings.HasPrefix(line, "Name: "):
			return "ipset-save"
		case strings.HasPrefix(line, "net.") && strings.Contains(line, "="):
			return "sysctl"
		case strings.Contains(line, "lookup ") && strings.Contains(line, "from "):
			return "ip-rule.json"
		case strings.Contains(line, " dev ") && !strings.Contains(line, "lladdr"):
			return "ip-route"
		}
	}
	return ""
}
