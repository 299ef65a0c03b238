// Package masterkey is about the MasterKey, under which the store's secrets
// are sealed: where it is found, in which forms it may lie there, and how it
// seals.
package masterkey

import (
	"fmt"
	"io"

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
