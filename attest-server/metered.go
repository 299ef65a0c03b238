package attestserver

import (
	"context"
	"net/http"
	"time"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/budget"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/metrics"
	"github.com/ccrun/ccrun/attest-server/release"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/chain"
	"github.com/ccrun/ccrun/secret"
)

// meters is what the server counts, the same for every dialect: at the store
// and at the verifiers, which all of them go through.
type meters struct {
	releases, attestations, denials, limited *metrics.Counter
	requests, appraisals, writes             *metrics.Histogram
}

func newMeters(r *metrics.Registry) *meters {
	return &meters{
		releases:     r.Counter("attest_server_releases_total", "Secrets released, or refused at the last moment.", "kind", "outcome"),
		attestations: r.Counter("attest_server_attestations_total", "Attestations appraised.", "tee", "result"),
		denials:      r.Counter("attest_server_denials_total", "Denied attestations by each rule that failed.", "tee", "rule"),
		limited:      r.Counter("attest_server_rate_limited_total", "Requests answered 429, by what was over its rate.", "by"),
		requests:     r.Histogram("attest_server_request_duration_seconds", "Time from a request's header to its whole answer.", "route", "status"),
		appraisals:   r.Histogram("attest_server_verify_duration_seconds", "Time to verify Evidence, queueing apart.", "tee", "authentic"),
		writes:       r.Histogram("attest_server_store_duration_seconds", "Time until a handshake's write was on disk.", "operation"),
	}
}

// verifiers are all, each timed.
func (m *meters) verifiers(all map[kbs.TEE]verifier.Verifier) map[kbs.TEE]verifier.Verifier {
	timed := map[kbs.TEE]verifier.Verifier{}
	for tee, v := range all {
		timed[tee] = meteredVerifier{v, m}
	}
	return timed
}

// watch registers metrics that are read off when they are shown.
func watch(c Config, sessions *session.Sessions, slots *budget.Slots, limits *answer.Limiter) {
	c.Metrics.Gauge("attest_server_connections", "Connections of guests and owners that are open.", nil, func(set func(float64, ...string)) { set(float64(limits.Open())) })
	c.Metrics.Gauge("attest_server_body_bytes", "Memory reserved for bodies of requests under way.", nil, func(set func(float64, ...string)) { set(float64(limits.BodyBytes())) })
	c.Metrics.Gauge("attest_server_sessions", "Sessions remembered: granted ones, and the marks of those used up or denied.", []string{"state"},
		func(set func(float64, ...string)) {
			granted, marks := sessions.Size()
			set(float64(granted), "granted")
			set(float64(marks-granted), "spent")
		})
	c.Metrics.Gauge("attest_server_appraisals_running", "Appraisals under way.", nil, func(set func(float64, ...string)) { set(float64(slots.Running())) })
	c.Metrics.CounterFunc("attest_server_chain_cache_total", "Certificate chains looked for among those checked already.", []string{"tee", "found"},
		func(set func(float64, ...string)) {
			for tee, v := range c.Verifiers {
				if cached, ok := v.(interface{ ChainCache() chain.Use }); ok {
					use := cached.ChainCache()
					set(float64(use.Hits), string(tee), "yes")
					set(float64(use.Misses), string(tee), "no")
				}
			}
		})
}

// meteredStore counts outcomes and times writes.
type meteredStore struct {
	release.Store
	m *meters
}

func (s meteredStore) Release(ctx context.Context, id string, appraised kbs.Digest, to store.Guest) (secret.Bytes, error) {
	return s.released("key", func() (secret.Bytes, error) { return s.Store.Release(ctx, id, appraised, to) })
}

func (s meteredStore) ReleaseStaged(ctx context.Context, id string, appraised kbs.Digest, to store.Guest) (secret.Bytes, error) {
	return s.released("staged_key", func() (secret.Bytes, error) { return s.Store.ReleaseStaged(ctx, id, appraised, to) })
}

func (s meteredStore) ReleaseResource(ctx context.Context, r kbs.ResourceID, id string, appraised kbs.Digest, session string) (secret.Bytes, error) {
	return s.released("resource", func() (secret.Bytes, error) { return s.Store.ReleaseResource(ctx, r, id, appraised, session) })
}

func (s meteredStore) ReleaseSecrets(ctx context.Context, ids []kbs.ResourceID, id string, appraised kbs.Digest, session string) ([]store.Secret, error) {
	start := time.Now()
	all, err := s.Store.ReleaseSecrets(ctx, ids, id, appraised, session)
	s.m.writes.Observe(time.Since(start), "release")
	if err != nil {
		s.m.releases.Inc("resource", "refused")
	}
	for _, v := range all {
		s.m.releases.Inc("resource", outcome(v.Refused == nil, "released", "refused"))
	}
	return all, err
}

func (s meteredStore) ReleaseConfig(ctx context.Context, id string, appraised kbs.Digest, session string) (secret.Bytes, error) {
	return s.released("config", func() (secret.Bytes, error) { return s.Store.ReleaseConfig(ctx, id, appraised, session) })
}

func (s meteredStore) OpenVolume(ctx context.Context, id, name string, appraised kbs.Digest, to store.Guest, fresh store.VolumeKey) (kbs.VolumeGrant, error) {
	start := time.Now()
	g, err := s.Store.OpenVolume(ctx, id, name, appraised, to, fresh)
	s.m.writes.Observe(time.Since(start), "release")
	s.m.releases.Inc("volume", outcome(err == nil, "released", "refused"))
	return g, err
}

func (s meteredStore) Confirm(ctx context.Context, id string, g store.Guest) error {
	start := time.Now()
	err := s.Store.Confirm(ctx, id, g)
	s.m.writes.Observe(time.Since(start), "confirm")
	return err
}

func (s meteredStore) released(kind string, get func() (secret.Bytes, error)) (secret.Bytes, error) {
	start := time.Now()
	v, err := get()
	s.m.writes.Observe(time.Since(start), "release")
	s.m.releases.Inc(kind, outcome(err == nil, "released", "refused"))
	return v, err
}

func (s meteredStore) RecordSession(ctx context.Context, r kbs.SessionRecord, authentic bool) error {
	start := time.Now()
	err := s.Store.RecordSession(ctx, r, authentic)
	s.m.writes.Observe(time.Since(start), "record")
	if r.Result.Result == kbs.Undecided && !r.Granted {
		s.m.attestations.Inc(string(r.Result.TEE), kbs.Undecided)
		return err
	}
	s.m.attestations.Inc(string(r.Result.TEE), outcome(r.Granted, kbs.Affirming, kbs.Contraindicated))
	for _, rule := range r.Result.Rules {
		if !rule.Pass && rule.Rule != "appraisal" && !r.Granted {
			s.m.denials.Inc(string(r.Result.TEE), rule.Kind())
		}
	}
	return err
}

// meteredVerifier times a verifier.
type meteredVerifier struct {
	verifier.Verifier
	m *meters
}

func (v meteredVerifier) Verify(ctx context.Context, ev kbs.Evidence, at time.Time) (*verifier.Claims, error) {
	start := time.Now()
	c, err := v.Verifier.Verify(ctx, ev, at)
	v.m.appraisals.Observe(time.Since(start), string(ev.TEE), outcome(err == nil, "yes", "no"))
	return c, err
}

// timed times every request by its route.
func (m *meters) timed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &answer.StatusWriter{ResponseWriter: w, Status: http.StatusOK}
		defer func() {
			route := r.Pattern
			if route == "" {
				route = "none"
			}
			m.requests.Observe(time.Since(start), route, statusClass(rec.Status))
		}()
		next.ServeHTTP(rec, r)
	})
}

func outcome(ok bool, good, bad string) string {
	if ok {
		return good
	}
	return bad
}

func statusClass(status int) string {
	switch status / 100 {
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	}
	return "5xx"
}
