package session

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// Options is what sessions are made of. All but Shared is needed.
type Options struct {
	Clock func() time.Time
	Rand  io.Reader
	Log   *slog.Logger
	// Life is how long a nonce can be used, and then again how long what was
	// granted can be fetched.
	Life time.Duration
	// Max bounds the sessions granted within the last two lives.
	Max int
	// Shared is what several servers have in common. nil: this one is alone,
	// and keeps sessions in its memory.
	Shared *Shared
}

// Sessions is everything about sessions that outlives a request.
type Sessions struct {
	*Bearers
	*Tokens
	Table
}

// New checks o and makes an empty table.
func New(o Options) (*Sessions, error) {
	if o.Clock == nil || o.Rand == nil || o.Log == nil || o.Life <= 0 || o.Max <= 0 {
		return nil, errors.New("sessions without clock, randomness, log, life or bound")
	}
	if o.Shared != nil {
		return newShared(o)
	}
	own := make([]byte, SecretSize)
	defer clear(own)
	if _, err := io.ReadFull(o.Rand, own); err != nil {
		return nil, fmt.Errorf("making the session key: %w", err)
	}
	return newAlone(o, own)
}

func newAlone(o Options, secret []byte) (*Sessions, error) {
	o.Clock = monotonic(o.Clock)
	b, err := newBearers(o, secret, o.Clock())
	if err != nil {
		return nil, err
	}
	t, err := newTokens(secret, o.Rand)
	if err != nil {
		return nil, err
	}
	return &Sessions{b, t, newMemory(b, o.Max)}, nil
}

func newShared(o Options) (*Sessions, error) {
	if o.Shared.Store == nil || o.Shared.Secret.Len() != SecretSize {
		return nil, errors.New("attest-server that shares sessions without a store for them, or their secret")
	}
	secret := o.Shared.Secret.Reveal()
	b, err := newBearers(o, secret, time.Unix(0, 0))
	if err != nil {
		return nil, err
	}
	t, err := newTokens(secret, o.Rand)
	if err != nil {
		return nil, err
	}
	return &Sessions{b, t, &shared{Bearers: b, store: o.Shared.Store, log: o.Log, max: o.Max}}, nil
}
