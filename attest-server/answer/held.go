package answer

import (
	"bytes"
	"net/http"
)

// Held is an answer that is written to memory until it is sent.
type Held struct {
	to     http.ResponseWriter
	status int
	body   bytes.Buffer
}

// Hold keeps what is answered to w. Headers are w's own.
func Hold(w http.ResponseWriter) *Held { return &Held{to: w, status: http.StatusOK} }

// Header implements http.ResponseWriter.
func (h *Held) Header() http.Header { return h.to.Header() }

// WriteHeader implements http.ResponseWriter.
func (h *Held) WriteHeader(status int) { h.status = status }

// Write implements http.ResponseWriter.
func (h *Held) Write(b []byte) (int, error) { return h.body.Write(b) }

// Send sends the answer.
func (h *Held) Send() {
	h.to.WriteHeader(h.status)
	_, _ = h.body.WriteTo(h.to) // the peer may be gone
}
