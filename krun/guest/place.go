package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// What the agent keeps for the workload is in its own root, where the workload has
// no path to, and is shown to it read-only: it cannot change there what is another's
// word, or listen in another's place.
const (
	// serviceDir is the service's; the workload sees it at serviceSeen.
	serviceDir  = "/service"
	serviceSeen = "/run/ccrun"
	// secretsMount is the file system of the workload's secrets.
	secretsMount = "/secrets"
	// secretsOptions bound what is kept there: MaxSecretsBytes, rounded up to pages
	// for each file, and as much again while files are replaced.
	secretsOptions = "mode=0755,size=8m,nr_inodes=4096"
)

// openPlace is a directory of the agent's root, before the stage leaves that.
func openPlace(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, classed(classInternal, fmt.Errorf("opening %s: %w", dir, err))
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// showPlace mounts such a directory, if there is one, where the workload sees it.
func showPlace(place *os.File, at string) error {
	if place == nil {
		return nil
	}
	defer func() { _ = place.Close() }()
	if err := os.MkdirAll(at, 0o755); err != nil {
		return classed(classDirectory, err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", place.Fd()), at, "", unix.MS_BIND, ""); err != nil {
		return classed(classDirectory, err)
	}
	return classed(classDirectory, unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|noExec, ""))
}
