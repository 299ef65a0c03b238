package cdh

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// refusal is an answer that is none, with the status that says why.
type refusal struct {
	status int
	text   string
	after  int // seconds to wait, for Retry-After
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status: status, text: fmt.Sprintf(format, args...)}
}

// statusOf is what a program of the workload may go by. What the key server says
// of why is for the workload's owner.
func statusOf(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	var p *kbs.ProblemError
	if !errors.As(err, &p) {
		return &refusal{http.StatusServiceUnavailable, "the key server cannot be reached", 5}
	}
	switch p.Status {
	case http.StatusBadRequest:
		return &refusal{http.StatusBadRequest, "the key server does not take this request", 0}
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusConflict:
		return &refusal{http.StatusForbidden, "the key server refuses; the workload's owner sees why with `ccrun explain`", 0}
	case http.StatusNotFound:
		return &refusal{http.StatusNotFound, "no such resource, or it is not for this workload", 0}
	case http.StatusRequestEntityTooLarge:
		return &refusal{http.StatusRequestEntityTooLarge, "the resource is too large", 0}
	case http.StatusTooManyRequests:
		return &refusal{http.StatusTooManyRequests, "the key server wants to be asked less often", max(1, int(p.RetryAfter.Seconds()))}
	}
	return &refusal{http.StatusServiceUnavailable, "the key server is in trouble", max(1, int(p.RetryAfter.Seconds()))}
}

func writeRefusal(w http.ResponseWriter, err error) {
	r := statusOf(err)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	switch {
	case r.after > 0:
		w.Header().Set("Retry-After", strconv.Itoa(r.after))
	case r.status == http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodGet)
	}
	w.WriteHeader(r.status)
	_, _ = io.WriteString(w, r.text+"\n")
}

// write sends an answer; who does not read it has none.
func write(w http.ResponseWriter, kind string, body []byte) error {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
	return nil
}

func writeJSON(w http.ResponseWriter, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return write(w, "application/json", b)
}
