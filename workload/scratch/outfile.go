package scratch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/hint"
)

// Exists says whether path is there, also as a dangling link.
func Exists(path string) (bool, error) {
	_, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// IgnoreExist takes it for success that a file is there already, for names
// that say what is in the file: a blob under its digest is the same blob.
func IgnoreExist(err error) error {
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// OutFile has no name until all of it is there and synced, so that a killed
// build leaves nothing and nobody sees half a file. Where the file system has
// no O_TMPFILE it has a hidden name until then.
type OutFile struct {
	File *os.File
	temp string
}

// NewOutFile makes one on the file system of dir, which need not exist yet.
func NewOutFile(dir string) (*OutFile, error) {
	dir = existing(dir)
	f, temp, err := unnamed(dir)
	if err != nil {
		return nil, hint.With(fmt.Errorf("making output file: %w", SpaceError(dir, err)), "check that %s is writable", dir)
	}
	return &OutFile{f, temp}, nil
}

// unnamed makes a file without a name. Where the file system cannot do that it
// has one, temp.
func unnamed(dir string) (f *os.File, temp string, err error) {
	f, err = os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return f, "", err
	}
	if f, err = os.CreateTemp(dir, ".ccrun-"); err != nil {
		return nil, "", err
	}
	return f, f.Name(), nil
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

// Publish syncs the file and gives it its name. An existing empty file is
// replaced, as mktemp(1) makes them; any other is an error.
func (o *OutFile) Publish(path string, mode os.FileMode) error {
	if err := o.File.Chmod(mode); err != nil {
		return err
	}
	if err := o.File.Sync(); err != nil {
		return SpaceError(path, err)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() && st.Size() == 0 {
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	if err := o.Link(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Link gives the file a name, which must not exist.
func (o *OutFile) Link(path string) error {
	from := o.temp
	if from == "" {
		from = "/proc/self/fd/" + strconv.Itoa(int(o.File.Fd()))
	}
	if err := unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.PathError{Op: "link", Path: path, Err: err}
	}
	return nil
}

// Close drops the file unless it was published.
func (o *OutFile) Close() error {
	var err error
	if o.temp != "" {
		err = os.Remove(o.temp)
	}
	return errors.Join(err, o.File.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// WriteFile makes path, which must not exist, with content, durably.
func WriteFile(path string, content []byte, mode os.FileMode) error {
	o, err := NewOutFile(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer o.Close()
	if _, err := o.File.Write(content); err != nil {
		return SpaceError(path, err)
	}
	return o.Publish(path, mode)
}

// ReplaceFile is writeFile for a path that may exist: readers see the old or
// the new content, never anything between.
func ReplaceFile(path string, content []byte, mode os.FileMode) error {
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
		return errors.Join(SpaceError(path, err), os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}
