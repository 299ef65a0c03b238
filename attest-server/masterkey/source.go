package masterkey

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/secret"
)

// Source is where the MasterKey is looked for: Stdin, File, or else the
// credential master-key in Credentials, or else master-key in Dir. In
// File and Dir it may also be as Wrapped has it.
type Source struct {
	Stdin       io.Reader // nil: not there; can be read once
	File        string
	Credentials string // systemd's $CREDENTIALS_DIRECTORY; may be empty
	Dir         string
	Transit     Unwrapper // nil: none is configured
}

// Load reads the MasterKey in use.
func (s Source) Load(ctx context.Context) (secret.Bytes, error) {
	if s.Stdin != nil {
		b, err := bounded.Read(s.Stdin, "standard input", maxFile)
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

// Outside says whether the MasterKey in use comes from elsewhere than Dir.
func (s Source) Outside() (bool, error) {
	if s.File != "" || s.Stdin != nil {
		return true, nil
	}
	if s.Credentials == "" {
		return false, nil
	}
	_, err := os.Stat(filepath.Join(s.Credentials, Name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Next reads the MasterKey that a rotation under way, or killed halfway, leads
// to from current. fs.ErrNotExist: there is none.
func (s Source) Next(ctx context.Context, current secret.Bytes) (secret.Bytes, error) {
	return s.read(ctx, filepath.Join(s.Dir, NextName), 0o077, current)
}

// Reload is every MasterKey to be had now, for a process that has
// held one: the one in use and what either leads to. A rotation that ends
// between the two looks puts the second key in the first one's place, so without
// a second key the first is looked at again.
func (s Source) Reload(ctx context.Context, held secret.Bytes) ([]secret.Bytes, error) {
	loaded, err := s.Load(ctx)
	for {
		next, nextErr := s.nextOf(ctx, loaded, held)
		if next.Len() > 0 {
			return present(loaded, next), nil
		}
		again, againErr := s.Load(ctx)
		if againErr != nil || again.Equal(loaded) {
			again.Wipe()
			if loaded.Len() > 0 {
				return present(loaded), nil
			}
			return nil, errors.Join(err, nextErr)
		}
		loaded.Wipe()
		loaded, err = again, nil
	}
}

// nextOf is what the first of keys that leads anywhere leads to. That one leads
// nowhere is no error.
func (s Source) nextOf(ctx context.Context, keys ...secret.Bytes) (next secret.Bytes, err error) {
	for _, current := range present(keys...) {
		next, e := s.Next(ctx, current)
		if e == nil {
			return next, nil
		}
		if !errors.Is(e, fs.ErrNotExist) && !errors.Is(e, errOtherKey) {
			err = errors.Join(err, e)
		}
	}
	return secret.Bytes{}, err
}

func present(keys ...secret.Bytes) []secret.Bytes {
	return slices.DeleteFunc(keys, func(k secret.Bytes) bool { return k.Len() == 0 })
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

// read refuses a file with any permission in forbidden.
func (s Source) read(ctx context.Context, path string, forbidden fs.FileMode, current secret.Bytes) (secret.Bytes, error) {
	b, err := readFile(path, forbidden)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("reading master key: %w", err)
	}
	return s.decode(ctx, path, b, current)
}

func (s Source) decode(ctx context.Context, path string, b []byte, current secret.Bytes) (secret.Bytes, error) {
	if len(b) == Size {
		return secret.New(b), nil
	}
	k, err := unwrap(ctx, b, s.Transit, current)
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
