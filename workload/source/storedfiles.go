package source

import (
	"errors"
	"io"
	"os"

	drivers "github.com/containers/storage/drivers"
	"golang.org/x/sys/unix"
)

// storedFiles opens the files of a layer in local storage. A layer has tens of
// thousands of them, so that each system call and each path from the root of
// the host counts; what is not simply there is left to the driver.
type storedFiles struct {
	drivers.FileGetCloser
	dir *os.File // with the layer's own files; nil: not known
}

func openStoredFiles(driver drivers.DiffGetterDriver, id string) (*storedFiles, error) {
	files, err := driver.DiffGetter(id)
	if err != nil {
		return nil, err
	}
	var dir string
	if m, err := driver.Metadata(id); err == nil {
		dir = m["UpperDir"]
	}
	return filesIn(dir, files), nil
}

// filesIn looks in dir, if there is such a directory, and then in rest.
func filesIn(dir string, rest drivers.FileGetCloser) *storedFiles {
	s := &storedFiles{FileGetCloser: rest}
	if d, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
		s.dir = d
	}
	return s
}

// open never leaves the layer's directory by itself, whatever links are in it.
// The driver might; a file that is not the layer's does not pass the digest.
func (s *storedFiles) open(name string) (io.ReadCloser, error) {
	if s.dir != nil {
		how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
		if fd, err := unix.Openat2(int(s.dir.Fd()), name, &how); err == nil {
			return storedFile(fd), nil
		}
	}
	return s.Get(name)
}

// Close implements io.Closer.
func (s *storedFiles) Close() error {
	var err error
	if s.dir != nil {
		err = s.dir.Close()
	}
	return errors.Join(err, s.FileGetCloser.Close())
}

// storedFile is an open file that nothing waits for: an os.File would first ask
// whether it can be waited for.
type storedFile int

// Read implements io.Reader.
func (f storedFile) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Close implements io.Closer.
func (f storedFile) Close() error { return unix.Close(int(f)) }
