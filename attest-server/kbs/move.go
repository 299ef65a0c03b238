package kbs

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/ccrun/ccrun/hint"
)

// maxMoveEntries bounds a Move's URLs, and its pins.
const maxMoveEntries = 8

// Move says where a server is now, and how to know it there.
type Move struct {
	URLs       []string `json:"urls"`        // https://HOST[:PORT], tried in order
	PinnedKeys []string `json:"pinned_keys"` // as a Client's: these alone hold there
}

// Check refuses a Move that leaves anything open.
func (m Move) Check() error {
	if n := len(m.URLs); n == 0 || n > maxMoveEntries {
		return fmt.Errorf("move to %d URLs, expected 1 to %d", n, maxMoveEntries)
	}
	for _, raw := range m.URLs {
		if _, err := addressOf(raw); err != nil {
			return err
		}
	}
	if n := len(m.PinnedKeys); n > maxMoveEntries {
		return fmt.Errorf("move with %d pinned keys, expected 1 to %d", n, maxMoveEntries)
	}
	_, err := ParsePins(m.PinnedKeys)
	return err
}

// MovedRequest asks a server that has answered CodeMoved where it is now:
// POST /v1/moved.
type MovedRequest struct {
	Version    int    `json:"version"` // 1
	WorkloadID string `json:"workload_id"`
	Challenge  []byte `json:"challenge"` // NonceSize random bytes, for this question alone
}

// MovedAnswer is the answer to MovedRequest. What vouches for it is the channel,
// TLS to a pinned key; workload and challenge are the question's, so that none
// serves for another.
type MovedAnswer struct {
	WorkloadID string `json:"workload_id"`
	Challenge  []byte `json:"challenge"`
	To         Move   `json:"to"`
}

// moveError is a move that was not followed. It is not final: another server,
// or this one later, may know better.
type moveError struct {
	from string
	err  error
}

func (e *moveError) Error() string { return e.from + " has moved: " + e.err.Error() }
func (e *moveError) Unwrap() error { return e.err }

// tryAt calls try with the server at base, or if that has moved, with where it
// is now. There a second move is not followed, so that no chain of servers that
// were given up, whose keys are guarded less and less, leads a guest on.
func (c *Client) tryAt(ctx context.Context, base string, pins Pins, req ReleaseRequest, try func(string, Pins) error) error {
	err := try(base, pins)
	if !isMoved(err) {
		return err
	}
	to, err := c.whereTo(ctx, base, pins, req.WorkloadID)
	if err != nil {
		return &moveError{base, err}
	}
	return c.follow(ctx, base, to, req, try)
}

// follow tries each of a Move's URLs, under its pins and no others.
func (c *Client) follow(ctx context.Context, base string, to Move, req ReleaseRequest, try func(string, Pins) error) error {
	pins, err := ParsePins(to.PinnedKeys)
	if err != nil {
		return &moveError{base, err}
	}
	var failed []error
	for _, u := range to.URLs {
		if req.OnMoved != nil {
			req.OnMoved(base, u)
		}
		err := try(u, pins)
		if isMoved(err) {
			err = hint.With(&moveError{base, fmt.Errorf("to %s, which has moved too, and only one move is followed", u)},
				"have `attest-server move` at %s name the last address", base)
		}
		if err == nil || isFinal(err) || ctx.Err() != nil {
			return err
		}
		if errors.Is(err, ErrUnpinned) {
			err = hint.With(err, "have `attest-server move` at %s name the key of the server at %s", base, u)
		}
		failed = append(failed, fmt.Errorf("to %s: %w", u, err))
	}
	return &moveError{base, errors.Join(failed...)}
}

// whereTo asks a server that has moved where it is now.
func (c *Client) whereTo(ctx context.Context, base string, pins Pins, workloadID string) (Move, error) {
	x, err := c.connect(base, pins)
	if err != nil {
		return Move{}, err
	}
	defer x.close()
	q := MovedRequest{Version: 1, WorkloadID: workloadID, Challenge: make([]byte, NonceSize)}
	if _, err := rand.Read(q.Challenge); err != nil {
		return Move{}, err
	}
	var a MovedAnswer
	if err := x.do(ctx, http.MethodPost, "/v1/moved", q, &a, MaxAnswerBody); err != nil {
		return Move{}, fmt.Errorf("asking where to: %v", err) // none of its refusals is final
	}
	return a.To, a.check(q, base)
}

// check refuses an answer to another question, and one that leads nowhere.
func (a *MovedAnswer) check(q MovedRequest, base string) error {
	switch {
	case !bytes.Equal(a.Challenge, q.Challenge):
		return errors.New("its answer is to another question: replayed?")
	case a.WorkloadID != q.WorkloadID:
		return fmt.Errorf("its answer is for workload %q, expected %q", a.WorkloadID, q.WorkloadID)
	}
	if err := a.To.Check(); err != nil {
		return err
	}
	from, err := addressOf(base)
	if err != nil {
		return err
	}
	for _, u := range a.To.URLs {
		if to, err := addressOf(u); err != nil || to == from {
			return fmt.Errorf("to %s, where it was: %w", u, errors.Join(err, errors.New("a move in a circle")))
		}
	}
	return nil
}

// addressOf is host and port of a server's URL, in one spelling.
func addressOf(raw string) (string, error) {
	if err := CheckServerURL(raw); err != nil {
		return "", err
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", err
	}
	if u.Hostname() == "" {
		return "", fmt.Errorf("server URL %q has no host", raw)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(strings.TrimSuffix(strings.ToLower(u.Hostname()), "."), port), nil
}

func isMoved(err error) bool {
	var p *ProblemError
	return errors.As(err, &p) && p.Code == CodeMoved
}

// Probe says whether a server at url shows a pinned key. It says nothing but TLS.
func (p Pins) Probe(ctx context.Context, raw string) error {
	address, err := addressOf(raw)
	if err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	t := tls.Client(conn, p.tlsConfig(host))
	defer t.Close()
	return t.HandshakeContext(ctx)
}
