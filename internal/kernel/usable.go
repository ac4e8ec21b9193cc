package kernel

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// Usable says why this machine's kernel cannot be asked; nil if nothing speaks against
// it. Open may still find that the kernel lacks what a scenario needs.
func Usable() error {
	if os.Geteuid() != 0 {
		return errors.New("only root can ask the kernel: a network namespace has to be made")
	}
	for path, what := range map[string]string{
		"/proc/self/ns/net": "network namespaces",
		"/dev/net/tun":      "TUN and TAP devices",
	} {
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("this kernel has no %s: %w", what, err)
		}
	}
	if _, err := exec.LookPath("ip"); err != nil {
		return fmt.Errorf("the tool ip is needed: %w", err)
	}
	return nil
}

// Release is the version of this machine's kernel, as uname -r prints it.
func Release() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(name.Release[:]), nil
}

// HasSetting reports whether this machine has a sysctl, by its key with dots.
func HasSetting(key string) bool {
	path := sysctlPath(key)
	_, err := os.Stat("/proc/sys/" + path)
	return err == nil && !strings.Contains(path, "/..")
}
