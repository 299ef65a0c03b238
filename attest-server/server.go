// Package attestserver is the trust anchor: it holds workloads' keys and
// releases one only to a guest that has proved, with fresh Evidence, to be
// the workload as registered (the Relying Party of RFC 9334).
package attestserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"slices"
	"time"

	"github.com/ccrun/ccrun/attest-server/admin"
	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/budget"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/metrics"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
	"github.com/ccrun/ccrun/secret"
)

// Store is what the server's rooms need of a store, each its few methods. A nil
// error means that the change is durable.
type Store interface {
	release.Store
	release.PolicyStore
	admin.Store
	// Ready says whether a guest could attest, as far as the store goes.
	Ready(ctx context.Context) error
}

// Config is what a Server is made of. Everything without a stated default is
// needed: New refuses its zero value.
type Config struct {
	Store Store
	// Owners and Auditors are the store for their requests, which then use no
	// connection of its guests'. nil: Store.
	Owners   admin.Store
	Auditors admin.RecordStore

	Verifiers map[kbs.TEE]verifier.Verifier
	Clock     func() time.Time
	Rand      io.Reader
	Log       *slog.Logger

	// SigningKey, on P-256, signs attestation results for others (EAR). nil:
	// none are signed.
	SigningKey *ecdsa.PrivateKey
	// Shared is what several servers behind one address have in common. nil:
	// this one is alone, and keeps sessions in its memory.
	Shared *session.Shared
	// Clients are the client certificates accepted in place of tokens, if
	// ClientRoots vouch for them. The TLS listener has to ask for them.
	Clients     []admin.ClientCertificate
	ClientRoots *x509.CertPool
	// Dialects are the protocols that guests may speak. None: native and
	// trustee. What owners use is always there.
	Dialects []session.Dialect
	// RenewalSecret seals what guests get secrets with after their session, for
	// all servers of the store. Empty: drawn, and guests of before a restart get
	// none.
	RenewalSecret secret.Bytes
	// SessionLife is how long a nonce can be used, and then again how long
	// its key can be fetched. Zero: 60 s.
	SessionLife time.Duration
	// ReleasesPerSession is how often one session may fetch its key, so that
	// an answer lost on the way does not cost a new attestation. Zero: 3.
	ReleasesPerSession int
	// MaxSessions bounds the sessions granted within the last two lives, about
	// 2 KiB each, and 16 times as many denied ones. Over it, attest answers
	// 503. Sessions that have not attested cost nothing. Zero: 65536.
	MaxSessions int
	// MaxVerifying bounds concurrent appraisals; others wait, in turn by address.
	// Zero: four for each processor.
	MaxVerifying int

	// Policy is what is asked of every workload beside its own rules: see
	// Prepare. nil: nothing.
	Policy *kbs.Policy
	// Advisories is what is known to be broken in firmware. nil: the table that
	// is built in.
	Advisories *advisory.Table

	Limits answer.RateLimits
	// Metrics is where the server shows what it counts, besides at /metrics.
	// nil: there alone.
	Metrics *metrics.Registry
	// Anchor holds the store to what witnesses have seen of its audit log. nil:
	// there are none.
	Anchor release.Anchor
	// Pages is the web page, served at / and /ui/. nil: none.
	Pages http.Handler
}

// Server answers guests and owners. It is safe for concurrent use.
type Server struct {
	Config
	answers  answer.Responder
	limits   *answer.Limiter
	meters   *meters
	sessions *session.Sessions
	engine   *release.Engine
	owners   *admin.API
	native   *native
	foreign  *foreign
}

// maxWaiting is how many appraisals of one address may wait for their turn.
const maxWaiting = 1024

// New checks c and makes a Server.
func New(c Config) (*Server, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	sessions, err := session.New(session.Options{
		Clock: c.Clock, Rand: c.Rand, Log: c.Log, Life: c.SessionLife, Max: c.MaxSessions, Shared: c.Shared,
	})
	if err != nil {
		return nil, err
	}
	policies, err := release.NewPolicies(c.Store, c.Clock)
	if err == nil {
		err = policies.Set(c.Policy)
	}
	if err != nil {
		return nil, err
	}
	policies.SetAdvisories(c.Advisories)
	renewals, err := session.NewRenewals(c.RenewalSecret, c.Rand, c.Clock, c.SessionLife)
	if err != nil {
		return nil, err
	}
	s := &Server{Config: c, sessions: sessions, meters: newMeters(c.Metrics), answers: answer.Responder{Log: c.Log}}
	s.limits = answer.NewLimiter(c.Limits, c.Clock, s.answers, func(by string) { s.meters.limited.Inc(by) })
	s.engine = &release.Engine{
		Store: meteredStore{c.Store, s.meters}, Verifiers: s.meters.verifiers(c.Verifiers), Clock: c.Clock, Rand: c.Rand, Log: c.Log,
		Sessions: sessions, Policies: policies, Slots: budget.NewSlots(c.MaxVerifying, maxWaiting), ReleasesPerSession: c.ReleasesPerSession,
		Anchor: c.Anchor, Renewals: renewals,
	}
	if s.owners, err = newOwners(c, s.engine, s.limits); err != nil {
		return nil, err
	}
	s.native = &native{sessions: sessions, engine: s.engine, life: c.SessionLife, clock: c.Clock, log: c.Log, signed: s.owners.Records.Token}
	s.foreign = newForeign(c, s.engine, sessions, s.owners, s.answers)
	watch(c, sessions, s.engine.Slots, s.limits)
	if slices.Contains(c.Dialects, session.Legacy) {
		c.Log.Warn("the legacy dialect is on: its workloads are told apart by their measurement alone, which every guest of the same stock firmware and size has")
	}
	return s, nil
}

// complete checks c and puts defaults in.
func (c *Config) complete() error {
	switch {
	case c.Store == nil:
		return errors.New("attest-server without a store")
	case c.Clock == nil || c.Rand == nil || c.Log == nil:
		return errors.New("attest-server without clock, randomness or log")
	case len(c.Verifiers) == 0:
		return errors.New("attest-server without a verifier could release nothing")
	}
	if c.Owners == nil {
		c.Owners = c.Store
	}
	if c.Auditors == nil {
		c.Auditors = c.Store
	}
	for tee, v := range c.Verifiers {
		if !tee.Valid() || v == nil {
			return fmt.Errorf("attest-server with no verifier for TEE %q", tee)
		}
	}
	if err := session.CheckDialects(c.Dialects); err != nil {
		return err
	}
	if c.Advisories == nil {
		var err error
		if c.Advisories, err = advisory.Builtin(); err != nil {
			return err
		}
	}
	if len(c.Dialects) == 0 {
		c.Dialects = []session.Dialect{session.Native, session.Trustee}
	}
	if c.Metrics == nil {
		c.Metrics = metrics.New()
	}
	if c.Anchor == nil {
		c.Anchor = release.Unanchored{}
	}
	c.SessionLife = orDefault(c.SessionLife, time.Minute)
	c.ReleasesPerSession = orDefault(c.ReleasesPerSession, 3)
	c.MaxSessions = orDefault(c.MaxSessions, 1<<16)
	c.MaxVerifying = orDefault(c.MaxVerifying, 4*runtime.GOMAXPROCS(0))
	return nil
}

// verifies says whether Evidence of a TEE can be verified.
func (c *Config) verifies(tee kbs.TEE) bool { return c.Verifiers[tee] != nil }

// newOwners is what owners use.
func newOwners(c Config, e *release.Engine, limits *answer.Limiter) (*admin.API, error) {
	a := &admin.API{
		Gate:  &admin.Gate{Tokens: c.Owners, Limiter: limits, Clock: c.Clock, Log: c.Log},
		Turns: admin.NewTurns(runtime.GOMAXPROCS(0)),
		Workloads: &admin.Workloads{
			Store: c.Owners, Policies: e.Policies, Dialects: c.Dialects, Verifies: c.verifies, Clock: c.Clock, Log: c.Log,
		},
		Updates:   &admin.Updates{Store: c.Owners, Policies: e.Policies, Clock: c.Clock, Log: c.Log},
		Rotations: &admin.Rotations{Store: c.Owners, Rand: c.Rand},
		Resources: &admin.Resources{Store: c.Owners, Log: c.Log},
		Configs:   &admin.Configs{Store: c.Owners, Log: c.Log},
		Volumes:   &admin.Volumes{Store: c.Owners, Log: c.Log},
		Approvals: &admin.Approvals{Store: c.Owners, Log: c.Log},
		Policies:  &admin.TenantPolicies{Store: c.Owners, Policies: e.Policies, Log: c.Log},
		Machines:  &admin.Machines{Store: c.Owners, Log: c.Log},
		Records:   &admin.Records{Store: c.Auditors, Anchor: c.Anchor, SigningKey: c.SigningKey},
		Metrics:   c.Metrics.Handler(),
	}
	return a, a.SetClients(c.Clients, c.ClientRoots)
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// Handler is the dialects, what owners use, and the health checks.
func (s *Server) Handler() http.Handler {
	return s.meters.timed(s.limits.Limit(answer.LastChunked(s.answers.Text(answer.OneSlash(answer.NoRedirects(s.routes(), s.foreign.errors()))))))
}

func (s *Server) routes() *answer.Router {
	mux := &answer.Router{ServeMux: http.NewServeMux()}
	if slices.Contains(s.Dialects, session.Native) {
		s.native.routes(mux, s.answers)
	}
	s.foreign.routes(mux)
	s.owners.Routes(mux, s.answers)
	mux.HandleFunc("GET /v1/resources/{repo}/{type}/{tag}", s.answers.Handle(s.getResource))
	mux.HandleFunc("GET /v1/workloads/{id}/config", s.answers.Handle(s.getConfig))
	mux.HandleFunc("GET /v1/openapi.yaml", s.answers.Handle(getOpenAPI))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", s.answers.Handle(s.ready))
	if s.Pages != nil {
		pages := s.limits.BadLogins(s.owners.Turns.Pages(s.Pages, s.answers))
		mux.Handle("GET /{$}", pages)
		mux.Handle("/ui/", pages)
	}
	mux.HandleFunc("/", s.answers.Handle(func(http.ResponseWriter, *http.Request) error {
		return refusal.New(kbs.CodeNotFound, "no such path or method")
	}))
	return mux
}

// tokenPrefix is how owners' tokens begin; a session's bearer begins with a
// GCM nonce, whose first three bytes are zero.
var tokenPrefix = []byte("ccrun_")

// getResource answers a guest's session with the value, sealed to its TEEKey,
// and an owner with everything else.
func (s *Server) getResource(w http.ResponseWriter, r *http.Request) error {
	if b := answer.Bearer(r); b.Len() > 0 && !bytes.HasPrefix(b.Reveal(), tokenPrefix) {
		return s.native.resource(w, r)
	}
	return s.owners.GetResource(w, r)
}

// getConfig is getResource of a workload's configuration.
func (s *Server) getConfig(w http.ResponseWriter, r *http.Request) error {
	if b := answer.Bearer(r); b.Len() > 0 && !bytes.HasPrefix(b.Reveal(), tokenPrefix) {
		return s.native.config(w, r)
	}
	return s.owners.GetConfig(w, r)
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) error {
	if err := s.Store.Ready(r.Context()); err != nil {
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "no guest could attest: the store does not answer, cannot be written or is newer, or the clock is wrong", Cause: err}
	}
	if err := s.Anchor.Ready(); err != nil {
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "no guest could attest: the audit log is not what its witnesses have seen, or they cannot say", Cause: err}
	}
	_, err := io.WriteString(w, "ok\n")
	return err
}

// Listener is l without the connections of addresses that flood the server.
func (s *Server) Listener(l net.Listener) net.Listener { return s.limits.Listener(l) }

// HTTPServer serves Handler with time and size limits for slow and hostile
// peers. The caller gives it a TLS listener.
func (s *Server) HTTPServer() *http.Server {
	return httpServer(s.Handler(), s.limits, newErrorLog(s.Log, s.Clock))
}

func httpServer(h http.Handler, limits *answer.Limiter, errors *log.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second, // of a TLS handshake, too: no less than guests wait themselves
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ConnState:         limits.ConnState,
		// What a connection may have sent of bodies that nobody reads yet.
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10},
		ErrorLog: errors,
	}
}

// Prepare makes ready what takes the place of Config.Policy, Config.Advisories,
// Config.Clients and ClientRoots: what attests from use on must satisfy policy
// and table, who calls must be in the list. If any is refused, there is nothing
// to use.
func (s *Server) Prepare(p *kbs.Policy, t *advisory.Table, list []admin.ClientCertificate, roots *x509.CertPool) (use func(), err error) {
	if t == nil {
		return nil, errors.New("attest-server without a table of advisories")
	}
	usePolicy, err := s.engine.Policies.Prepare(p)
	if err != nil {
		return nil, err
	}
	useClients, err := s.owners.PrepareClients(list, roots)
	if err != nil {
		return nil, err
	}
	return func() { usePolicy(); s.engine.Policies.SetAdvisories(t); useClients() }, nil
}

// Unsatisfiable calls each with every workload that policies, as they are now,
// leave nothing to match.
func (s *Server) Unsatisfiable(ctx context.Context, each func(workload string, err error)) error {
	return s.engine.Policies.Unsatisfiable(ctx, each)
}
