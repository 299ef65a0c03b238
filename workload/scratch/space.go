package scratch

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

// ErrNoSpace reports a full file system or an exhausted quota.
var ErrNoSpace = errors.New("no space left")

// SpaceError names the file system of path when err says that it is full.
func SpaceError(path string, err error) error {
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
	return hint.With(fmt.Errorf("writing to the file system of %s%s: %w: %w", path, free, ErrNoSpace, err),
		"free some space there; scratch files go where TMPDIR says, else to /var/tmp")
}
