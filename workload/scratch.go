package workload

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/transports/alltransports"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

const (
	scratchPattern = "ccrun-build-"
	scratchGrace   = 2 * time.Second
)

// scratch is a build's private directory for what the containers libraries
// want to put in named temporary files, all of it ciphertext. It is locked
// while the build lives; what a killed build left is removed by the next.
type scratch struct {
	dir  string
	lock *os.File
}

// bigFilesDir is where Podman and its libraries put big temporary files.
func bigFilesDir() string {
	if d := os.Getenv("TMPDIR"); d != "" {
		return d
	}
	return "/var/tmp"
}

// scratchDir makes one if the destination is local storage: the library
// collects a layer in a named file before it imports it. Nothing else needs
// names for what it keeps for a while.
func (o *Options) scratchDir() (*scratch, error) {
	sweepScratch(o.TempDir)
	o.System.BigFilesTemporaryDir = o.TempDir
	t := alltransports.TransportFromImageName(o.Destination)
	if t != nil && t.Name() != istorage.Transport.Name() {
		return nil, nil
	}
	s, err := newScratch(o.TempDir)
	if err == nil {
		o.System.BigFilesTemporaryDir = s.dir
	}
	return s, err
}

func newScratch(parent string) (*scratch, error) {
	dir, err := os.MkdirTemp(parent, scratchPattern)
	if err != nil {
		return nil, hint.With(fmt.Errorf("making temporary directory: %w", spaceError(parent, err)), "let TMPDIR name a writable directory")
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking temporary directory: %w", err), os.RemoveAll(dir))
	}
	return &scratch{dir, lock}, nil
}

// lockDir takes an exclusive lock on a directory, failing if it is taken.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// sweepScratch removes the directories of builds that no longer run. Young
// ones stay: a build that has made its directory may not have locked it yet.
func sweepScratch(parent string) {
	dirs, err := filepath.Glob(filepath.Join(parent, scratchPattern+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || !ownedByUs(info) || time.Since(info.ModTime()) < scratchGrace {
			continue
		}
		if lock, err := lockDir(dir); err == nil {
			_ = os.RemoveAll(dir)
			_ = lock.Close()
		}
	}
}

// Close removes the directory. A nil scratch has none.
func (s *scratch) Close() error {
	if s == nil {
		return nil
	}
	return errors.Join(os.RemoveAll(s.dir), s.lock.Close())
}

// ownedByUs keeps us from removing what another user made under our name.
func ownedByUs(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
