package endorsements

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ccrun/ccrun/bounded"
)

// Limits on an imported bundle.
const (
	maxBundleFile  = 1 << 20 // bytes; larger files are passed over
	maxBundleFiles = 4096
	maxBundleSize  = 64 << 20
)

// part is one DER structure or JSON document out of a file.
type part struct {
	name    string
	content []byte
	err     error
}

// readSmall is the content of a regular file, or nil if it is too large, or
// something else.
func readSmall(fsys fs.FS, name string) ([]byte, error) {
	// Before opening: to open a named pipe would wait for ever.
	info, err := fs.Stat(fsys, name)
	if errors.Is(err, syscall.ELOOP) {
		return nil, nil // symbolic links that lead nowhere
	}
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxBundleFile {
		return nil, err
	}
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := bounded.Read(f, name, maxBundleFile)
	if errors.Is(err, bounded.ErrTooLarge) {
		return nil, nil // it has grown since
	}
	return content, err
}

// newPrefix is that of files not wholly written yet.
const newPrefix = ".new-"

// walkSmall calls each with every file of fsys; content is nil if readSmall has
// none.
func walkSmall(fsys fs.FS, each func(name string, content []byte) error) error {
	files, total := 0, int64(0)
	return fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if name != "." && (errors.Is(err, fs.ErrNotExist) || strings.HasPrefix(path.Base(name), newPrefix)) {
			return nil // another process is at work
		}
		if err != nil || d.IsDir() {
			return err
		}
		if files++; files > maxBundleFiles {
			return fmt.Errorf("more than %d files", maxBundleFiles)
		}
		content, err := readSmall(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if total += int64(len(content)); total > maxBundleSize {
			return fmt.Errorf("more than %d bytes", maxBundleSize)
		}
		return each(name, content)
	})
}

// writeAtomic makes a file in dir, which it makes too; a crash leaves all of
// it or nothing.
func writeAtomic(dir, name string, content []byte) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, newPrefix+"*")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
