package kbs

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"
)

// AuditBase stands for the audit log's first entries, once they are in an archive
// and no longer in the store: under the server's signature, where the chain goes on
// and what tree the archived entries have.
type AuditBase struct {
	Sequence  int64     `json:"sequence"`   // of the last entry archived
	Hash      string    `json:"hash"`       // of that entry: SHA-256, hex
	Root      string    `json:"root"`       // of the tree of all entries up to it, base64
	At        time.Time `json:"at"`         // of signing, in milliseconds
	PublicKey []byte    `json:"public_key"` // Ed25519, 32 bytes
	Signature []byte    `json:"signature"`  // Ed25519 over Message
}

// ErrBadAuditBase reports a base that its key has not signed.
var ErrBadAuditBase = errors.New("audit base is not signed by its key")

const auditBaseLabel = "ccrun audit base v1"

// Message is what is signed: a label, sequence number, hash, root and time in Unix
// milliseconds, each behind its length.
func (b AuditBase) Message() ([]byte, error) {
	sum, err1 := hex.DecodeString(b.Hash)
	root, err2 := base64.StdEncoding.Strict().DecodeString(b.Root)
	if err1 != nil || err2 != nil || len(sum) != 32 || len(root) != 32 || b.Sequence <= 0 {
		return nil, ErrBadAuditBase
	}
	m := frameText(nil, auditBaseLabel)
	m = binary.BigEndian.AppendUint64(frameHead(m, 8), uint64(b.Sequence))
	m = frameText(frameText(m, sum), root)
	return binary.BigEndian.AppendUint64(frameHead(m, 8), uint64(b.At.UnixMilli())), nil
}

// Verify checks the signature with the base's own key. That the key is the
// server's is for the caller to know.
func (b AuditBase) Verify() error {
	m, err := b.Message()
	if err != nil {
		return err
	}
	if len(b.PublicKey) != ed25519.PublicKeySize || !ed25519.Verify(b.PublicKey, m, b.Signature) {
		return ErrBadAuditBase
	}
	return nil
}
