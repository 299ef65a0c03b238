package kbs

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"time"
)

const auditLabel = "ccrun audit v1"

// ChainHash is an entry's Hash: SHA-256 over a label, the hash of the entry
// before (32 zeros before the first), sequence number, time in Unix milliseconds,
// actor, action, object and detail, each behind its length in 8 bytes.
func (e AuditEntry) ChainHash(prev []byte) []byte {
	var room [512]byte // of a usual entry
	b := frameText(room[:0], auditLabel)
	b = frameText(b, prev)
	b = binary.BigEndian.AppendUint64(frameHead(b, 8), uint64(e.Sequence))
	b = binary.BigEndian.AppendUint64(frameHead(b, 8), uint64(e.At.UnixMilli()))
	for _, s := range [...]string{e.Actor, e.Action, e.Object, e.Detail} {
		b = frameText(b, s)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

func frameHead(b []byte, n int) []byte { return binary.BigEndian.AppendUint64(b, uint64(n)) }

func frameText[T string | []byte](b []byte, part T) []byte {
	return append(frameHead(b, len(part)), part...)
}

// AuditHead is the end of the audit chain under the server's signature: the
// answer to GET /v1/audit/head. Whoever keeps one can prove later that the
// log was cut or rewritten.
type AuditHead struct {
	Sequence  int64     `json:"sequence"`   // 0: of a log without entries
	Hash      string    `json:"hash"`       // of that entry: SHA-256, hex; zeros for 0
	At        time.Time `json:"at"`         // of signing, in milliseconds
	PublicKey []byte    `json:"public_key"` // Ed25519, 32 bytes
	Signature []byte    `json:"signature"`  // Ed25519 over Message
}

// ErrBadAuditHead reports a head that its key has not signed.
var ErrBadAuditHead = errors.New("audit head is not signed by its key")

const auditHeadLabel = "ccrun audit head v1"

// Message is what is signed: a label, sequence number, hash and time in Unix
// milliseconds, each behind its length.
func (h AuditHead) Message() ([]byte, error) {
	sum, err := hex.DecodeString(h.Hash)
	if err != nil || len(sum) != 32 || h.Sequence < 0 || h.Sequence == 0 && [32]byte(sum) != [32]byte{} {
		return nil, ErrBadAuditHead
	}
	var b []byte
	for _, part := range [][]byte{
		[]byte(auditHeadLabel), binary.BigEndian.AppendUint64(nil, uint64(h.Sequence)), sum,
		binary.BigEndian.AppendUint64(nil, uint64(h.At.UnixMilli())),
	} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b, nil
}

// Verify checks the signature with the head's own key. That the key is the
// server's is for the caller to know.
func (h AuditHead) Verify() error {
	m, err := h.Message()
	if err != nil {
		return err
	}
	if len(h.PublicKey) != ed25519.PublicKeySize || !ed25519.Verify(h.PublicKey, m, h.Signature) {
		return ErrBadAuditHead
	}
	return nil
}
