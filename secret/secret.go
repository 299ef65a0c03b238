// Package secret holds the one type in which ccrun keeps secrets in memory:
// disk keys, volume keys, tokens, the master key.
package secret

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// ErrEncode is returned when a Bytes is about to be written by an encoder.
// Whoever really means to send a secret calls Reveal and says so in code.
var ErrEncode = errors.New("refusing to encode a secret")

// Bytes is a secret of any length. The zero value is the empty secret, which
// is equal to nothing, itself included. It is not comparable with ==, prints
// as "[redacted]" and refuses to be encoded.
type Bytes struct {
	b []byte
	_ [0]func()
}

// New takes ownership of b: the caller must not use it afterwards.
func New(b []byte) Bytes { return Bytes{b: b} }

// Reveal returns the secret itself, not a copy: Wipe overwrites it.
func (s Bytes) Reveal() []byte { return s.b }

// Len is the secret's length in bytes.
func (s Bytes) Len() int { return len(s.b) }

// Equal compares in constant time. An empty secret equals nothing.
func (s Bytes) Equal(o Bytes) bool {
	return len(s.b) > 0 && subtle.ConstantTimeCompare(s.b, o.b) == 1
}

// Wipe overwrites the secret with zeros and makes it empty.
func (s *Bytes) Wipe() {
	clear(s.b)
	s.b = nil
}

// String implements fmt.Stringer without the secret.
func (s Bytes) String() string { return redacted }

// Format implements fmt.Formatter without the secret, for every verb.
func (s Bytes) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue implements slog.LogValuer without the secret.
func (s Bytes) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText always fails with ErrEncode.
func (s Bytes) MarshalText() ([]byte, error) { return nil, ErrEncode }
