package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"
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

// owner is whose the files in the data directory are: the store's, or if that
// is in a database, the directory's.
func owner(dir string) (fs.FileInfo, error) {
	info, err := os.Stat(inDir(dir, storeName))
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(dir)
	}
	return info, err
}

// makeDir makes dir, or takes it if it is empty.
func makeDir(dir string) (made bool, err error) {
	err = os.Mkdir(dir, 0o700)
	if err == nil {
		return true, nil
	}
	if !errors.Is(err, fs.ErrExist) {
		return false, fmt.Errorf("creating data directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("creating data directory: %w", err)
	}
	if len(entries) > 0 {
		return false, fmt.Errorf("data directory %s is not empty: nothing is overwritten, choose a new one or remove it", dir)
	}
	return false, os.Chmod(dir, 0o700)
}

// undo removes what a failed init left, and nothing else.
func undo(dir string, made bool, files []string) error {
	var errs []error
	for _, f := range files {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if made {
		errs = append(errs, os.Remove(dir))
	}
	return errors.Join(errs...)
}

// writeNew writes a file that must not exist, durably.
func writeNew(path string, b []byte, mode fs.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(path)
		}
	}()
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// writeStream is writeNew for content of any length.
func writeStream(path string, from io.Reader, mode os.FileMode) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", path, err), os.Remove(path))
	}
	return nil
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

// put is replace where there may be no file yet: it gets like's owner.
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
