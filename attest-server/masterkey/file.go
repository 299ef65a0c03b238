// Package masterkey is about the MasterKey, under which the store's secrets
// are sealed: where it is found, in which forms it may lie there, and how it
// seals.
package masterkey

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

// Name is the MasterKey's file in the data directory, and the name of the
// systemd credential that takes its place.
const Name = "master-key"

// NextName is where a new MasterKey lies in the data directory until the
// change to it is complete.
const NextName = Name + ".new"

// Size is the length of the MasterKey in bytes.
const Size = 32

// New makes a MasterKey.
func New(rand io.Reader) (secret.Bytes, error) {
	b := make([]byte, Size)
	if _, err := io.ReadFull(rand, b); err != nil {
		return secret.Bytes{}, fmt.Errorf("making master key: %w", err)
	}
	return secret.New(b), nil
}

// maxFile bounds the MasterKey's file, which may hold it wrapped.
const maxFile = 16 << 10

// readFile refuses a file with any permission in forbidden.
func readFile(path string, forbidden fs.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, hint.With(err, "it is where `init` put it: a file of the data directory, whose name --data must be, or the credential master-key "+
			"of the unit (in a shell: CREDENTIALS_DIRECTORY=DIR); a store without its key can never be opened, and `init` makes another one")
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if p := info.Mode().Perm(); info.Mode().IsRegular() && p&forbidden != 0 {
		return nil, fmt.Errorf("%s has mode %04o, expected 0600: run chmod 0600 on it", path, p)
	}
	return bounded.Read(f, path, maxFile)
}
