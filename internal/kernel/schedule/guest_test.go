package schedule

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/hookpath/hookpath/internal/kernel/uml"
)

// guestVariable is set where this program runs inside the machine.
const guestVariable = "hookpath_schedule_guest"

func TestMain(m *testing.M) {
	uml.Main()
	if os.Getenv(guestVariable) == "" {
		os.Exit(m.Run())
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// job is what the guest does in a namespace of its own: services for ipvsadm, and packets
// that programs send.
type job struct {
	Services string
	Packets  []sent
}

// sent is an IP packet that a program sends, with the mark of its socket.
type sent struct {
	Bytes []byte
	Mark  int
}

// result is what the kernel says after a job: the files ip_vs and ip_vs_conn.
type result struct{ Services, Conns string }

// serve does the jobs of standard input.
func serve() error {
	var jobs []job
	if err := json.NewDecoder(os.Stdin).Decode(&jobs); err != nil {
		return err
	}
	out := make([]result, len(jobs))
	for i := range jobs {
		done := make(chan error)
		go func() {
			runtime.LockOSThread() // and the thread ends with its namespace
			done <- jobs[i].do(&out[i])
		}()
		if err := <-done; err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

// do does one job in a new namespace: all addresses are reached over a dummy device.
func (j *job) do(r *result) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	setup := "link set lo up\nlink add d0 type dummy\nlink set d0 up\n" +
		"addr add 10.255.0.1/24 dev d0\nroute add default dev d0\n"
	if err := run(setup, "ip", "-batch", "-"); err != nil {
		return err
	}
	if err := run(j.Services, "ipvsadm", "-R"); err != nil {
		return err
	}
	if err := j.send(); err != nil {
		return err
	}
	return r.read()
}

func run(stdin string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", args, err, out)
	}
	return nil
}

// send sends the packets as a program with a raw socket does.
func (j *job) send() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	mark := 0
	for _, p := range j.Packets {
		if p.Mark != mark {
			mark = p.Mark
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, mark); err != nil {
				return err
			}
		}
		to := &unix.SockaddrInet4{Addr: [4]byte(p.Bytes[16:20])}
		// EPERM tells that IPVS dropped it, which is no error here.
		if err := unix.Sendto(fd, p.Bytes, 0, to); err != nil && err != unix.EPERM {
			return fmt.Errorf("send to %v: %w", to.Addr, err)
		}
	}
	return nil
}

func (r *result) read() error {
	services, err := os.ReadFile("/proc/thread-self/net/ip_vs")
	if err != nil {
		return err
	}
	conns, err := os.ReadFile("/proc/thread-self/net/ip_vs_conn")
	r.Services, r.Conns = string(services), string(conns)
	return err
}
