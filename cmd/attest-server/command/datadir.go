package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/hint"
)

// The data directory's files.
const (
	storeName     = "store.db"
	caName        = "ca.pem"
	caKeyName     = "ca.key"
	serverName    = "server.pem"
	serverKeyName = "server.key"
)

func dataFlag() cli.Flag {
	return &cli.StringFlag{Name: "data", Value: "/var/lib/attest-server", Usage: "`DIR` with store, master key and TLS identity"}
}

func inDir(dir, name string) string { return filepath.Join(dir, name) }

// owner is what to take the owner of new files in dir from: the store, or the
// directory if the store is in a database.
func owner(dir string) (fs.FileInfo, error) {
	info, err := os.Stat(inDir(dir, storeName))
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(dir)
	}
	return info, err
}

// newDir is a data directory in the making.
type newDir struct {
	path  string
	made  bool     // by us: it was not there
	files []string // names of what we put there, or may have
}

// makeDir makes the directory path, or takes it if it is empty.
func makeDir(path string) (*newDir, error) {
	err := os.Mkdir(path, 0o700)
	if err == nil {
		return &newDir{path: path, made: true}, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("creating data directory: %w", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("creating data directory: %w", err)
	}
	if len(entries) > 0 {
		return nil, hint.With(fmt.Errorf("data directory %s is not empty", path),
			"nothing is overwritten: choose a new one or remove it; if `init` has made it, `attest-server serve --data %s` starts its server", path)
	}
	return &newDir{path: path}, os.Chmod(path, 0o700)
}

// write puts a new file there, with all that from has.
func (d *newDir) write(name string, from io.Reader, mode fs.FileMode) error {
	err := newFile(inDir(d.path, name), mode, func(w io.Writer) error {
		_, err := io.Copy(w, from)
		return err
	})
	if err == nil {
		d.files = append(d.files, name)
	}
	return err
}

// sync makes it last through a power cut.
func (d *newDir) sync() error {
	return errors.Join(syncDir(d.path), syncDir(filepath.Dir(filepath.Clean(d.path))))
}

// undo removes what cause, a failure, left, and nothing else.
func (d *newDir) undo(cause error) error {
	errs := []error{cause}
	for _, name := range d.files {
		if err := os.Remove(inDir(d.path, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if d.made {
		errs = append(errs, os.Remove(d.path))
	}
	return errors.Join(errs...)
}

// newFile writes a file that must not exist, durably, or leaves none.
func newFile(path string, mode fs.FileMode, write func(io.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if errors.Is(err, fs.ErrExist) {
		return hint.With(err, "no file is overwritten: name a new one, or remove that")
	}
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// writeNew is newFile for content that is at hand.
func writeNew(path string, b []byte, mode fs.FileMode) error {
	return newFile(path, mode, func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// replace swaps a file's content in one step that survives a power cut. The
// new file belongs to whom the old one belonged, which may be the service.
func replace(path string, b []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return put(path, b, info, info.Mode().Perm())
}

// put is replace for a file that may not exist yet. It gets the owner of like.
func put(path string, b []byte, like os.FileInfo, mode os.FileMode) error {
	temp := path + ".tmp"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := writeNew(temp, b, mode); err != nil {
		return err
	}
	if err := errors.Join(sameOwner(temp, like), os.Rename(temp, path)); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	return syncDir(filepath.Dir(path))
}
