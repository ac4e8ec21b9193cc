package kernel

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// thread is an OS thread pinned to one CPU. It belongs to a run, enters the
// run's namespaces and ends with it: a thread that changed its namespace or its
// credentials must not serve anything else.
type thread struct {
	cpu  int
	jobs chan func()
}

// startThread starts a thread on the CPU that the caller runs on, so that the
// tests of several runs spread as the scheduler spreads their goroutines.
func startThread() (*thread, error) {
	t := &thread{jobs: make(chan func())}
	started := make(chan error)
	go t.serve(started)
	if err := <-started; err != nil {
		return nil, err
	}
	return t, nil
}

func (t *thread) serve(started chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	err := t.pin()
	started <- err
	if err != nil {
		return
	}
	for job := range t.jobs {
		job()
	}
}

func (t *thread) pin() error {
	var cpu uint32
	_, _, errno := unix.Syscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&cpu)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("getcpu: %w", errno)
	}
	t.cpu = int(cpu)
	var set unix.CPUSet
	set.Set(t.cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin thread to cpu %d: %w", t.cpu, err)
	}
	return nil
}

// do runs f on the thread and waits for it.
func (t *thread) do(f func() error) error {
	done := make(chan error, 1)
	t.jobs <- func() { done <- f() }
	return <-done
}

func (t *thread) stop() { close(t.jobs) }

// newNamespace makes a network namespace, leaves the calling thread in it, and
// returns the descriptor that keeps it alive.
func newNamespace() (int, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return -1, fmt.Errorf("new network namespace: %w", err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("new network namespace: %w", err)
	}
	return fd, nil
}

// tool runs a program in the calling thread's namespace.
func tool(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(errs.String())
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, text)
	}
	return out.String(), nil
}

// backlog watches the queue of packets that wait for this CPU's softirq:
// netif_rx puts the packets of lo and local copies of multicasts there.
type backlog struct {
	file *os.File
	cpu  int
	buf  []byte
}

func openBacklog(cpu int) (*backlog, error) {
	f, err := os.Open("/proc/thread-self/net/softnet_stat")
	if err != nil {
		return nil, err
	}
	return &backlog{file: f, cpu: cpu, buf: make([]byte, 1<<14)}, nil
}

// Fields of a softnet_stat line: net/core/net-procfs.c, softnet_seq_show.
const (
	softnetBacklog = 11
	softnetCPU     = 12
)

// empty reports whether nothing waits. The thread is pinned and a softirq is
// not preempted, so what does not wait here is done.
func (b *backlog) empty() (bool, error) {
	n, err := b.file.ReadAt(b.buf, 0)
	if n == 0 {
		return false, fmt.Errorf("softnet_stat: %w", err)
	}
	for line := range strings.Lines(string(b.buf[:n])) {
		fields := strings.Fields(line)
		if len(fields) <= softnetCPU {
			return false, fmt.Errorf("softnet_stat has %d fields", len(fields))
		}
		cpu, err := strconv.ParseUint(fields[softnetCPU], 16, 32)
		if err != nil {
			return false, fmt.Errorf("softnet_stat: %w", err)
		}
		if int(cpu) == b.cpu {
			return strings.Trim(fields[softnetBacklog], "0") == "", nil
		}
	}
	return false, fmt.Errorf("softnet_stat does not list cpu %d", b.cpu)
}

// drain waits until nothing waits, giving the CPU to ksoftirqd in between.
func (b *backlog) drain(ctx context.Context) error {
	for {
		done, err := b.empty()
		if done || err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, _, errno := unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0); errno != 0 {
			return errno
		}
	}
}
