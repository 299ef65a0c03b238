package masterkey

import (
	"context"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// Unwrapper opens a MasterKey that a key service wrapped.
type Unwrapper interface {
	Unwrap(ctx context.Context, ciphertext string) (secret.Bytes, error)
}

// Source is where the MasterKey is looked for: Stdin, File, or else the
// credential master-key in Credentials, or else master-key in Dir. Those of
// File and Dir may also be in the form that Wrapped returns.
type Source struct {
	Stdin       io.Reader // nil: not there; can be read once
	File        string
	Credentials string // systemd's $CREDENTIALS_DIRECTORY; may be empty
	Dir         string
	Transit     Unwrapper // nil: none is configured
}

// wrappedKey is a MasterKey's file if the key is not in it in clear: exactly
// one of the two.
type wrappedKey struct {
	Version int    `json:"version"`
	Transit string `json:"transit,omitempty"` // wrapped by a transit engine
	Under   []byte `json:"under,omitempty"`   // sealed under the MasterKey before it
}

const (
	maxKeyFile  = 16 << 10
	nextKeyInfo = "ccrun next master key v1"
)

// Wrapped is the content of a MasterKey's file whose key a transit
// engine has wrapped. It is no secret.
func Wrapped(ciphertext string) ([]byte, error) {
	return json.Marshal(wrappedKey{Version: 1, Transit: ciphertext})
}

// SealNext is the content of NextName: next, sealed under the
// MasterKey in use, so that a rotation leaves no key in clear on disk and
// servers that run can follow it.
func SealNext(current, next secret.Bytes, rand io.Reader) ([]byte, error) {
	aead, err := nextKeyAEAD(current)
	if err != nil {
		return nil, err
	}
	nonce := make([]byte, gcmNonce)
	if _, err := io.ReadFull(rand, nonce); err != nil {
		return nil, fmt.Errorf("sealing the next master key: %w", err)
	}
	return json.Marshal(wrappedKey{Version: 1, Under: aead.Seal(nonce, nonce, next.Reveal(), []byte(nextKeyInfo))})
}

func nextKeyAEAD(current secret.Bytes) (cipher.AEAD, error) {
	if current.Len() != Size {
		return nil, fmt.Errorf("master key of %d bytes, expected %d", current.Len(), Size)
	}
	k, err := hkdf.Key(sha256.New, current.Reveal(), nil, nextKeyInfo, 32)
	if err != nil {
		return nil, err
	}
	defer clear(k)
	return newGCM(k)
}

// ErrNoTransit says that a key is wrapped by a transit engine, and none is
// configured.
var ErrNoTransit = errors.New("the master key is wrapped by a transit engine, and the configuration has no [transit]: name it with --config")

// errOtherKey: the next MasterKey is sealed under another one than that in use.
var errOtherKey = errors.New("the next master key does not belong to the one in use")

// Load reads the MasterKey in use.
func (s Source) Load(ctx context.Context) (secret.Bytes, error) {
	if s.Stdin != nil {
		b, err := readKey(s.Stdin, "standard input")
		if err != nil {
			return secret.Bytes{}, fmt.Errorf("reading master key: %w", err)
		}
		return s.decode(ctx, "standard input", b, secret.Bytes{})
	}
	if s.File != "" {
		return s.read(ctx, s.File, 0o077, secret.Bytes{})
	}
	if s.Credentials != "" {
		k, err := s.read(ctx, filepath.Join(s.Credentials, Name), 0, secret.Bytes{})
		if !errors.Is(err, fs.ErrNotExist) {
			return k, err
		}
	}
	return s.read(ctx, filepath.Join(s.Dir, Name), 0o077, secret.Bytes{})
}

// Next reads the MasterKey that a rotation under way, or killed halfway, leads
// to from current. fs.ErrNotExist: there is none.
func (s Source) Next(ctx context.Context, current secret.Bytes) (secret.Bytes, error) {
	return s.read(ctx, filepath.Join(s.Dir, NextName), 0o077, current)
}

// Reload is every MasterKey to be had now, for Options.ReloadMasterKeys of a
// process that has held one: the one in use and what either leads to.
func (s Source) Reload(ctx context.Context, held secret.Bytes) ([]secret.Bytes, error) {
	var keys []secret.Bytes
	loaded, err := s.Load(ctx)
	if err == nil {
		keys = append(keys, loaded)
	}
	for _, current := range []secret.Bytes{loaded, held} {
		if current.Len() == 0 {
			continue
		}
		if next, e := s.Next(ctx, current); e == nil {
			return append(keys, next), nil
		} else if !errors.Is(e, fs.ErrNotExist) && !errors.Is(e, errOtherKey) {
			err = errors.Join(err, e)
		}
	}
	if len(keys) > 0 {
		return keys, nil
	}
	return nil, err
}

// Settle removes what a complete rotation left, once current has opened the
// store: a next MasterKey that is current, or that led to it.
func (s Source) Settle(ctx context.Context, current secret.Bytes) error {
	next, err := s.Next(ctx, current)
	if err == nil {
		defer next.Wipe()
	}
	if !errors.Is(err, errOtherKey) && (err != nil || !next.Equal(current)) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	return os.Remove(filepath.Join(s.Dir, NextName))
}

// read refuses a file with any permission in forbidden that holds the key in
// clear.
func (s Source) read(ctx context.Context, path string, forbidden fs.FileMode, current secret.Bytes) (secret.Bytes, error) {
	b, err := readKeyFile(path, forbidden)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading master key: %w", err)
	}
	return s.decode(ctx, path, b, current)
}

func (s Source) decode(ctx context.Context, path string, b []byte, current secret.Bytes) (secret.Bytes, error) {
	if len(b) == Size {
		return secret.New(b), nil
	}
	k, err := s.unwrap(ctx, b, current)
	clear(b)
	if err == nil && k.Len() != Size {
		k.Wipe()
		err = fmt.Errorf("what was wrapped is no master key: expected %d bytes", Size)
	}
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading master key %s: %w", path, err)
	}
	return k, nil
}

func (s Source) unwrap(ctx context.Context, b []byte, current secret.Bytes) (secret.Bytes, error) {
	var w wrappedKey
	if err := kbs.UnmarshalStrict(b, &w); err != nil || w.Version != 1 || (w.Transit == "") == (len(w.Under) == 0) {
		return secret.Bytes{}, fmt.Errorf("it holds neither %d bytes nor a wrapped key of version 1", Size)
	}
	if w.Transit != "" {
		if s.Transit == nil {
			return secret.Bytes{}, ErrNoTransit
		}
		return s.Transit.Unwrap(ctx, w.Transit)
	}
	if current.Len() == 0 {
		return secret.Bytes{}, errors.New("it is the next master key, sealed under the one in use: it cannot take that one's place")
	}
	aead, err := nextKeyAEAD(current)
	if err != nil {
		return secret.Bytes{}, err
	}
	if len(w.Under) < gcmNonce {
		return secret.Bytes{}, errOtherKey
	}
	k, err := aead.Open(nil, w.Under[:gcmNonce], w.Under[gcmNonce:], []byte(nextKeyInfo))
	if err != nil {
		return secret.Bytes{}, errOtherKey
	}
	return secret.New(k), nil
}

// TransitCiphertext is what a MasterKey's file holds if a transit engine has
// wrapped the key; empty if the key is there in clear.
func TransitCiphertext(path string) (string, error) {
	b, err := readKeyFile(path, 0o077)
	if err != nil {
		return "", fmt.Errorf("reading master key: %w", err)
	}
	defer clear(b)
	var w wrappedKey
	if len(b) != Size && kbs.UnmarshalStrict(b, &w) != nil {
		return "", fmt.Errorf("reading master key: %s holds neither %d bytes nor a wrapped key", path, Size)
	}
	return w.Transit, nil
}

func readKeyFile(path string, forbidden fs.FileMode) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: make store and key with `attest-server init`, or name the right --data", err)
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
	return readKey(f, path)
}

func readKey(from io.Reader, path string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(from, maxKeyFile+1))
	if err == nil && len(b) > maxKeyFile {
		err = fmt.Errorf("%s is longer than %d bytes", path, maxKeyFile)
	}
	if err != nil {
		clear(b)
		return nil, err
	}
	return b, nil
}
