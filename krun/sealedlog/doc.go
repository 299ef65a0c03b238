// Package sealedlog is what a workload prints, on its way through a host that
// must not read it. Written in the guest, it is ordinary lines of text to
// Podman, journald and whoever rotates them; whoever has the private key of one
// of the recipients in the image's measured identity reads it, and is told
// where the host altered, forged, reordered, repeated or left out something.
// docs/protocol.md has the format.
//
// The key of one boot is drawn in the guest and encrypted to the recipients with
// age. That alone would say nothing of who wrote the log, since recipients are
// public: the line with the key is signed, with a key that follows from the
// disk's VolumeKey and whose public half is in the identity. So only a guest
// that was given the DiskKey can begin a log, and only it can go on with it.
package sealedlog

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/secret"
)

// A Kind says what a Record is.
type Kind uint8

// Kinds of records. 0 is padding.
const (
	Stdout Kind = 1 + iota
	Stderr
	Note // of the guest agent, in words
	Last // an End, and nothing after it
)

// String is the stream's name, as in --stream.
func (k Kind) String() string {
	switch k {
	case Stdout:
		return "stdout"
	case Stderr:
		return "stderr"
	case Note:
		return "agent"
	case Last:
		return "end"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// A Record is a piece of one stream, as it was read from the workload.
type Record struct {
	Kind Kind
	Time time.Time // of the guest's clock
	Data []byte
}

// End is the last word of a guest that ended in order.
type End struct {
	Status int `json:"status"` // as podman-run(1) has them
	// Error is the agent's own, if there was one, as the host must not read it.
	Error string `json:"error,omitempty"`
}

// KeyBytes is the length of a boot's log key, for AES-256-GCM.
const KeyBytes = 32

func newAEAD(key secret.Bytes) (cipher.AEAD, error) {
	if key.Len() != KeyBytes {
		return nil, fmt.Errorf("log key of %d bytes, expected %d", key.Len(), KeyBytes)
	}
	block, err := aes.NewCipher(key.Reveal())
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
