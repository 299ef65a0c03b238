// Package attestserver is the trust anchor: it holds workloads' keys and
// releases one only to a guest that has proved, with fresh Evidence, to be
// the workload as registered (the Relying Party of RFC 9334).
package attestserver

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/metrics"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/secret"
)

// Store is what the server needs of a store. Errors are those of package
// store: ErrNotFound, ErrRevoked, ErrChanged, ErrBadToken, *ConflictError,
// *DuplicateDigestError. A nil error means that the change is durable.
type Store interface {
	Register(ctx context.Context, reg kbs.Registration, diskKey secret.Bytes, actor string) (created bool, err error)
	Workload(ctx context.Context, id string) (store.Workload, error)
	// WorkloadByDigest is the workload that has the launch digest among its
	// measurements: never more than one.
	WorkloadByDigest(ctx context.Context, d kbs.LaunchDigest) (store.Workload, error)
	// Workloads is one page of a tenant's workloads; of all if it is empty.
	Workloads(ctx context.Context, tenant, after string, limit int) (kbs.WorkloadList, error)
	Revoke(ctx context.Context, id, actor string) (store.Workload, error)
	Remove(ctx context.Context, id, actor string) error
	Release(ctx context.Context, id string, appraised kbs.Digest, session string) (secret.Bytes, error)
	// ReleaseStaged is Release for the DiskKey of a rotation under way.
	ReleaseStaged(ctx context.Context, id string, appraised kbs.Digest, session string) (secret.Bytes, error)
	StageRotation(ctx context.Context, id, actor string) (store.Rotation, error)
	CommitRotation(ctx context.Context, id, rotation, image, actor string) error
	AbortRotation(ctx context.Context, id, rotation, actor string) error
	PutResource(ctx context.Context, id kbs.ResourceID, p kbs.ResourcePolicy, value secret.Bytes, actor string) (kbs.ResourceAnswer, error)
	// PutResourceValue leaves a resource's policy as it is; a new one gets first.
	PutResourceValue(ctx context.Context, id kbs.ResourceID, first kbs.ResourcePolicy, value secret.Bytes, actor string) (kbs.ResourceAnswer, error)
	Resource(ctx context.Context, id kbs.ResourceID) (kbs.ResourceMeta, error)
	Resources(ctx context.Context, tenant, after string, limit int) (kbs.ResourceList, error)
	RemoveResource(ctx context.Context, id kbs.ResourceID, actor string) error
	ReleaseResource(ctx context.Context, id kbs.ResourceID, workload string, appraised kbs.Digest, session string) (secret.Bytes, error)
	Approve(ctx context.Context, tenant string, a kbs.Approval, actor string) error
	Withdraw(ctx context.Context, tenant string, a kbs.Approval, actor string) error
	Approvals(ctx context.Context, tenant string) (kbs.ApprovalList, error)
	RecordSession(ctx context.Context, r kbs.SessionRecord, authentic bool) error
	Session(ctx context.Context, number string) (kbs.SessionRecord, error)
	Authenticate(ctx context.Context, token secret.Bytes) (store.Token, error)
	// Audit calls each with the entries after a sequence number, oldest first.
	Audit(ctx context.Context, after int64, each func(kbs.AuditEntry) error) error
	AuditHead(ctx context.Context) (kbs.AuditHead, error)
	// TenantPolicy is a tenant's policy in RFC 8785 form, nil if it has none.
	TenantPolicy(ctx context.Context, tenant string) ([]byte, error)
	SetTenantPolicy(ctx context.Context, tenant string, p *kbs.Policy, actor string) error
	Check(ctx context.Context) error
}

// Config is what a Server is made of. Everything without a stated default is
// needed: New refuses its zero value.
type Config struct {
	Store     Store
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
	// Clients are the client certificates accepted in place of tokens.
	Clients []ClientCertificate
	// Dialects are the protocols that guests may speak. None: native and
	// trustee. What owners use is always there.
	Dialects []session.Dialect
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
	// MaxVerifying bounds concurrent appraisals; others wait. Zero: four
	// for each processor.
	MaxVerifying int

	// Policy is what is asked of every workload beside its own rules: see
	// SetPolicy. nil: nothing.
	Policy *kbs.Policy

	Limits answer.RateLimits
	// Metrics is where the server shows what it counts, besides at /metrics.
	// nil: there alone.
	Metrics *metrics.Registry
	// Expiries is what will stop being valid, for metrics and page. nil:
	// nothing.
	Expiries func() []Expiry
	// Pages is the web page, served at / and /ui/. nil: none.
	Pages http.Handler
}

// Server answers guests and owners. It is safe for concurrent use.
type Server struct {
	Config
	sessions *session.Sessions
	engine   *release.Engine
	limits   *answer.Limiter
	answers  answer.Responder
	meters   *meters
	clients  atomic.Pointer[[]ClientCertificate] // Config's until SetClients
}

// New checks c and makes a Server.
func New(c Config) (*Server, error) {
	switch {
	case c.Store == nil:
		return nil, errors.New("attest-server without a store")
	case c.Clock == nil || c.Rand == nil || c.Log == nil:
		return nil, errors.New("attest-server without clock, randomness or log")
	case len(c.Verifiers) == 0:
		return nil, errors.New("attest-server without a verifier could release nothing")
	}
	for tee, v := range c.Verifiers {
		if !tee.Valid() || v == nil {
			return nil, fmt.Errorf("attest-server with no verifier for TEE %q", tee)
		}
	}
	if err := checkClients(c.Clients); err != nil {
		return nil, err
	}
	if err := session.CheckDialects(c.Dialects); err != nil {
		return nil, err
	}
	if len(c.Dialects) == 0 {
		c.Dialects = []session.Dialect{session.Native, session.Trustee}
	}
	c.SessionLife = orDefault(c.SessionLife, time.Minute)
	c.ReleasesPerSession = orDefault(c.ReleasesPerSession, 3)
	c.MaxSessions = orDefault(c.MaxSessions, 1<<16)
	c.MaxVerifying = orDefault(c.MaxVerifying, 4*runtime.GOMAXPROCS(0))
	sessions, err := session.New(session.Options{
		Clock: c.Clock, Rand: c.Rand, Log: c.Log, Life: c.SessionLife, Max: c.MaxSessions, Shared: c.Shared,
	})
	if err != nil {
		return nil, err
	}
	if c.Metrics == nil {
		c.Metrics = metrics.New()
	}
	m := newMeters(c.Metrics)
	metered := map[kbs.TEE]verifier.Verifier{}
	for tee, v := range c.Verifiers {
		metered[tee] = meteredVerifier{v, m}
	}
	c.Verifiers = metered
	server := &Server{Config: c, sessions: sessions, meters: m}
	server.answers = answer.Responder{Log: c.Log}
	server.limits = answer.NewLimiter(c.Limits, c.Clock, server.answers, func(by string) { m.limited.Inc(by) })
	policies, err := release.NewPolicies(c.Store, c.Clock)
	if err != nil {
		return nil, err
	}
	if err := policies.Set(c.Policy); err != nil {
		return nil, err
	}
	server.engine = &release.Engine{
		Store: meteredStore{c.Store, m}, Verifiers: metered, Clock: c.Clock, Rand: c.Rand, Log: c.Log,
		Sessions: sessions, Policies: policies, Slots: release.NewSlots(c.MaxVerifying), ReleasesPerSession: c.ReleasesPerSession,
	}
	server.clients.Store(&c.Clients)
	server.readings(c.Metrics)
	if server.speaks(session.Legacy) {
		c.Log.Warn("the legacy dialect is on: its workloads are told apart by their measurement alone, which every guest of the same stock firmware and size has")
	}
	return server, nil
}

func orDefault[T int | time.Duration](v, def T) T {
	if v <= 0 {
		return def
	}
	return v
}

// Handler is the dialects, what owners use, and the health checks.
func (s *Server) Handler() http.Handler {
	return s.metered(s.limits.Limit(answer.OneSlash(answer.NoRedirects(s.routes(), s.foreignErrors()))))
}

func (s *Server) routes() *answer.Router {
	mux := &answer.Router{ServeMux: http.NewServeMux()}
	if s.speaks(session.Native) {
		mux.HandleFunc("POST /v1/auth", s.answers.Handle(s.auth))
		mux.HandleFunc("POST /v1/attest", s.answers.Handle(s.nativeAttest))
		mux.HandleFunc("GET /v1/workloads/{id}/key", s.answers.Handle(s.key))
		mux.HandleFunc("GET /v1/workloads/{id}/key/staged", s.answers.Handle(s.stagedKey))
	}
	if s.speaks(session.Trustee) || s.speaks(session.Legacy) {
		s.foreignRoutes(mux)
	}

	mux.HandleFunc("GET /v1/workloads", s.admin(reading, s.listWorkloads))
	mux.HandleFunc("GET /v1/workloads/{id}", s.admin(reading, ofWorkload(s.getWorkload)))
	mux.HandleFunc("PUT /v1/workloads/{id}", s.admin(publishing, s.putWorkload))
	mux.HandleFunc("DELETE /v1/workloads/{id}", s.admin(publishing, ofWorkload(s.deleteWorkload)))
	mux.HandleFunc("POST /v1/workloads/{id}/revoke", s.admin(publishing, ofWorkload(s.revokeWorkload)))
	mux.HandleFunc("POST /v1/workloads/{id}/rotate", s.admin(publishing, ofWorkload(s.rotateWorkload)))
	mux.HandleFunc("GET /v1/sessions/{number}", s.admin(reading, s.getSession))
	mux.HandleFunc("GET /v1/audit", s.admin(reading, s.getAudit))
	mux.HandleFunc("GET /v1/resources", s.admin(reading, s.listResources))
	mux.HandleFunc("PUT /v1/resources/{repo}/{type}/{tag}", s.admin(publishing, s.putResource))
	mux.HandleFunc("GET /v1/resources/{repo}/{type}/{tag}", s.answers.Handle(s.getResource))
	mux.HandleFunc("DELETE /v1/resources/{repo}/{type}/{tag}", s.admin(publishing, s.deleteResource))
	mux.HandleFunc("GET /v1/approvals", s.admin(reading, s.listApprovals))
	mux.HandleFunc("PUT /v1/approvals", s.admin(publishing, s.changeApproval))
	mux.HandleFunc("DELETE /v1/approvals", s.admin(publishing, s.changeApproval))
	mux.HandleFunc("GET /v1/tenants/{tenant}/policy", s.admin(reading, s.getTenantPolicy))
	mux.HandleFunc("PUT /v1/tenants/{tenant}/policy", s.admin(governing, s.putTenantPolicy))
	mux.HandleFunc("DELETE /v1/tenants/{tenant}/policy", s.admin(governing, s.deleteTenantPolicy))
	mux.HandleFunc("GET /v1/audit/head", s.admin(reading, s.getAuditHead))

	mux.HandleFunc("GET /metrics", s.admin(auditing, s.getMetrics))
	mux.HandleFunc("GET /v1/jwks", s.answers.Handle(s.jwks))
	mux.HandleFunc("GET /v1/openapi.yaml", s.answers.Handle(s.getOpenAPI))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", s.answers.Handle(s.ready))
	if s.Pages != nil {
		mux.Handle("GET /{$}", s.limits.BadLogins(s.Pages))
		mux.Handle("/ui/", s.limits.BadLogins(s.Pages))
	}
	mux.HandleFunc("/", s.answers.Handle(func(http.ResponseWriter, *http.Request) error {
		return refusal.New(kbs.CodeNotFound, "no such path or method")
	}))
	return mux
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) error {
	if err := s.Store.Check(r.Context()); err != nil {
		return &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the store does not answer", Cause: err}
	}
	_, err := io.WriteString(w, "ok\n")
	return err
}

// Listener is l without the connections of addresses that flood the server.
func (s *Server) Listener(l net.Listener) net.Listener { return s.limits.Listener(l) }

// HTTPServer serves Handler with time and size limits for slow and hostile
// peers. The caller gives it a TLS listener.
func (s *Server) HTTPServer() *http.Server {
	return &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}

// SetPolicy puts p in place of Config.Policy. What attests from now on must
// satisfy it. A policy that is refused changes nothing.
func (s *Server) SetPolicy(p *kbs.Policy) error { return s.engine.Policies.Set(p) }

// CheckTenantPolicy refuses what SetPolicy would, and what contradicts the
// server's policy.
func (s *Server) CheckTenantPolicy(p kbs.Policy) error { return s.engine.Policies.CheckTenant(p) }

// Unsatisfiable calls each with every workload that policies, as they are now,
// leave nothing to match.
func (s *Server) Unsatisfiable(ctx context.Context, each func(workload string, err error)) error {
	return s.engine.Policies.Unsatisfiable(ctx, each)
}
