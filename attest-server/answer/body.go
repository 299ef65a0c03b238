package answer

import (
	"encoding/base64"
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

// maxCheckpointHeader keeps the headers of an answer well below the 16 KiB that
// guests take.
const maxCheckpointHeader = 8 << 10

// SetCheckpoint puts the checkpoint into the header of an answer with a secret.
// One that is too long for that is left out: the log's readers get it elsewhere.
func SetCheckpoint(w http.ResponseWriter, note []byte) {
	if h := base64.StdEncoding.EncodeToString(note); h != "" && len(h) <= maxCheckpointHeader {
		w.Header().Set(kbs.CheckpointHeader, h)
	}
}

// ReadJSON decodes a body of at most limit bytes, strictly.
func ReadJSON(w http.ResponseWriter, r *http.Request, limit int64, v any) error {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return refusal.New(kbs.CodeBadRequest, "body of type %q, expected application/json", r.Header.Get("Content-Type"))
	}
	b, err := ReadBody(w, r, limit)
	if err != nil {
		return err
	}
	if err := kbs.UnmarshalStrict(b, v); err != nil {
		return refusal.New(kbs.CodeBadRequest, "body: %v", err)
	}
	return nil
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

// ReadBody reads a body of at most limit bytes, into no more memory than it
// needs.
func ReadBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, refusal.New(kbs.CodeTooLarge, "body of %d bytes, at most %d allowed", r.ContentLength, limit)
	}
	if b, ok := r.Body.(*body); ok {
		if err := b.reserve(); err != nil {
			return nil, err
		}
	}
	b, err := read(http.MaxBytesReader(w, r.Body, limit), r.ContentLength)
	var tooLarge *http.MaxBytesError
	var refused *refusal.Error
	switch {
	case errors.As(err, &tooLarge):
		return nil, refusal.New(kbs.CodeTooLarge, "body of more than %d bytes", limit)
	case errors.As(err, &refused):
		return nil, refused
	case err != nil:
		return nil, refusal.New(kbs.CodeBadRequest, "reading body: %v", err)
	}
	return b, nil
}

// read reads size bytes, or, if that is negative, all.
func read(r io.Reader, size int64) ([]byte, error) {
	if size < 0 {
		return io.ReadAll(r)
	}
	b := make([]byte, size)
	_, err := io.ReadFull(r, b)
	return b, err
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
