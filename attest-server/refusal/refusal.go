// Package refusal is what a peer is told of a request that was not done, apart
// from what the log is told, and in the words of no dialect.
package refusal

import (
	"fmt"
	"time"
)

// Error is an answer to a request: Code and Detail are for the peer, Cause is
// for the log alone.
type Error struct {
	Code    string // one of package kbs
	Kind    string // in the trustee dialect, where Code does not tell it
	Detail  string
	Session string // its number, if there is one
	Cause   error

	RetryAfter time.Duration // of rate_limited and unavailable
}

func (e *Error) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Detail, e.Cause)
	}
	return e.Code + ": " + e.Detail
}

func (e *Error) Unwrap() error { return e.Cause }

// New is a refusal with a code, its detail formatted as by fmt.Sprintf.
func New(code, format string, a ...any) error {
	return &Error{Code: code, Detail: fmt.Sprintf(format, a...)}
}

// NewKind is New with the name that CoCo's clients know the refusal by.
func NewKind(kind, code, format string, a ...any) error {
	return &Error{Code: code, Kind: kind, Detail: fmt.Sprintf(format, a...)}
}
