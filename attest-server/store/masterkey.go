package store

import (
	"context"
	"fmt"
	"io"

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

// NextMasterKeyName is where a new MasterKey lies in the data directory until
// the change to it is complete.
const NextMasterKeyName = MasterKeyName + ".new"

// LoadMasterKey reads the MasterKey: from credentials (systemd's
// $CREDENTIALS_DIRECTORY, may be empty) if it is there, else from dir, where
// it must belong to its owner alone.
func LoadMasterKey(credentials, dir string) (secret.Bytes, error) {
	return MasterKeySource{Credentials: credentials, Dir: dir}.Load(context.Background())
}
