package kbs

import (
	"cmp"
	"context"
	"crypto/hpke"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/ccrun/ccrun/secret"
)

// MaxSecretBytes bounds a released secret: a resource and its HPKE tag.
const MaxSecretBytes = MaxResourceBytes + 64

// Client is the guest's side of the native dialect. The zero value refuses:
// it needs a URL and a pin.
type Client struct {
	URLs       []string // https://HOST[:PORT], tried in order
	PinnedKeys []string // SHA-256 of SubjectPublicKeyInfo, hex: the leaf's or a CA's

	Timeout time.Duration // of one HTTP exchange; zero: 10 s
	// Wait is how long to go on asking while no server can answer: a refusal
	// ends it at once. Zero: each is asked once.
	Wait time.Duration
	// Dial replaces the network, e.g. in tests; nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// ReleaseRequest is what a guest knows of itself.
type ReleaseRequest struct {
	WorkloadID     string
	TEE            TEE
	IdentityDigest Digest
	FooterDigest   Digest
	// Attest gets Evidence for the report data. Its error ends Release.
	Attest func(context.Context, ReportData) (Evidence, error)
	// Opens, if set, says whether a DiskKey is the one that the guest's disk has.
	// While the workload's DiskKey is being rotated, an image has the old or the
	// new one: if Opens refuses the first, the other is asked for.
	Opens func(secret.Bytes) bool
	// RenewalKey, if set, is bound into the Evidence: see Session.Renewal.
	RenewalKey *TEEKey
	// OnServerTime, if set, gets the time of the authenticated server before
	// Attest is called, and again with the secret.
	OnServerTime func(time.Time)
	// OnRetry, if set, is told why a try failed that another one follows, and
	// after which pause: none before the next URL.
	OnRetry func(why error, pause time.Duration)
	// OnMoved, if set, is told of each address that a server which has moved
	// gives for itself, before it is asked.
	OnMoved func(from, to string)
}

// ReleaseName is the name under which a workload's DiskKey is sealed: see
// ReleaseInfo.
func ReleaseName(workloadID string) string { return "workload/" + workloadID + "/key" }

// StagedName is ReleaseName for the DiskKey of a rotation under way.
func StagedName(workloadID string) string { return ReleaseName(workloadID) + "/staged" }

// Release attests and returns the workload's DiskKey. A server that cannot be
// reached, or is in trouble, gives way to the next one and is asked again for as
// long as Wait says; a refusal is final and comes back as *ProblemError. A server
// that says it has moved is followed, once. Each try has its own TEEKey.
func (c *Client) Release(ctx context.Context, req ReleaseRequest) (secret.Bytes, error) {
	s, k, err := c.Open(ctx, req)
	if err != nil {
		return secret.Bytes{}, err
	}
	s.Close()
	return k, nil
}

// Open is Release for a guest that will Confirm: the session stays open.
func (c *Client) Open(ctx context.Context, req ReleaseRequest) (s *Session, k secret.Bytes, err error) {
	err = c.each(ctx, req, "the disk key", func(base string, pins Pins) error {
		if s, err = c.try(ctx, base, pins, req); err != nil {
			return err
		}
		if k, err = s.DiskKey(ctx); err != nil {
			s.Close()
		}
		return err
	})
	if err != nil {
		return nil, secret.Bytes{}, err
	}
	return s, k, nil
}

// Confirm tells the server that this guest has its disk open, in session s or,
// if that fails, in new ones, as Release does. It returns nil once a server is
// known to remember it, and so gives this VM no DiskKey any more.
func (c *Client) Confirm(ctx context.Context, req ReleaseRequest, s *Session) error {
	err := c.During(ctx, req, s, "confirming the release", func(s *Session) error { return s.Confirm(ctx) })
	if isConfirmed(err) { // the answer was lost, not the question
		return nil
	}
	return err
}

// During calls act with session s or, if that fails, with new ones, as Release
// does. doing says what act does.
func (c *Client) During(ctx context.Context, req ReleaseRequest, s *Session, doing string, act func(*Session) error) error {
	err := act(s)
	if err == nil || isFinal(err) && !isExpired(err) {
		return err
	}
	req.retry(fmt.Errorf("%s: %w", doing, err), 0)
	return c.each(ctx, req, "a new session, "+doing, func(base string, pins Pins) error {
		s, err := c.try(ctx, base, pins, req)
		if err != nil {
			return err
		}
		defer s.Close()
		return act(s)
	})
}

func isConfirmed(err error) bool {
	var p *ProblemError
	return errors.As(err, &p) && p.Code == CodeAlreadyReleased
}

func isExpired(err error) bool {
	var p *ProblemError
	return errors.As(err, &p) && p.Code == CodeSessionExpired
}

// each calls try with one URL after the other until one answers or refuses. what
// says what is asked for.
func (c *Client) each(ctx context.Context, req ReleaseRequest, what string, try func(base string, pins Pins) error) error {
	pins, err := ParsePins(c.PinnedKeys)
	if err != nil {
		return err
	}
	if err := c.check(req); err != nil {
		return err
	}
	q := inquiry{what: what, wait: c.Wait, final: isFinal, retry: req.retry}
	return q.ask(ctx, c.URLs, func(u string) error { return c.tryAt(ctx, u, pins, req, try) })
}

func (c *Client) check(req ReleaseRequest) error {
	switch {
	case len(c.URLs) == 0:
		return errors.New("no attestation server URL")
	case req.Attest == nil:
		return errors.New("no way to get evidence")
	case req.WorkloadID == "" || !req.TEE.Valid():
		return fmt.Errorf("workload %q with TEE %q: both are needed", req.WorkloadID, req.TEE)
	}
	return nil
}

// attest makes the TEEKey, gets Evidence bound to it and shows it.
func attest(ctx context.Context, x *exchange, nonce []byte, req ReleaseRequest) (hpke.PrivateKey, ReportData, error) {
	k, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		return nil, ReportData{}, fmt.Errorf("making the TEE key: %w", err)
	}
	runtime := RuntimeData{
		Nonce:          nonce,
		TEEKey:         TEEKey{KEM: k.KEM().ID(), Public: k.PublicKey().Bytes()},
		IdentityDigest: req.IdentityDigest,
		FooterDigest:   req.FooterDigest,
		RenewalKey:     req.RenewalKey,
	}
	rd, err := Binding(req.WorkloadID, runtime)
	if err != nil {
		return nil, ReportData{}, &localError{err}
	}
	evidence, err := req.Attest(ctx, rd)
	if err != nil {
		return nil, ReportData{}, &localError{fmt.Errorf("getting evidence: %w", err)}
	}
	var answer AttestAnswer
	in := AttestRequest{RuntimeData: runtime, Evidence: evidence}
	if err := x.do(ctx, http.MethodPost, "/v1/attest", in, &answer, MaxAnswerBody); err != nil {
		return nil, ReportData{}, err
	}
	if answer.Result != Affirming {
		return nil, ReportData{}, fmt.Errorf("attestation result %q, expected %q", answer.Result, Affirming)
	}
	return k, rd, nil
}

// open decrypts what the server sealed to k under info.
func open(k hpke.PrivateKey, s Sealed, info []byte) (secret.Bytes, error) {
	return openUpTo(k, s, info, MaxSecretBytes)
}

func openUpTo(k hpke.PrivateKey, s Sealed, info []byte, most int) (secret.Bytes, error) {
	if len(s.Ciphertext) > most {
		return secret.Bytes{}, fmt.Errorf("sealed secret of %d bytes, at most %d allowed", len(s.Ciphertext), most)
	}
	r, err := hpke.NewRecipient(s.Enc, k, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("opening the released key: %w", err)
	}
	b, err := r.Open(nil, s.Ciphertext)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("opening the released key: %w", err)
	}
	if len(b) == 0 {
		return secret.Bytes{}, errors.New("the released key is empty")
	}
	return secret.New(b), nil
}

func (c *Client) connect(base string, pins Pins) (*exchange, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, &localError{fmt.Errorf("server URL: %w", err)}
	}
	var h1 http.Protocols
	h1.SetHTTP1(true)
	t := &http.Transport{
		Proxy:           nil, // the environment is the host's to set
		DialContext:     c.Dial,
		TLSClientConfig: pins.tlsConfig(u.Hostname()),
		Protocols:       &h1,
		MaxConnsPerHost: 1,
	}
	x, err := newExchange(t, base, cmp.Or(max(c.Timeout, 0), 10*time.Second))
	if err != nil {
		return nil, &localError{err}
	}
	return x, nil
}

func (r ReleaseRequest) reportTime(t time.Time) {
	if r.OnServerTime != nil && !t.IsZero() {
		r.OnServerTime(t)
	}
}

func (r ReleaseRequest) retry(why error, pause time.Duration) {
	if r.OnRetry != nil {
		r.OnRetry(why, pause)
	}
}

// localError is the guest's own: no other server would help.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

func isFinal(err error) bool {
	var m *moveError
	if errors.As(err, &m) {
		return false
	}
	var p *ProblemError
	if errors.As(err, &p) {
		return p.final()
	}
	var l *localError
	return errors.As(err, &l) || errors.Is(err, context.Canceled)
}
