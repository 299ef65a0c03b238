package guest

import (
	"github.com/ccrun/ccrun/krun"
)

// Exit statuses of a guest whose workload never ran: a server refused the key,
// and as podman-run(1) has them the agent's own failure, a command that cannot
// be executed, and one that was not found.
const (
	statusDenied        = krun.StatusDenied
	statusBootFailed    = 125
	statusNotExecutable = 126
	statusNotFound      = 127
)

// statusError is an error that decides the exit status.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }
