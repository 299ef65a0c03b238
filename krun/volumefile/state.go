package volumefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/krun/crun"
)

const (
	stateSuffix   = ".json"
	maxStateBytes = 16 << 10
	stateVersion  = 1
)

// state is in a file beside the volume file: who has it, and whose copy of
// disk.img is in it. Whoever changes it holds a lock on that file meanwhile; for
// as long as a machine runs no lock could be held, since the runtime becomes crun,
// which closes what it does not know.
type state struct {
	VolumeFile int    `json:"volume_file"` // stateVersion: we made what is beside it
	Container  string `json:"container,omitempty"`
	StateRoot  string `json:"state_root,omitempty"` // crun's, where it keeps the container's
	PID        int    `json:"pid,omitempty"`        // of the runtime that creates it
	Start      uint64 `json:"start,omitempty"`
	Boot       string `json:"boot,omitempty"` // of the host, when that was
	// Head is the container whose disk.img is in the file.
	Head string `json:"head,omitempty"`
}

// held says whether a machine has the file, or is about to: the process that
// creates the container lives, or what crun started for it.
func (s *state) held() bool {
	if s.Container == "" || s.Boot != bootID() {
		return false
	}
	return crun.IsProcess(s.PID, s.Start) || crun.Command{Root: s.StateRoot, ID: s.Container}.Lives()
}

func bootID() string {
	b, err := bounded.File("/proc/sys/kernel/random/boot_id", 64)
	if err != nil {
		return "unknown"
	}
	return string(b)
}

// readState is the zero state where there is none, or one that a crash left in
// pieces: then nobody has the file.
func readState(path string) (s state, err error) {
	b, err := bounded.Regular(path+stateSuffix, maxStateBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, fmt.Errorf("reading who has the volume file: %w", err)
	}
	if json.Unmarshal(b, &s) != nil {
		return state{}, nil
	}
	return s, nil
}

// whileFree does something to a volume file that no machine has, and keeps others
// from it meanwhile. What do leaves in the state is kept.
func whileFree(path string, do func(*state) error) error {
	f, err := lockState(path + stateSuffix)
	if err != nil {
		return fmt.Errorf("locking the volume file: %w", err)
	}
	defer func() { _ = f.Close() }()
	s, err := readState(path)
	if err != nil {
		return err
	}
	if s.held() {
		return hint.With(fmt.Errorf("the volume file %s is attached to container %.12s", path, s.Container), "stop that container first")
	}
	if err := do(&s); err != nil {
		return err
	}
	s.VolumeFile = stateVersion
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	return f.Sync()
}

// lockState opens the file with the state for whoever has it alone, until it is
// closed.
func lockState(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		err = isStill(f, path) // or others lock the one that took its place
	}
	if err != nil {
		return nil, hint.With(errors.Join(err, f.Close()), "another command or container is about to use it: try again")
	}
	return f, nil
}

// isStill is nil if path names the file that f is.
func isStill(f *os.File, path string) error {
	mine, err := f.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(mine, now) {
		return errors.Join(fmt.Errorf("%s was removed or replaced meanwhile", path), err)
	}
	return nil
}
