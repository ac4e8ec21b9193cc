package uml

import (
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"runtime/pprof"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hookpath/hookpath/internal/kernel"
)

// initVariable is in init's environment, since the kernel puts there what it does not
// know of its command line (init/main.c, unknown_bootoption).
const initVariable = "hookpath_uml_init"

// Main serves as the init of a machine, and does not return, where this process is
// one; else it returns at once. Call it first in main or TestMain.
func Main() {
	if os.Getpid() != 1 || os.Getenv(initVariable) == "" {
		return
	}
	fmt.Println("hookpath init:", serve())
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	os.Exit(1)
}

// guest is what init knows.
type guest struct {
	loaded map[string]bool // paths of modules
	runs   map[int]*kernel.Run
	next   int
}

// serve answers requests until there are no more; the error says why it ended.
func serve() error {
	debug.SetGCPercent(400) // a page fault costs more than memory
	os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	os.Setenv("HOME", "/")
	if err := mountAll(); err != nil {
		return err
	}
	wire, err := openWire("/dev/tty1")
	if err != nil {
		return err
	}
	g := &guest{loaded: map[string]bool{}, runs: map[int]*kernel.Run{}}
	in, out := gob.NewDecoder(&consenter{wire: wire}), gob.NewEncoder(wire)
	if err := out.Encode(&reply{}); err != nil {
		return err
	}
	for {
		var q request
		if err := in.Decode(&q); err != nil {
			return err
		}
		var r reply
		late := time.AfterFunc(requestTime, tellStacks)
		r.fail(g.handle(&q, &r))
		late.Stop()
		if err := out.Encode(&r); err != nil {
			return err
		}
	}
}

// requestTime is when a request is so late that something hangs.
const requestTime = 20 * time.Second

// tellStacks prints to the log where everything waits.
func tellStacks() {
	pprof.Lookup("goroutine").WriteTo(os.Stdout, 2)
}

// mountAll makes the tree that tools expect; what they write goes to memory.
func mountAll() error {
	for _, m := range []struct{ kind, at string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"},
		{"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		err := unix.Mount(m.kind, m.at, m.kind, 0, "")
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for _, s := range []struct{ path, value string }{
		{"kernel/hotplug", ""}, {"kernel/modprobe", ""}, // nobody to start for each device
		{"net/core/fb_tunnels_only_for_init_net", "1"},
	} {
		if err := os.WriteFile("/proc/sys/"+s.path, []byte(s.value+"\n"), 0); err != nil {
			return err
		}
	}
	return nil
}

// openWire opens the console of requests, and has it pass every byte as it is.
func openWire(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	raw := &unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B38400}
	raw.Cc[unix.VMIN] = 1
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, raw); err != nil {
		return nil, fmt.Errorf("%s: raw mode: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (g *guest) handle(q *request, r *reply) error {
	switch q.Op {
	case opLoad:
		return g.load(q.Args)
	case opExec:
		return g.exec(q, r)
	case opOpen:
		return g.open(q, r)
	}
	run := g.runs[q.Run]
	if run == nil {
		return fmt.Errorf("no run %d", q.Run)
	}
	return g.handleRun(run, q, r)
}

// open lays a scenario out.
func (g *guest) open(q *request, r *reply) error {
	run, err := kernel.Open(context.Background(), *q.Scenario)
	if err != nil {
		return err
	}
	run.NoFlows = q.NoFlows
	g.next++
	g.runs[g.next], r.Run = run, g.next
	return nil
}

// handleRun serves what is asked of one run.
func (g *guest) handleRun(run *kernel.Run, q *request, r *reply) (err error) {
	switch q.Op {
	case opAsk:
		run.NoFlows = q.NoFlows
		r.Answer, err = run.Ask(*q.Question)
	case opCollect:
		r.Files, err = run.Collect(q.Text)
	case opDump:
		r.Lines, err = run.Dump()
	case opClose:
		delete(g.runs, q.Run)
		err = run.Close()
	default:
		err = fmt.Errorf("unknown request %d", q.Op)
	}
	return err
}

// programTime bounds a program inside the machine.
const programTime = 5 * time.Minute

func (g *guest) exec(q *request, r *reply) error {
	ctx, cancel := context.WithTimeout(context.Background(), programTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, q.Args[0], q.Args[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(q.Text), &out, &errs
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	r.Text = out.String()
	return nil
}
