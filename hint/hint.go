// Package hint gives errors their next step. An error says what failed, with
// expected and got; its hint says what to do about it, on a line of its own.
package hint

import (
	"errors"
	"fmt"
)

// ErrUsage reports options that contradict each other or are out of range:
// the caller's mistake, exit status 2.
var ErrUsage = errors.New("invalid options")

// withHint is an error and its next step.
type withHint struct {
	err  error
	next string
}

func (e *withHint) Error() string { return e.err.Error() }
func (e *withHint) Unwrap() error { return e.err }
func (e *withHint) Hint() string  { return e.next }

// With gives err a next step, formatted as by fmt.Sprintf. A nil err stays nil.
func With(err error, format string, a ...any) error {
	if err == nil {
		return nil
	}
	return &withHint{err, fmt.Sprintf(format, a...)}
}

// Usagef is an ErrUsage with details, formatted as by fmt.Errorf.
func Usagef(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrUsage, fmt.Errorf(format, a...))
}

// Of is the first hint in err's tree, the outermost first, or "". An error
// with an empty Hint does not hide those of the errors that it wraps.
func Of(err error) string {
	if h, ok := err.(interface{ Hint() string }); ok && h.Hint() != "" {
		return h.Hint()
	}
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return Of(e.Unwrap())
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			if h := Of(one); h != "" {
				return h
			}
		}
	}
	return ""
}
