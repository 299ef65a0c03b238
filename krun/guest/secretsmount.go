package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// secretsMount is the file system of the workload's secrets, in the agent's own
// root, where the workload has no path to: it sees a read-only mount of it.
const secretsMount = "/secrets"

// secretsOptions bound what is kept there: MaxSecretsBytes, rounded up to pages
// for each file, and as much again while files are replaced.
const secretsOptions = "mode=0755,size=8m,nr_inodes=4096"

// openSecrets is the file system of secrets, before the stage leaves the agent's
// root.
func openSecrets() (*os.File, error) {
	fd, err := unix.Open(secretsMount, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, classed(classInternal, fmt.Errorf("opening %s: %w", secretsMount, err))
	}
	return os.NewFile(uintptr(fd), secretsMount), nil
}

// showSecrets lets the workload read them at dir. It cannot write there: what is
// there is the key server's word.
func showSecrets(secrets *os.File, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return classed(classDirectory, err)
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", secrets.Fd()), dir, "", unix.MS_BIND, ""); err != nil {
		return classed(classDirectory, err)
	}
	return classed(classDirectory, unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|noExec, ""))
}
