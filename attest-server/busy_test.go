package attestserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// failingTEE is a verifier that has no word on any Evidence.
type failingTEE struct{ err error }

func (f failingTEE) Verify(context.Context, kbs.Evidence, time.Time) (*verifier.Claims, error) {
	return nil, f.err
}

// TestLackIsNoDenial: while the server lacks what it needs to appraise, a guest
// is told to come back, and its owner what is missing. Nothing counts as a
// denial, and nobody learns whether there is such a workload.
func TestLackIsNoDenial(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		err     error
		rule    string
		missing string
		after   time.Duration
	}{
		"vendor does not answer": {fmt.Errorf("looking up the VCEK: %w: dialing", verifier.ErrBusy), "endorsement", "dialing", 15 * time.Second},
		"vendor wants a pause":   {fmt.Errorf("looking up: %w", &verifier.Busy{After: 42 * time.Second, Err: errors.New("429")}), "endorsement", "429", 42 * time.Second},
		"vendor away for long":   {&verifier.Busy{After: time.Hour, Err: errors.New("502")}, "endorsement", "502", 5 * time.Minute},
		"no VCEK":                {verifier.Lack("endorsement", "the VCEK of chip 1", "none", "import it", nil), "endorsement", "none", 15 * time.Second},
		"CRL missing":            {verifier.Lack("revocation", "a CRL", "no CRL", "fetch it", nil), "revocation", "no CRL", 15 * time.Second},
		"collateral expired":     {verifier.Lack("collateral_validity", "current", "until 2020", "fetch it", nil), "collateral_validity", "until 2020", 15 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) {
				c.Verifiers, c.SigningKey = map[kbs.TEE]verifier.Verifier{kbs.Sample: failingTEE{x.err}}, key
			})
			r.register("w", 1)
			r.register("revoked", 2)
			if _, err := r.store.Revoke(t.Context(), "revoked", "local"); err != nil {
				t.Fatal(err)
			}
			var answers []string
			var session string
			for _, id := range []string{"unknown", "revoked", "w"} {
				client, req := r.guest(id, 1)
				_, err := client.Release(t.Context(), req)
				var p *kbs.ProblemError
				if !errors.As(err, &p) || p.Status != 503 || p.Code != kbs.CodeUnavailable || p.RetryAfter != x.after {
					t.Fatalf("%s: %v, to come back after %s", id, err, x.after)
				}
				session, p.Session = p.Session, ""
				answers = append(answers, fmt.Sprint(p.Problem, p.RetryAfter))
			}
			if answers[0] != answers[1] || answers[1] != answers[2] {
				t.Errorf("answers tell what is registered: %q", answers)
			}
			if w, err := r.store.Workload(t.Context(), "w"); err != nil || w.Denials != 0 {
				t.Errorf("%d denials counted, %v", w.Denials, err)
			}
			if d, err := r.store.Denials(t.Context(), r.clock.Now().Add(-time.Hour)); err != nil || len(d) != 0 {
				t.Errorf("counted as denials: %v, %v", d, err)
			}
			rec, err := r.admin.Session(t.Context(), session)
			if err != nil || rec.Granted || rec.Result.Result != kbs.Undecided {
				t.Fatalf("explained as %+v, %v", rec, err)
			}
			ask := httptest.NewRequest(http.MethodGet, "/v1/sessions/"+session, nil)
			token := r.token("admin")
			ask.Header.Set("Authorization", "Bearer "+string(token.Reveal()))
			ask.Header.Set("Accept", verifier.EARMediaType)
			w := httptest.NewRecorder()
			if r.server.HTTPServer().Handler.ServeHTTP(w, ask); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "nothing was decided") {
				t.Errorf("EAR of what nobody decided: %d %s", w.Code, w.Body)
			}
			var failed []string
			for _, rule := range rec.Result.Rules {
				if !rule.Pass {
					failed = append(failed, rule.Rule)
					if !strings.Contains(rule.Got, x.missing) || rule.Hint == "" {
						t.Errorf("%s does not say what is missing: %+v", rule.Rule, rule)
					}
				}
			}
			if len(failed) != 1 || failed[0] != x.rule || !strings.Contains(r.log.String(), x.missing) {
				t.Errorf("failed rules %q, log: %s", failed, r.log)
			}
		})
	}
}

// TestRefusalOfEvidenceIsDenial: what the verifier does decide is final.
func TestRefusalOfEvidenceIsDenial(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Verifiers = map[kbs.TEE]verifier.Verifier{kbs.Sample: failingTEE{verifier.Refuse("revocation", "not revoked", "revoked", "do not trust it", nil)}}
	})
	r.register("w", 1)
	client, req := r.guest("w", 1)
	client.Wait = kbs.Forever
	if _, err := client.Release(t.Context(), req); !errors.Is(err, kbs.ErrDenied) {
		t.Errorf("release: %v", err)
	}
	if w, err := r.store.Workload(t.Context(), "w"); err != nil || w.Denials != 1 {
		t.Errorf("%d denials counted, %v", w.Denials, err)
	}
}

// TestLackOfOneServerIsNotTheOthers: a guest goes on to the server that has
// the certificate.
func TestLackOfOneServerIsNotTheOthers(t *testing.T) {
	lack := verifier.Lack("endorsement", "a VCEK", "none", "import it", nil)
	first := newRig(t, func(c *Config) { c.Verifiers = map[kbs.TEE]verifier.Verifier{kbs.Sample: failingTEE{lack}} })
	second := newRig(t)
	first.register("w", 1)
	second.register("w", 1)
	client, req := second.guest("w", 1)
	client.URLs = []string{first.http.URL, second.http.URL}
	client.PinnedKeys = append(client.PinnedKeys, first.pins()...)
	if k, err := client.Release(t.Context(), req); err != nil || k.Len() == 0 {
		t.Errorf("release: %v", err)
	}
}

// TestLackIsMetered apart from denials.
func TestLackIsMetered(t *testing.T) {
	r := newRig(t, func(c *Config) {
		c.Verifiers = map[kbs.TEE]verifier.Verifier{kbs.Sample: failingTEE{verifier.Lack("endorsement", "a VCEK", "none", "import it", nil)}}
	})
	r.register("w", 1)
	client, req := r.guest("w", 1)
	if _, err := client.Release(t.Context(), req); err == nil {
		t.Fatal("released")
	}
	ask := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	token := r.token("admin")
	ask.Header.Set("Authorization", "Bearer "+string(token.Reveal()))
	w := httptest.NewRecorder()
	r.server.HTTPServer().Handler.ServeHTTP(w, ask)
	if text := w.Body.String(); !strings.Contains(text, `attest_server_attestations_total{result="none",tee="sample"} 1`) || strings.Contains(text, `attest_server_denials_total{`) {
		t.Error("counted otherwise")
	}
}
