package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Live takes a snapshot of this machine's present network namespace. It only asks:
// nothing is changed, and no module is loaded. A tool that fails leaves FILE.err.
func Live() (*Dir, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	d := &Dir{Name: host, Files: map[string][]byte{}}
	m := findModules()
	var absent []string
	for _, c := range commands {
		if missing := m.missing(&c); missing != "" {
			absent = append(absent, missing)
			continue
		}
		if _, done := d.Files[c.file]; !done {
			d.collect(c)
		}
	}
	if len(d.Files) == 0 {
		return nil, errors.New("none of the tools ip, iptables-save, ss, sysctl could be run")
	}
	for _, kind := range []string{"recent", "hashlimit"} {
		d.procFiles(kind)
	}
	slices.Sort(absent)
	return d, d.describe(host, slices.Compact(absent))
}

// modules are the parts of the kernel that are there already.
type modules struct {
	fixed   bool   // the kernel can't load any
	builtin string // modules.builtin
}

func findModules() modules {
	_, err := os.Stat("/proc/modules")
	m := modules{fixed: err != nil}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		dir := "/lib/modules/" + strings.TrimSpace(string(release))
		if list, err := os.ReadFile(dir + "/modules.builtin"); err == nil {
			m.builtin = string(list)
		}
	}
	return m
}

// missing is what a tool would load by being asked, empty for nothing.
func (m modules) missing(c *command) string {
	if c.path != "" {
		if _, err := os.Stat(c.path); err != nil {
			return strings.TrimSuffix(filepath.Base(c.path), "_names")
		}
	}
	for _, name := range c.modules {
		if !m.loaded(name) {
			return name
		}
	}
	return ""
}

func (m modules) loaded(name string) bool {
	if m.fixed || strings.Contains(m.builtin, "/"+name+".ko") {
		return true
	}
	_, err := os.Stat("/sys/module/" + name)
	return err == nil
}

// collect runs a tool. A tool that is not installed leaves nothing where nobody
// needs it, one that fails its message.
func (d *Dir) collect(c command) {
	path, err := exec.LookPath(c.args[0])
	if err != nil {
		if c.path != "" {
			d.Files[c.file+".err"] = []byte(err.Error() + "\n")
		}
		return
	}
	cmd := exec.Command(path, c.args[1:]...)
	if c.env != "" {
		cmd.Env = append(os.Environ(), c.env)
	}
	var out, msg bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &msg
	// sysctl fails for keys that can't be read, and prints all others.
	if err := cmd.Run(); err != nil && (c.args[0] != "sysctl" || out.Len() == 0) {
		d.Files[c.file+".err"] = append(bytes.TrimSpace(msg.Bytes()), '\n')
		return
	}
	delete(d.Files, c.file+".err")
	if strings.HasPrefix(c.file, "foreign/") && out.Len() == 0 {
		return
	}
	d.Files[c.file] = out.Bytes()
}

// procFiles reads the lists of xt_recent and the tables of xt_hashlimit.
func (d *Dir) procFiles(kind string) {
	dir := map[string]string{"recent": "/proc/net/xt_recent", "hashlimit": "/proc/net/ipt_hashlimit"}
	entries, err := os.ReadDir(dir[kind])
	if err != nil {
		return
	}
	for _, e := range entries {
		if data, err := os.ReadFile(filepath.Join(dir[kind], e.Name())); err == nil {
			d.Files["xt/"+kind+"/"+e.Name()] = data
		}
	}
}

// describe writes meta.json.
func (d *Dir) describe(host string, absent []string) error {
	m := Meta{Host: host, Time: time.Now().UTC().Format(time.RFC3339Nano), Absent: absent}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	m.HZ = kernelHZ()
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	d.Files["meta.json"] = append(b, '\n')
	return nil
}

// kernelHZ finds CONFIG_HZ in the configuration of the running kernel; zero when it
// is not there to be read.
func kernelHZ() int {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return 0
	}
	conf, err := os.ReadFile("/boot/config-" + strings.TrimSpace(string(b)))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(conf)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "CONFIG_HZ="); ok {
			n, _ := strconv.Atoi(v)
			return n
		}
	}
	return 0
}

// Write writes the snapshot's files into a directory, which must be new or empty.
func (d *Dir) Write(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty", dir)
	}
	for name, data := range d.Files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, data, 0o644); err != nil {
			return err
		}
	}
	return nil
}
