package attestserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// renewable is a guest of w1 that has confirmed, and may renew.
func (r *rig) renewable(t *testing.T) *kbs.Renewer {
	t.Helper()
	key, public, err := kbs.NewRenewalKey()
	if err != nil {
		t.Fatal(err)
	}
	c, req := r.guest("w1", 1)
	req.RenewalKey = public
	s, k, err := c.Open(t.Context(), req)
	if err != nil || k.Len() == 0 {
		t.Fatal(err)
	}
	defer s.Close()
	renewal, err := s.Renewal(t.Context(), key)
	if err == nil {
		err = s.Confirm(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return &kbs.Renewer{Client: &c, Workload: "w1", Renewal: renewal}
}

// TestRenewal: a guest gets its secrets long after its session, as they are then,
// from a server that has started since, also when its registration was amended.
func TestRenewal(t *testing.T) {
	renewals := secret.New([]byte(strings.Repeat("r", 32)))
	r := newRig(t, func(c *Config) { c.RenewalSecret = renewals })
	r.register("w1", 1)
	owner := r.adminClient(r.token(store.Admin))
	r.resource(&owner, "acme/db/password", "w1", "old")
	guest := r.renewable(t)
	r.clock.advance(48 * time.Hour)
	for _, value := range []string{"old", "very-secret new"} {
		r.resource(&owner, "acme/db/password", "w1", value)
		got, err := guest.Secrets(t.Context(), []string{"acme/db/password", "acme/no/such"})
		if err != nil || string(got["acme/db/password"].Value.Reveal()) != value || got["acme/no/such"].Refused != kbs.CodeNotFound {
			t.Errorf("%v, %v", got, err)
		}
	}
	if strings.Contains(r.log.String(), "very-secret") {
		t.Error("the log holds a secret")
	}
	second := r.server.Config
	second.Metrics = nil
	s, err := New(second)
	if err != nil {
		t.Fatal(err)
	}
	r.http.Config.Handler = s.Handler()
	if _, err := guest.Secrets(t.Context(), []string{"acme/db/password"}); err != nil {
		t.Errorf("started anew: %v", err)
	}
}

// TestRenewalRefuses: nothing but the ticket, of this server, with the key that
// was attested gets anything, and that is no DiskKey.
func TestRenewalRefuses(t *testing.T) {
	signing, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *Config) { c.SigningKey = signing })
	r.register("w1", 1)
	r.register("w2", 2)
	owner := r.adminClient(r.token(store.Admin))
	r.resource(&owner, "acme/db/password", "w1", "v")
	good := r.begin("w2", 2)
	if code := good.doAttest(); code != "" {
		t.Fatal(code)
	}
	guest, names := r.renewable(t), []string{"acme/db/password"}
	refuses := func(what, code string, change func(*kbs.Renewer)) {
		t.Helper()
		other, renewal := *guest, *guest.Renewal
		other.Renewal = &renewal
		change(&other)
		_, err := other.Secrets(t.Context(), names)
		var p *kbs.ProblemError
		if err == nil || code != "" && (!errors.As(err, &p) || p.Code != code) {
			t.Errorf("%s: %v, expected %s", what, err, code)
		}
	}
	key, public, err := kbs.NewRenewalKey()
	if err != nil {
		t.Fatal(err)
	}
	refuses("another key", "", func(g *kbs.Renewer) { g.Renewal.Key = key })
	refuses("another ticket", kbs.CodeSessionExpired, func(g *kbs.Renewer) { g.Renewal.Ticket = g.Renewal.Ticket[1:] + "A" })
	refuses("no ticket", kbs.CodeSessionExpired, func(g *kbs.Renewer) { g.Renewal.Ticket = "" })
	refuses("another workload", "", func(g *kbs.Renewer) { g.Workload = "w2" })

	now := r.clock.Now()
	sealer := r.server.engine.Renewals
	ours := session.Renewal{WorkloadID: "w1", RenewalKey: session.RenewalKey{Key: *public, Identity: kbs.Sum384([]byte("i")), Launch: kbs.LaunchDigest{1}}, ReportData: kbs.ReportData{1}}
	bearer, err := sealer.Bearer(ours)
	if err != nil {
		t.Fatal(err)
	}
	ticket, err := sealer.Ticket(ours)
	if err != nil {
		t.Fatal(err)
	}
	body := kbs.SecretsRequest{Names: names}
	for _, x := range []struct {
		what, method, path, bearer string
		body                       any
		want                       int
	}{
		{"the key", "GET", "/v1/workloads/w1/key", bearer, nil, http.StatusUnauthorized},
		{"a volume", "POST", "/v1/workloads/w1/volumes/data/open", bearer, kbs.VolumeOpenRequest{Key: make([]byte, 32)}, http.StatusUnauthorized},
		{"a resource", "GET", "/v1/resources/acme/db/password", bearer, nil, http.StatusUnauthorized},
		{"another ticket", "POST", "/v1/workloads/w1/renewal", bearer, nil, http.StatusUnauthorized},
		{"a token, of another identity", "GET", "/v1/workloads/w1/token", bearer, nil, http.StatusForbidden},
		{"another workload's token", "GET", "/v1/workloads/w2/token", bearer, nil, http.StatusForbidden},
		{"a token in a session", "GET", "/v1/workloads/w2/token", good.auth.Session, nil, http.StatusUnauthorized},
		{"another workload's secrets", "POST", "/v1/workloads/w2/secrets", bearer, body, http.StatusForbidden},
		{"another workload's configuration", "GET", "/v1/workloads/w2/config", bearer, nil, http.StatusForbidden},
		{"secrets, of another identity", "POST", "/v1/workloads/w1/secrets", bearer, body, http.StatusForbidden},
		{"a ticket for a bearer", "POST", "/v1/workloads/w1/secrets", session.BearerPrefix + ticket, body, http.StatusUnauthorized},
		{"a bearer for a ticket", "POST", "/v1/renew", "", kbs.RenewRequest{Ticket: strings.TrimPrefix(bearer, session.BearerPrefix)}, http.StatusUnauthorized},
	} {
		if status, b := r.call(x.method, x.path, x.bearer, x.body); status != x.want {
			t.Errorf("%s: %d %s, expected %d", x.what, status, b, x.want)
		}
	}
	if status, b := r.call("POST", "/v1/workloads/w2/renewal", good.auth.Session, nil); status != http.StatusBadRequest {
		t.Errorf("without a renewal key: %d %s", status, b)
	}
	r.clock.advance(3 * time.Minute)
	if status, b := r.call("POST", "/v1/workloads/w1/secrets", bearer, body); status != http.StatusUnauthorized {
		t.Errorf("a bearer of %s, now: %d %s", now, status, b)
	}
	if _, err := guest.Secrets(t.Context(), names); err != nil {
		t.Errorf("then: %v", err)
	}
	if token, err := guest.Token(t.Context()); err != nil || strings.Count(token, ".") != 2 {
		t.Errorf("token %.80q, %v", token, err)
	}
	if _, err := owner.Revoke(t.Context(), "w1"); err != nil {
		t.Fatal(err)
	}
	if token, err := guest.Token(t.Context()); !errors.Is(err, kbs.ErrDenied) {
		t.Errorf("revoked: token %.80q, %v", token, err)
	}
	refuses("revoked", kbs.CodeAttestationDenied, func(*kbs.Renewer) {})
}
