package answer

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/secret"
)

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return WriteBody(w, status, b)
}

// WriteBody answers with JSON that is made already.
func WriteBody(w http.ResponseWriter, status int, b []byte) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the peer may be gone
	return nil
}

// ReadJSON decodes a body of at most limit bytes, strictly.
func ReadJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
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

// Bearer is the Authorization header's token, empty if there is none.
func Bearer(r *http.Request) secret.Bytes {
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

// Peer is the address that a request came from.
func Peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// ReadBody reads a body of at most limit bytes.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, refusal.New(kbs.CodeTooLarge, "body of more than %d bytes", limit)
	case err != nil:
		return nil, refusal.New(kbs.CodeBadRequest, "reading body: %v", err)
	}
	return b, nil
}

// ReadForeign decodes a body of another project's protocol.
func ReadForeign(body []byte, v any) error {
	if err := kbs.UnmarshalOpen(body, v); err != nil {
		return refusal.New(kbs.CodeBadRequest, "body: %v", err)
	}
	return nil
}

// OneCookie is the value of the one cookie of that name. The C client sends
// the same twice; two different ones are nobody's.
func OneCookie(r *http.Request, name string) ([]byte, bool) {
	all := r.CookiesNamed(name)
	if len(all) == 0 {
		return nil, false
	}
	for _, c := range all[1:] {
		if c.Value != all[0].Value {
			return nil, false
		}
	}
	return []byte(all[0].Value), true
}

// StatusWriter remembers the status of an answer.
type StatusWriter struct {
	http.ResponseWriter
	Status int // before WriteHeader: what the answer has without it
}

// WriteHeader implements http.ResponseWriter.
func (w *StatusWriter) WriteHeader(status int) {
	w.Status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *StatusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
