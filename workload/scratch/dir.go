// Package scratch keeps what must not be seen before its time, or at all:
// encrypted spools without a name, files that get their name when they are
// whole, and directories that the next build removes if this one is killed.
package scratch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containers/image/v5/types"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

// Pattern is how the name of everything begins that a killed build may leave
// behind, and Grace the age below which it is not removed: its build may be
// about to lock it.
const (
	Pattern = "ccrun-build-"
	Grace   = 2 * time.Second
)

// Dir is a build's private directory for what the containers libraries
// want to put in named temporary files, all of it ciphertext. It is locked
// while the build lives; what a killed build left is removed by the next.
type Dir struct {
	Path string
	lock *os.File
}

// DefaultDir is where Podman and its libraries put big temporary files.
func DefaultDir() string {
	if d := os.Getenv("TMPDIR"); d != "" {
		return d
	}
	return "/var/tmp"
}

// NewDir makes one in parent.
func NewDir(parent string) (*Dir, error) {
	dir, err := os.MkdirTemp(parent, Pattern)
	if err != nil {
		return nil, hint.With(fmt.Errorf("making temporary directory: %w", SpaceError(parent, err)), "let TMPDIR name a writable directory")
	}
	lock, err := Lock(dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking temporary directory: %w", err), os.RemoveAll(dir))
	}
	return &Dir{dir, lock}, nil
}

// Lock takes an exclusive lock on a directory, failing if it is taken.
func Lock(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Sweep removes the directories of builds that no longer run. Young
// ones stay: a build that has made its directory may not have locked it yet.
func Sweep(parent string) {
	dirs, err := filepath.Glob(filepath.Join(parent, Pattern+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		if err != nil || !info.IsDir() || !ownedByUs(info) || time.Since(info.ModTime()) < Grace {
			continue
		}
		if lock, err := Lock(dir); err == nil {
			_ = os.RemoveAll(dir)
			_ = lock.Close()
		}
	}
}

// Close removes the directory. A nil scratch has none.
func (s *Dir) Close() error {
	if s == nil {
		return nil
	}
	return errors.Join(os.RemoveAll(s.Path), s.lock.Close())
}

// ownedByUs keeps us from removing what another user made under our name.
func ownedByUs(info os.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// DirOf is where scratch files go.
func DirOf(sys *types.SystemContext) string {
	if sys != nil && sys.BigFilesTemporaryDir != "" {
		return sys.BigFilesTemporaryDir
	}
	return DefaultDir()
}
