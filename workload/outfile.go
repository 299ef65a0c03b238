package workload

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

// outFile has no name until all of it is there and synced, so that a killed
// build leaves nothing and nobody sees half a file. Where the file system has
// no O_TMPFILE it has a hidden name until then.
type outFile struct {
	f    *os.File
	temp string
}

// newOutFile makes one on the file system of dir, which need not exist yet.
func newOutFile(dir string) (*outFile, error) {
	dir = existing(dir)
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return &outFile{f: f}, nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, hint.With(fmt.Errorf("making output file: %w", spaceError(dir, err)), "check that %s is writable", dir)
	}
	if f, err = os.CreateTemp(dir, ".ccrun-"); err != nil {
		return nil, fmt.Errorf("making output file: %w", err)
	}
	return &outFile{f, f.Name()}, nil
}

// existing is dir or its nearest parent that is there.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// publish syncs the file and gives it its name. An existing empty file is
// replaced, as mktemp(1) makes them; any other is an error.
func (o *outFile) publish(path string, mode os.FileMode) error {
	if err := o.f.Chmod(mode); err != nil {
		return err
	}
	if err := o.f.Sync(); err != nil {
		return spaceError(path, err)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() && st.Size() == 0 {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if err := o.link(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// link gives the file a name, which must not exist.
func (o *outFile) link(path string) error {
	from := o.temp
	if from == "" {
		from = "/proc/self/fd/" + strconv.Itoa(int(o.f.Fd()))
	}
	if err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.PathError{Op: "link", Path: path, Err: err}
	}
	return nil
}

// Close drops the file unless it was published.
func (o *outFile) Close() error {
	var err error
	if o.temp != "" {
		err = os.Remove(o.temp)
	}
	return errors.Join(err, o.f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeFile makes path, which must not exist, with content, durably.
func writeFile(path string, content []byte, mode os.FileMode) error {
	o, err := newOutFile(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer o.Close()
	if _, err := o.f.Write(content); err != nil {
		return spaceError(path, err)
	}
	return o.publish(path, mode)
}

// replaceFile is writeFile for a path that may exist: readers see the old or
// the new content, never anything between.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".ccrun-")
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(mode), f.Sync())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(spaceError(path, err), os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}
