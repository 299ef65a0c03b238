package workload

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// hintError is an error with the next step to take.
type hintError struct {
	err  error
	hint string
}

func (e *hintError) Error() string { return e.err.Error() }
func (e *hintError) Unwrap() error { return e.err }

// Hint says what to do about the error.
func (e *hintError) Hint() string { return e.hint }

func hint(err error, format string, a ...any) error {
	return &hintError{err, fmt.Sprintf(format, a...)}
}

// ErrNoSpace reports a full file system or an exhausted quota.
var ErrNoSpace = errors.New("no space left")

// ErrNeedUserNamespace reports that the containers-storage of an unprivileged
// user must be opened from within that user's user namespace.
var ErrNeedUserNamespace = errors.New("local container storage of an unprivileged user needs its user namespace")

// ErrUsage reports options that contradict each other or are out of range.
var ErrUsage = errors.New("invalid options")

func usagef(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrUsage, fmt.Errorf(format, a...))
}

// spaceError names the file system of path when err says that it is full.
func spaceError(path string, err error) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	var st unix.Statfs_t
	free := ""
	for p := path; unix.Statfs(p, &st) != nil; p = filepath.Dir(p) {
		if p == filepath.Dir(p) {
			break
		}
	}
	if st.Bsize > 0 {
		free = fmt.Sprintf(" (%d MiB free)", st.Bavail*uint64(st.Bsize)>>20)
	}
	return hint(fmt.Errorf("writing to the file system of %s%s: %w: %w", path, free, ErrNoSpace, err),
		"free some space there; scratch files go where TMPDIR says, else to /var/tmp")
}
