package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ccrun/ccrun/secret"
)

// MasterKeyName is the MasterKey's file in the data directory, and the name
// of the systemd credential that takes its place.
const MasterKeyName = "master-key"

// NewMasterKey makes a MasterKey.
func NewMasterKey(rand io.Reader) (secret.Bytes, error) {
	b := make([]byte, MasterKeySize)
	if _, err := io.ReadFull(rand, b); err != nil {
		return secret.Bytes{}, fmt.Errorf("making master key: %w", err)
	}
	return secret.New(b), nil
}

// LoadMasterKey reads the MasterKey: from credentials (systemd's
// $CREDENTIALS_DIRECTORY, may be empty) if it is there, else from dir, where
// it must belong to its owner alone.
func LoadMasterKey(credentials, dir string) (secret.Bytes, error) {
	if credentials != "" {
		k, err := readMasterKey(filepath.Join(credentials, MasterKeyName), 0)
		if !errors.Is(err, fs.ErrNotExist) {
			return k, err
		}
	}
	return readMasterKey(filepath.Join(dir, MasterKeyName), 0o077)
}

// NextMasterKeyName is where a new MasterKey lies in the data directory until
// the change to it is complete.
const NextMasterKeyName = MasterKeyName + ".new"

// LoadMasterKeys is LoadMasterKey and, if there is one, the MasterKey that a
// change under way, or killed halfway, leads to.
func LoadMasterKeys(credentials, dir string) ([]secret.Bytes, error) {
	k, err := LoadMasterKey(credentials, dir)
	if err != nil {
		return nil, err
	}
	next, err := readMasterKey(filepath.Join(dir, NextMasterKeyName), 0o077)
	if errors.Is(err, fs.ErrNotExist) {
		return []secret.Bytes{k}, nil
	}
	return []secret.Bytes{k, next}, err
}

// ReadMasterKey reads a MasterKey from a file that belongs to its owner alone.
func ReadMasterKey(path string) (secret.Bytes, error) { return readMasterKey(path, 0o077) }

// readMasterKey refuses a file with any permission in forbidden. Credentials
// have none forbidden: systemd guards their directory, and their mode shows
// the mask of an ACL.
func readMasterKey(path string, forbidden fs.FileMode) (secret.Bytes, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return secret.Bytes{}, fmt.Errorf("reading master key: %w: make store and key with `attest-server init`, or name the right --data", err)
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading master key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading master key: %w", err)
	}
	if p := info.Mode().Perm(); p&forbidden != 0 {
		return secret.Bytes{}, fmt.Errorf("reading master key: %s has mode %04o, expected 0600: run chmod 0600 on it", path, p)
	}
	b, err := io.ReadAll(io.LimitReader(f, MasterKeySize+1))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading master key: %w", err)
	}
	if len(b) != MasterKeySize {
		clear(b)
		return secret.Bytes{}, fmt.Errorf("reading master key: %s does not hold %d bytes", path, MasterKeySize)
	}
	return secret.New(b), nil
}
