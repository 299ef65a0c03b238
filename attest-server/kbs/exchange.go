package kbs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ccrun/ccrun/bounded"
)

// ErrDenied is what a ProblemError of code attestation_denied matches.
var ErrDenied = errors.New("attestation denied")

// ProblemError is a server's refusal. It never carries a secret.
type ProblemError struct {
	Problem
	// RetryAfter is how long a server in trouble wants to be left alone.
	RetryAfter time.Duration
}

func (e *ProblemError) wantedPause() time.Duration { return e.RetryAfter }

func (e *ProblemError) Error() string {
	s := fmt.Sprintf("server answers %d %s", e.Status, e.Code)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	return s
}

// Is makes errors.Is(err, ErrDenied) true for a denied attestation.
func (e *ProblemError) Is(target error) bool {
	return target == ErrDenied && e.Code == CodeAttestationDenied
}

// Hint says what the owner can do.
func (e *ProblemError) Hint() string {
	switch {
	case e.Session != "":
		return "the workload's owner sees every rule with `ccrun explain " + e.Session + "`"
	case e.Code == CodeUnauthorized:
		return "give a valid token with --token-file; `attest-server token create` on the server makes one"
	case e.Code == CodeForbidden:
		return "it takes a token of another role, principal or tenant; `attest-server token ls` on the server tells whose this one is"
	case e.Code == CodeNotFound:
		return lists(e.Detail)
	}
	return ""
}

// lists is how to find out what there is, of what detail says is not there.
func lists(detail string) string {
	for kind, next := range map[string]string{
		"workload": "`ccrun workload ls` lists what there is", "session": "`ccrun session ls` lists the latest",
		"resource": "`ccrun resource ls` lists what there is", "machine": "`attest-server machines` lists those seen",
	} {
		if strings.HasPrefix(detail, kind+" ") || strings.Contains(detail, ": "+kind+" ") {
			return next
		}
	}
	return ""
}

// final says whether asking again, here or elsewhere, is pointless.
func (e *ProblemError) final() bool {
	return e.Status < 500 && e.Status != http.StatusTooManyRequests && e.Code != CodeSessionExpired
}

// exchange is one HTTP peer: a client that follows no redirects, and bounds.
type exchange struct {
	client *http.Client
	base   string
	bearer string
}

func newExchange(t *http.Transport, base string, timeout time.Duration) (*exchange, error) {
	if err := CheckServerURL(base); err != nil {
		return nil, err
	}
	t.TLSHandshakeTimeout = timeout
	t.ResponseHeaderTimeout = timeout
	t.MaxResponseHeaderBytes = 16 << 10
	return &exchange{
		base: strings.TrimSuffix(base, "/"),
		client: &http.Client{
			Transport: t,
			Timeout:   timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			},
		},
	}, nil
}

func (x *exchange) close() { x.client.CloseIdleConnections() }

// do sends in (nil: no body) and decodes the answer of at most limit bytes
// into out (nil: none expected; *[]byte: as it is).
func (x *exchange) do(ctx context.Context, method, path string, in, out any, limit int64) error {
	req, wipe, err := x.request(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer wipe()
	resp, err := x.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return problemOf(resp, method+" "+path)
	}
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, limit))
		return err
	}
	if text, ok := out.(*[]byte); ok {
		*text, err = bounded.Read(resp.Body, "the answer to "+method+" "+path, limit)
		return err
	}
	if ct := mediaType(resp); ct != "application/json" {
		return fmt.Errorf("%s %s: answer of type %q, expected application/json: is this an attest-server?", method, path, ct)
	}
	if err := DecodeStrict(resp.Body, limit, out); err != nil {
		return fmt.Errorf("reading the answer to %s %s: %w", method, path, err)
	}
	return nil
}

// request builds the request; wipe overwrites its body, which may hold a
// DiskKey.
func (x *exchange) request(ctx context.Context, method, path string, in any) (*http.Request, func(), error) {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, nil, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, x.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if x.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+x.bearer)
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	return req, func() { clear(body) }, nil
}

// problemOf turns a refusal into a ProblemError, also when the peer is no
// attest-server and sends something else.
func problemOf(resp *http.Response, what string) error {
	if resp.StatusCode/100 == 3 {
		return fmt.Errorf("%s: server redirects to %q: not followed, give the final URL", what, resp.Header.Get("Location"))
	}
	var p Problem
	if mediaType(resp) == "application/problem+json" {
		if err := DecodeStrict(resp.Body, MaxAnswerBody, &p); err == nil && p.Code != "" && p.Status == resp.StatusCode {
			return &ProblemError{p, retryAfter(resp)}
		}
	}
	err := fmt.Errorf("%s: server answers %s without a problem description: is this an attest-server?", what, resp.Status)
	return &proxyError{err, retryAfter(resp)}
}

// proxyError is trouble told in other words than ours, by a proxy for example.
type proxyError struct {
	error
	after time.Duration
}

func (e *proxyError) wantedPause() time.Duration { return e.after }

func mediaType(resp *http.Response) string {
	t, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return strings.TrimSpace(t)
}
