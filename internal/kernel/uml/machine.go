package uml

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// program is Debian's kernel; its modules lie under moduleDir.
const (
	program   = "linux.uml"
	moduleDir = "/usr/lib/uml/modules"
)

// Options say what a machine is like.
type Options struct {
	// Memory is in MiB; 0 means 256.
	Memory int
	// Modules are loaded besides those that every machine loads, by name: ipip, fou.
	Modules []string
	// Log gets what the kernel prints. Nil drops it.
	Log io.Writer
}

// Machine is a running kernel. Its methods may be called by several goroutines;
// requests are served one after the other.
type Machine struct {
	process *exec.Cmd
	wire    net.Conn
	out     *gob.Encoder
	in      *gob.Decoder
	ended   chan error

	mu     sync.Mutex
	broken error // why no further request can be made
}

// Usable says why no machine can be booted here; nil if nothing speaks against it.
func Usable() error {
	if _, err := exec.LookPath(program); err != nil {
		return fmt.Errorf("the Debian package user-mode-linux is needed: %w", err)
	}
	if all, _ := filepath.Glob(moduleDir + "/*/modules.dep"); len(all) != 1 {
		return fmt.Errorf("%s has %d versions of modules, not 1", moduleDir, len(all))
	}
	return nil
}

// Boot starts a machine and waits until it serves. The calling program must call Main
// first of all when it starts.
func Boot(ctx context.Context, o Options) (*Machine, error) {
	if err := Usable(); err != nil {
		return nil, err
	}
	m := &Machine{ended: make(chan error, 1)}
	if err := m.start(&o); err != nil {
		return nil, err
	}
	if err := m.greet(ctx, o.Modules); err != nil {
		return nil, errors.Join(fmt.Errorf("boot %s: %w", program, err), m.Close())
	}
	return m, nil
}

// arguments are the kernel's command line. What takes most of the boot is left out:
// terminals nobody opens (each device starts a program that does not exist,
// CONFIG_UEVENT_HELPER), file systems, the measuring of the delay loop.
func arguments(self string, memory int) []string {
	if memory == 0 {
		memory = 256
	}
	return []string{"sh", program, fmt.Sprintf("mem=%dM", memory),
		"root=none", "rootfstype=hostfs", "rootflags=/", "ro",
		"init=" + self, initVariable + "=1", "quiet",
		"con=null", "con0=null,fd:1", "con1=fd:3",
		"lpj=20000000", "lsm=", "initcall_blacklist=pty_init,ssl_init,init_zswap," +
			"init_btrfs_fs,init_jfs_fs,init_xfs_fs,make_umid_init,mconsole_init," +
			"raid6_select_algo,calibrate_xor_blocks"}
}

func (m *Machine) start(o *Options) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "wire"), os.NewFile(uintptr(pair[1]), "wire")
	defer theirs.Close()
	m.wire, err = net.FileConn(ours)
	ours.Close()
	if err != nil {
		return err
	}
	m.out, m.in = gob.NewEncoder(&pacer{wire: m.wire}), gob.NewDecoder(m.wire)
	cmd := exec.Command("sh", append([]string{"-c", `"$@"; exit`}, arguments(self, o.Memory)...)...)
	cmd.Stdout, cmd.ExtraFiles = o.Log, []*os.File{theirs}
	cmd.SysProcAttr = apart()
	m.process = cmd
	started := make(chan error)
	go m.watch(started)
	return <-started
}

// apart is a PID namespace, whose processes all end with its first, a shell: else those
// that run the machine's programs would outlive a killed kernel. The kernel is not the
// first, since it ends itself by SIGABRT when it panics, and the first process of a
// namespace ignores that. A user who is not root needs a user namespace for it.
func apart() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL,
		Cloneflags: syscall.CLONE_NEWPID}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		a.Cloneflags |= syscall.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: uid, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: gid, HostID: gid, Size: 1}}
	}
	return a
}

// watch starts the process and waits for its end, on a thread that stays: the death
// of the thread that started it would be the death of the parent (prctl(2)).
func (m *Machine) watch(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := m.process.Start()
	started <- err
	if err != nil {
		return
	}
	err = m.process.Wait()
	m.wire.Close()
	m.ended <- err
}

// Close ends the machine.
func (m *Machine) Close() error {
	m.wire.Close()
	err := m.process.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-m.ended
	return err
}

// callTime is when a machine that does not answer counts as hung.
const callTime = 2 * programTime

// call makes a request and waits for the reply. A request that was begun and not
// answered (ctx is done) leaves the machine broken.
func (m *Machine) call(ctx context.Context, q *request) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.broken != nil {
		return nil, m.broken
	}
	stop := context.AfterFunc(ctx, func() { m.wire.Close() })
	defer stop()
	var r reply
	err := m.out.Encode(q)
	if err == nil {
		err = m.in.Decode(&r)
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		m.broken = fmt.Errorf("the machine does not answer: %w", err)
		return nil, m.broken
	}
	return &r, r.err()
}

// greet waits for the machine's first word, since what is written before would be read
// as by a terminal, and has it load modules.
func (m *Machine) greet(ctx context.Context, modules []string) error {
	stop := context.AfterFunc(ctx, func() { m.wire.Close() })
	var ready reply
	err := m.in.Decode(&ready)
	if !stop() {
		return context.Cause(ctx)
	}
	if err == nil {
		_, err = m.call(ctx, &request{Op: opLoad, Args: modules})
	}
	return err
}

// Exec runs a program inside the machine and returns what it prints. The error of a
// program that failed has what it printed on standard error.
func (m *Machine) Exec(ctx context.Context, stdin string, args ...string) (string, error) {
	if len(args) == 0 {
		return "", errors.New("no program to run")
	}
	r, err := m.call(ctx, &request{Op: opExec, Args: args, Text: stdin})
	if err != nil {
		return "", fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return r.Text, nil
}
