package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	// serviceDir is in the agent's root; the workload sees it at serviceSeen.
	serviceDir  = "/service"
	serviceSeen = "/run/ccrun"
)

// openPlace is a directory of the agent's root, before the stage leaves that.
func openPlace(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", dir, err)
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// showPlace mounts such a directory where the workload sees it, read-only.
func showPlace(place *os.File, at string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", place.Fd()), at, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|noExec, "")
}
