package face

import (
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/hint"
)

// Exit statuses of every command but those that end with a workload's.
const (
	Failed     = 1
	Misused    = 2 // the command line or the configuration is wrong
	Denied     = 3 // attestation
	NotCapable = 4 // this host
)

// statusError is an error and the exit status that it deserves; without an
// error, nothing is printed.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// Is says that status Misused is a mistake of usage, as hint.Usagef makes them.
func (e *statusError) Is(target error) bool { return target == hint.ErrUsage && e.status == Misused }

// WithStatus gives err an exit status, in place of those of what it wraps.
func WithStatus(status int, err error) error { return &statusError{status, err} }

// Silent ends a program with a status and not a word: a workload's status, or
// one that what was printed explains.
func Silent(status int) error { return &statusError{status: status} }

// Usagef is an error of the command line, formatted as by fmt.Errorf.
func Usagef(format string, a ...any) error {
	return WithStatus(Misused, fmt.Errorf(format, a...))
}

// UsageError is cli's OnUsageError.
func UsageError(c *cli.Context, err error, _ bool) error {
	err = WithStatus(Misused, err)
	if name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); unknown {
		if near := nearFlag(c, strings.TrimLeft(name, "-")); near != "" {
			return hint.With(err, "did you mean %s? See `%s --help`", near, c.Command.HelpName)
		}
	}
	return withHelp(c, err)
}

// Status is the exit status that err deserves.
func Status(err error) int {
	var e *statusError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.status
	case errors.Is(err, hint.ErrUsage):
		return Misused
	}
	return Failed
}

func isSilent(err error) bool {
	var e *statusError
	return errors.As(err, &e) && e.err == nil
}

// withHelp sends whoever misused a command to its help, unless err knows
// better.
func withHelp(c *cli.Context, err error) error {
	if !errors.Is(err, hint.ErrUsage) || hint.Of(err) != "" {
		return err
	}
	return hint.With(err, "see `%s --help`", c.Command.HelpName)
}
