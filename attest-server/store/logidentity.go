package store

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strconv"
)

// originPrefix begins the name of every log of ours.
const originPrefix = "ccrun/attest-server/"

// The check value says under which MasterKey a store is, and, behind the label,
// which key signs its audit log; once a log has begun anew, which log that is.
// Stores from before have the old label alone.
const (
	logLabel      = "ccrun store v3 audit log "
	checkLabel    = "ccrun store v2 audit key "
	oldCheckLabel = "ccrun store v1"
)

// logIdentity is which audit log a store has. Only who has the MasterKey can say
// that it is another one.
type logIdentity struct {
	key        ed25519.PublicKey // that signs it; nil: in an old store, nobody knows
	first      ed25519.PublicKey // that signed its first entry
	generation uint32            // how often the operator has begun it anew
}

// origin names the log to witnesses.
func (l logIdentity) origin() string {
	sum := sha256.Sum256(l.first)
	name := originPrefix + hex.EncodeToString(sum[:8])
	if l.generation > 0 {
		name += "/" + strconv.FormatUint(uint64(l.generation), 10)
	}
	return name
}

// text is what the check value says of l, and parseIdentity reads it.
func (l logIdentity) text() []byte {
	if l.generation == 0 && l.key.Equal(l.first) {
		return append([]byte(checkLabel), l.key...)
	}
	return binary.BigEndian.AppendUint32(slices.Concat([]byte(logLabel), l.key, l.first), l.generation)
}

func parseIdentity(b []byte) (l logIdentity, ok bool) {
	const size = ed25519.PublicKeySize
	if key, labelled := bytes.CutPrefix(b, []byte(checkLabel)); labelled && len(key) == size {
		key = bytes.Clone(key)
		return logIdentity{key: key, first: key}, true
	}
	if rest, labelled := bytes.CutPrefix(b, []byte(logLabel)); labelled && len(rest) == 2*size+4 {
		rest = bytes.Clone(rest)
		return logIdentity{rest[:size:size], rest[size : 2*size : 2*size], binary.BigEndian.Uint32(rest[2*size:])}, true
	}
	return l, string(b) == oldCheckLabel
}

// nameLog is l, or what a log that was never named is to be called.
func nameLog(l logIdentity, k ed25519.PrivateKey) logIdentity {
	if l.key == nil {
		l.key = k.Public().(ed25519.PublicKey)
		l.first = l.key
	}
	return l
}
