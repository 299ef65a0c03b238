package masterkey

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/ccrun/ccrun/secret"
)

const (
	sealVersion = 1
	gcmNonce    = 12
	gcmTag      = 16
	dataKeySize = 32
	wrappedSize = gcmNonce + dataKeySize + gcmTag
	minSealed   = 1 + wrappedSize + gcmNonce + gcmTag
	kekInfo     = "ccrun store key encryption key v1"
)

var (
	// ErrSealed says that a value is damaged, or not of this MasterKey, or not
	// of this place.
	ErrSealed = errors.New("sealed value cannot be opened")
	// ErrLocked says that there is no MasterKey: what a nil Sealer answers.
	ErrLocked = errors.New("store was opened without its master key")
)

// Sealer envelope-encrypts secrets: each under its own random data key, that
// one under a key derived from the MasterKey, so that a MasterKey can be
// changed by wrapping 32 bytes anew.
//
//	version ‖ nonce ‖ AES-256-GCM(KEK, data key) ‖ nonce ‖ AES-256-GCM(data key, secret)
//
// Both layers authenticate where the value belongs (see Location): a thief
// with write access to the database could otherwise move a victim's sealed
// DiskKey into the row of a workload of his own and have it released to him.
type Sealer struct {
	rand io.Reader

	mu   sync.RWMutex
	keks []cipher.AEAD // the last one seals; older ones open what was read before a rotation
}

// NewSealer seals under master.
func NewSealer(master secret.Bytes, rand io.Reader) (*Sealer, error) {
	if master.Len() != Size {
		return nil, fmt.Errorf("master key of %d bytes, expected %d", master.Len(), Size)
	}
	k, err := hkdf.Key(sha256.New, master.Reveal(), nil, kekInfo, 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the key encryption key: %w", err)
	}
	defer clear(k)
	kek, err := newGCM(k)
	if err != nil {
		return nil, err
	}
	return &Sealer{keks: []cipher.AEAD{kek}, rand: rand}, nil
}

// Follow seals as next does from now on.
func (s *Sealer) Follow(next *Sealer) {
	kek := next.kek()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keks = append(s.keks, kek)
}

func (s *Sealer) kek() cipher.AEAD {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.keks[len(s.keks)-1]
}

// OpenCurrent is Open for what is sealed under the MasterKey that s seals with
// now; one that it sealed with before does not count.
func (s *Sealer) OpenCurrent(sealed, where []byte) (secret.Bytes, error) {
	now := &Sealer{keks: []cipher.AEAD{s.kek()}}
	return now.Open(sealed, where)
}

// unwrap opens a data key, under the newest MasterKey that does.
func (s *Sealer) unwrap(wrapped, where []byte) ([]byte, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, kek := range slices.Backward(s.keks) {
		if k, err := kek.Open(nil, wrapped[:gcmNonce], wrapped[gcmNonce:], where); err == nil {
			return k, nil
		}
	}
	return nil, ErrSealed
}

// Rewrap returns a sealed value with its data key under the MasterKey of to.
func (s *Sealer) Rewrap(sealed, where []byte, to *Sealer) ([]byte, error) {
	if len(sealed) < minSealed || sealed[0] != sealVersion {
		return nil, ErrSealed
	}
	dataKey, err := s.unwrap(sealed[1:1+wrappedSize], where)
	if err != nil {
		return nil, err
	}
	defer clear(dataKey)
	nonce := make([]byte, gcmNonce)
	if _, err := io.ReadFull(s.rand, nonce); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	out := append([]byte{sealVersion}, nonce...)
	out = to.kek().Seal(out, nonce, dataKey, where)
	return append(out, sealed[1+wrappedSize:]...), nil
}

func newGCM(k []byte) (cipher.AEAD, error) {
	b, err := aes.NewCipher(k)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(b)
}

// Location is the associated data of a sealed value: its parts, each behind
// its length.
func Location(parts ...string) []byte {
	var b []byte
	for _, p := range parts {
		b = binary.BigEndian.AppendUint64(b, uint64(len(p)))
		b = append(b, p...)
	}
	return b
}

// Seal returns plain sealed for the place that where is the Location of.
func (s *Sealer) Seal(plain secret.Bytes, where []byte) ([]byte, error) {
	if s == nil {
		return nil, ErrLocked
	}
	random := make([]byte, dataKeySize+2*gcmNonce)
	if _, err := io.ReadFull(s.rand, random); err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	dataKey, n1, n2 := random[:dataKeySize], random[dataKeySize:dataKeySize+gcmNonce], random[dataKeySize+gcmNonce:]
	defer clear(dataKey)
	data, err := newGCM(dataKey)
	if err != nil {
		return nil, err
	}
	out := append([]byte{sealVersion}, n1...)
	out = s.kek().Seal(out, n1, dataKey, where)
	out = append(out, n2...)
	return data.Seal(out, n2, plain.Reveal(), where), nil
}

// Open returns what was sealed for that place, or ErrSealed.
func (s *Sealer) Open(sealed, where []byte) (secret.Bytes, error) {
	if s == nil {
		return secret.Bytes{}, ErrLocked
	}
	if len(sealed) < minSealed || sealed[0] != sealVersion {
		return secret.Bytes{}, ErrSealed
	}
	wrapped, rest := sealed[1:1+wrappedSize], sealed[1+wrappedSize:]
	dataKey, err := s.unwrap(wrapped, where)
	if err != nil {
		return secret.Bytes{}, err
	}
	defer clear(dataKey)
	data, err := newGCM(dataKey)
	if err != nil {
		return secret.Bytes{}, err
	}
	plain, err := data.Open(nil, rest[:gcmNonce], rest[gcmNonce:], where)
	if err != nil {
		return secret.Bytes{}, ErrSealed
	}
	return secret.New(plain), nil
}
