package wrapper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

// stateDir is where the composed libraries lie: as configured, else the first
// candidate on a file system that executes. Debian and Ubuntu mount /run
// noexec, and a library from there cannot be loaded.
func (c Config) stateDir() (string, error) {
	candidates := []string{c.StateDir}
	if c.StateDir == "" {
		var err error
		if candidates, err = stateDirs(os.Geteuid(), os.Getenv, "/proc/self/uid_map"); err != nil {
			return "", err
		}
	}
	return firstExecutable(candidates, isNoExec)
}

// stateDirs lists candidates: of the system for root of the host, else the
// user's, as the runtime of a rootless Podman is root of a user namespace only.
// What vanishes with the power comes first.
func stateDirs(euid int, getenv func(string) string, uidMap string) ([]string, error) {
	m, err := os.ReadFile(uidMap)
	if err != nil {
		return nil, fmt.Errorf("reading user namespace: %w", err)
	}
	if f := strings.Fields(string(m)); euid == 0 && len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295" {
		return []string{"/run/ccrun", "/var/lib/ccrun/run"}, nil
	}
	var dirs []string
	if d := getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(d) {
		dirs = append(dirs, filepath.Join(d, "ccrun"))
	}
	switch data, home := getenv("XDG_DATA_HOME"), getenv("HOME"); {
	case filepath.IsAbs(data):
		dirs = append(dirs, filepath.Join(data, "ccrun", "run"))
	case filepath.IsAbs(home):
		dirs = append(dirs, filepath.Join(home, ".local/share/ccrun/run"))
	}
	if dirs == nil {
		return nil, errors.New("neither XDG_RUNTIME_DIR nor HOME is set, of which a rootless runtime needs one")
	}
	return dirs, nil
}

func firstExecutable(dirs []string, noExec func(string) (bool, error)) (string, error) {
	var all []error
	for _, dir := range dirs {
		forbidden, err := noExec(dir)
		switch {
		case err != nil:
			all = append(all, err)
		case forbidden:
			all = append(all, fmt.Errorf("%s is on a file system mounted noexec", dir))
		default:
			return dir, nil
		}
	}
	return "", hint.With(fmt.Errorf("finding a directory for the firmware library: %w", errors.Join(all...)),
		`name a directory on a file system that executes in %s: {"state_dir":"/path"}`, ConfigPath)
}

// isNoExec says whether nothing below dir can be executed. dir need not exist:
// then its nearest ancestor decides.
func isNoExec(dir string) (bool, error) {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if err == nil {
			return st.Flags&unix.ST_NOEXEC != 0, nil
		}
		if !errors.Is(err, unix.ENOENT) || dir == filepath.Dir(dir) {
			return false, &os.PathError{Op: "statfs", Path: dir, Err: err}
		}
		dir = filepath.Dir(dir)
	}
}
