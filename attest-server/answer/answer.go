// Package answer is the HTTP form of what the server says: how errors become
// answers, in each dialect's form, how bodies are read, and who has asked too
// often.
package answer

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
)

// statusOf is the HTTP status of every error code; others are 500.
func statusOf(code string) int {
	switch code {
	case kbs.CodeBadRequest:
		return http.StatusBadRequest
	case kbs.CodeUnauthorized, kbs.CodeSessionExpired:
		return http.StatusUnauthorized
	case kbs.CodeForbidden, kbs.CodeQuota, kbs.CodeAttestationDenied, kbs.CodeNotAttested:
		return http.StatusForbidden
	case kbs.CodeNotFound:
		return http.StatusNotFound
	case kbs.CodeConflict, kbs.CodeDuplicateDigest, kbs.CodeAlreadyReleased, kbs.CodeVolumeRolledBack, kbs.CodeVolumeTaken:
		return http.StatusConflict
	case kbs.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case kbs.CodeRateLimited:
		return http.StatusTooManyRequests
	case kbs.CodeUnavailable, kbs.CodeMoved:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// Handler answers a request, or returns the error to be answered.
type Handler func(http.ResponseWriter, *http.Request) error

// Form writes a refusal as a dialect's clients read it.
type Form func(http.ResponseWriter, *refusal.Error)

// Responder makes handlers of HTTP out of ours.
type Responder struct{ Log *slog.Logger }

// Handle is Respond in the native dialect.
func (p Responder) Handle(h Handler) http.HandlerFunc { return p.Respond(Problem, h) }

// Respond is the one place where errors become HTTP, in a dialect's form.
func (p Responder) Respond(write Form, h Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		err := guard(h, w, r)
		if err == nil {
			return
		}
		var e *refusal.Error
		if !errors.As(err, &e) {
			e = failure(err)
		}
		p.logFailure(r, e)
		drain(r)
		write(w, e)
	}
}

// failure is an error that no handler has a word for. Trouble with the
// database passes, or is ended by the operator: clients try again.
func failure(err error) *refusal.Error {
	switch {
	case errors.Is(err, store.ErrUnavailable):
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the database does not answer", Cause: err}
	case errors.Is(err, store.ErrWrongMasterKey), errors.Is(err, store.ErrNewerSchema):
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "this server has fallen behind the others on its database", Cause: err}
	}
	return &refusal.Error{Code: kbs.CodeInternal, Detail: "the server's log says more", Cause: err}
}

// guard turns a panic into an error of this one request: hostile bytes reach
// parsers that are not ours. Nobody is granted anything by it.
func guard(h Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return h(w, r)
}

func (p Responder) logFailure(r *http.Request, e *refusal.Error) {
	log := p.Log.Debug
	if statusOf(e.Code) >= 500 && e.Code != kbs.CodeMoved {
		log = p.Log.Error
	}
	log("request failed", "method", r.Method, "path", r.URL.Path, "peer", Peer(r), "session", e.Session, "error", e)
}

// ProblemOf is a refusal as RFC 9457 describes it.
func ProblemOf(e *refusal.Error) kbs.Problem {
	status := statusOf(e.Code)
	return kbs.Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Code: e.Code, Detail: e.Detail, Session: e.Session}
}

// Problem is the native form: RFC 9457.
func Problem(w http.ResponseWriter, e *refusal.Error) {
	p := ProblemOf(e)
	status := p.Status
	b, err := json.Marshal(p)
	if err != nil { // strings and an int
		status, b = http.StatusInternalServerError, nil
	}
	switch e.Code {
	case kbs.CodeUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case kbs.CodeUnavailable, kbs.CodeRateLimited, kbs.CodeMoved:
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter(e.RetryAfter)))
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the peer may be gone
}

// retryAfter is a wait in whole seconds, as the header wants it.
func retryAfter(wait time.Duration) int { return max(1, int(math.Ceil(wait.Seconds()))) }
