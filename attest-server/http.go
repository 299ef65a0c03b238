package attestserver

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"path"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
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
	case kbs.CodeConflict, kbs.CodeDuplicateDigest:
		return http.StatusConflict
	case kbs.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case kbs.CodeRateLimited:
		return http.StatusTooManyRequests
	case kbs.CodeUnavailable:
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// maxDrain is how much of a refused request's body is read all the same.
const maxDrain = kbs.MaxAttestBody

// handle is respond in the native dialect.
func (s *Server) handle(h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return s.respond(writeProblem, h)
}

// respond is the one place where errors become HTTP, in a dialect's form.
func (s *Server) respond(write func(http.ResponseWriter, *refusal.Error), h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		err := s.guard(h, w, r)
		if err == nil {
			return
		}
		var e *refusal.Error
		if !errors.As(err, &e) {
			e = failure(err)
		}
		s.logFailure(r, e)
		// Closing with a body half read resets the connection, and the client
		// may never see why.
		_, _ = io.CopyN(io.Discard, r.Body, maxDrain)
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
func (s *Server) guard(h func(http.ResponseWriter, *http.Request) error, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return h(w, r)
}

func (s *Server) logFailure(r *http.Request, e *refusal.Error) {
	log := s.Log.Debug
	if statusOf(e.Code) >= 500 {
		log = s.Log.Error
	}
	log("request failed", "method", r.Method, "path", r.URL.Path, "peer", peer(r), "session", e.Session, "error", e)
}

func writeProblem(w http.ResponseWriter, e *refusal.Error) {
	status := statusOf(e.Code)
	b, err := json.Marshal(kbs.Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status,
		Code: e.Code, Detail: e.Detail, Session: e.Session,
	})
	if err != nil { // strings and an int
		status, b = http.StatusInternalServerError, nil
	}
	switch e.Code {
	case kbs.CodeUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case kbs.CodeUnavailable, kbs.CodeRateLimited:
		w.Header().Set("Retry-After", strconv.Itoa(retryAfter(e.RetryAfter)))
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the peer may be gone
}

func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeBody(w, status, b)
}

// writeBody answers with JSON.
func writeBody(w http.ResponseWriter, status int, b []byte) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the peer may be gone
	return nil
}

// readJSON decodes a body of at most limit bytes, strictly.
func readJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return refusal.New(kbs.CodeBadRequest, "body of type %q, expected application/json", r.Header.Get("Content-Type"))
	}
	if r.ContentLength > limit {
		return refusal.New(kbs.CodeTooLarge, "body of %d bytes, at most %d allowed", r.ContentLength, limit)
	}
	err := kbs.DecodeStrict(http.MaxBytesReader(w, r.Body, limit+1), limit, v)
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kbs.ErrTooLarge) || errors.As(err, &tooLarge):
		return refusal.New(kbs.CodeTooLarge, "body of more than %d bytes", limit)
	}
	return refusal.New(kbs.CodeBadRequest, "body: %v", err)
}

// bearer is the Authorization header's token, empty if there is none.
func bearer(r *http.Request) secret.Bytes {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return secret.Bytes{}
	}
	scheme, token, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return secret.Bytes{}
	}
	return secret.New([]byte(token))
}

func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// noRedirects answers 404 where ServeMux would redirect to a cleaned path:
// our clients follow no redirects, and others would turn POST into GET.
func noRedirects(next http.Handler, foreign func(http.ResponseWriter, *refusal.Error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := r.URL.Path
		if r.Method == http.MethodConnect || p == "" || p[0] != '/' || (p != "/" && path.Clean(p) != p) {
			write := writeProblem
			if strings.HasPrefix(p, "/kbs/v0/") {
				write = foreign // whose clients read no other form of an error
			}
			write(w, &refusal.Error{Code: kbs.CodeNotFound, Detail: "no such path"})
			return
		}
		next.ServeHTTP(w, r)
	})
}
