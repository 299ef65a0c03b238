package witness

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"time"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/secret"
)

// answerTime is how long one answer may take.
const answerTime = 10 * time.Second

// Web is how a witness on the network is reached. It follows no redirect: a
// witness is who the operator named.
type Web struct {
	URL    string
	client *http.Client
	token  func() (secret.Bytes, error) // nil: none
}

// NewWeb reaches url; roots nil: the system's authorities. token, if not nil, is
// asked for a bearer token each time.
func NewWeb(url string, roots *x509.CertPool, token func() (secret.Bytes, error)) *Web {
	return &Web{URL: url, token: token, client: &http.Client{
		Timeout: answerTime,
		Transport: &http.Transport{
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			MaxResponseHeaderBytes: 16 << 10, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// reply is an answer, read whole.
type reply struct {
	status int
	kind   string // Content-Type
	body   []byte
}

// do asks; whatever is no answer of at most limit bytes is ErrAway.
func (w *Web) do(ctx context.Context, method, path string, body []byte, limit int64) (r reply, err error) {
	req, err := http.NewRequestWithContext(ctx, method, w.URL+path, bytes.NewReader(body))
	if err != nil {
		return r, err
	}
	if w.token != nil {
		t, err := w.token()
		if err != nil {
			return r, fmt.Errorf("%w: reading its token: %w", ErrAway, err)
		}
		req.Header.Set("Authorization", "Bearer "+string(t.Reveal()))
		t.Wipe()
	}
	if body != nil {
		req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return r, fmt.Errorf("%w: %w", ErrAway, err)
	}
	defer resp.Body.Close()
	r = reply{status: resp.StatusCode, kind: resp.Header.Get("Content-Type")}
	if r.body, err = bounded.Read(resp.Body, "the answer to "+method, limit); err != nil {
		return r, fmt.Errorf("%w: %w", ErrAway, err)
	}
	return r, nil
}

func (r reply) unexpected(what string) error {
	return fmt.Errorf("%w: %s: it answers %d %s: %.200q", ErrAway, what, r.status, http.StatusText(r.status), r.body)
}
