package attestserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// ear asks for a session as EAR.
func (r *rig) ear(number, token string) (*http.Response, string) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), "GET", r.http.URL+"/v1/sessions/"+number, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	req.Header.Set("Accept", "application/eat-jwt")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := r.http.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp, string(b)
}

// TestEAR: a session's result can be had signed; the key set checks it; a
// denial stays a denial, whatever its rules say; strangers get nothing.
func TestEAR(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *Config) { c.SigningKey = key })
	reader := string(r.token(store.Auditor).Reveal())
	pass := []kbs.Rule{{Rule: "measurement", Expected: "a", Got: "a", Pass: true}}
	at := r.clock.Now().Add(-time.Hour)
	for _, rec := range []kbs.SessionRecord{
		{Session: "granted", WorkloadID: "w", At: at, Granted: true, Result: kbs.AttestationResult{TEE: kbs.SNP, Result: kbs.Affirming, Rules: pass}},
		{Session: "denied", WorkloadID: "w", At: at, Result: kbs.AttestationResult{TEE: kbs.SNP, Result: kbs.Affirming, Rules: pass}},
		{Session: "refused", WorkloadID: "w", At: at, Result: kbs.AttestationResult{TEE: kbs.SNP, Result: kbs.Contraindicated}},
	} {
		if err := r.store.RecordSession(t.Context(), rec, true); err != nil {
			t.Fatal(err)
		}
	}
	status, b := r.call("GET", "/v1/jwks", "", nil)
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(b, &keys); err != nil || status != 200 || len(keys.Keys) != 1 || !keys.Keys[0].IsPublic() {
		t.Fatalf("jwks: %d %s %v", status, b, err)
	}
	for number, want := range map[string]string{"granted": kbs.Affirming, "denied": kbs.Contraindicated, "refused": kbs.Contraindicated} {
		resp, token := r.ear(number, reader)
		parsed, err := jose.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil || resp.Header.Get("Content-Type") != verifier.EARMediaType {
			t.Fatalf("%s: %s %v", number, resp.Header.Get("Content-Type"), err)
		}
		payload, err := parsed.Verify(keys)
		if err != nil {
			t.Fatal(err)
		}
		var ear verifier.EAR
		if err := json.Unmarshal(payload, &ear); err != nil {
			t.Fatal(err)
		}
		if ear.Status != want || ear.IssuedAt != at.Unix() || ear.Submods["cpu0"].Status != want || ear.Submods["cpu0"].PolicyID != "ccrun:workload:w" {
			t.Errorf("%s: %s", number, payload)
		}
	}
	for name, tt := range map[string]struct {
		number, token string
		status        int
	}{"no token": {"granted", "", 401}, "another token": {"granted", "x", 401}, "no such session": {"none", reader, 404}} {
		if resp, body := r.ear(tt.number, tt.token); resp.StatusCode != tt.status {
			t.Errorf("%s: %d %s", name, resp.StatusCode, body)
		}
	}
	// Without the header it is the record, as ever.
	if rec, err := r.admin.Session(t.Context(), "granted"); err != nil || !rec.Granted {
		t.Errorf("record: %+v, %v", rec, err)
	}
}

// TestNoSigningKey: a server without one says so, and has an empty set.
func TestNoSigningKey(t *testing.T) {
	r := newRig(t)
	if err := r.store.RecordSession(t.Context(), kbs.SessionRecord{Session: "s", WorkloadID: "w", At: r.clock.Now()}, true); err != nil {
		t.Fatal(err)
	}
	if status, b := r.call("GET", "/v1/jwks", "", nil); status != 200 || string(b) != `{"keys":[]}` {
		t.Errorf("jwks: %d %s", status, b)
	}
	if resp, b := r.ear("s", string(r.token(store.Admin).Reveal())); resp.StatusCode != 404 {
		t.Errorf("EAR: %d %s", resp.StatusCode, b)
	}
}
