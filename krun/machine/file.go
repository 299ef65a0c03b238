package machine

import (
	"fmt"
	"os"

	"github.com/ccrun/ccrun/bounded"
)

// OpenRegular opens a file that must be a regular one and no link.
func OpenRegular(root *os.Root, name string, flag int) (*os.File, error) {
	before, err := root.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	f, err := root.OpenFile(name, flag, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", name, err)
	}
	after, err := f.Stat()
	if err != nil || !before.Mode().IsRegular() || !after.Mode().IsRegular() {
		f.Close()
		return nil, fmt.Errorf("opening %s: not a regular file", name)
	}
	return f, nil
}

// ReadRegular reads all of a file of 1 to limit bytes.
func ReadRegular(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := OpenRegular(root, name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := bounded.Read(f, name, limit)
	if err == nil && len(b) == 0 {
		err = fmt.Errorf("reading %s: file is empty", name)
	}
	return b, err
}
