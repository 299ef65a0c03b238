package verifier

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func earFixture(t *testing.T) (kbs.AttestationResult, VerifierID) {
	t.Helper()
	claims, ref, want := strictSNP()
	r, err := Appraise(claims, ref, want).Wire()
	if err != nil || r.Result != Affirming {
		t.Fatalf("fixture: %s, %v", r.Result, err)
	}
	return r, VerifierID{Developer: "https://example.org", Build: "test 1"}
}

// TestEARByGoJose: an independent library finds key and signature good, and a
// changed token bad.
func TestEARByGoJose(t *testing.T) {
	r, by := earFixture(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEAR(r, by, "sha384:00", testTime)
	if err != nil {
		t.Fatal(err)
	}
	token, err := e.JWT(key)
	if err != nil {
		t.Fatal(err)
	}
	set, err := NewJWKSet(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal(b, &keys); err != nil {
		t.Fatal(err)
	}
	parsed, err := jose.ParseSigned(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := parsed.Verify(keys)
	if err != nil {
		t.Fatal(err)
	}
	thumb, err := keys.Keys[0].Thumbprint(5) // crypto.SHA256
	if err != nil || b64(string(thumb)) != keys.Keys[0].KeyID || len(keys.Key(keys.Keys[0].KeyID)) != 1 {
		t.Errorf("kid is not the thumbprint: %v", err)
	}
	var got map[string]any
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatal(err)
	}
	cpu := got["submods"].(map[string]any)["cpu0"].(map[string]any)
	vector := cpu["ear.trustworthiness-vector"].(map[string]any)
	if got["eat_profile"] != EARProfile || got["iat"] != float64(testTime.Unix()) || got["ear.status"] != "affirming" || cpu["ear.status"] != "affirming" ||
		vector["executables"] != 2.0 || vector["hardware"] != 2.0 || vector["instance-identity"] != 2.0 || vector["runtime-opaque"] != 2.0 {
		t.Errorf("claims: %s", payload)
	}
	parts := strings.Split(token, ".")
	for i := range parts {
		changed := append([]string{}, parts...)
		c := byte('A')
		if changed[i][8] == c {
			c = 'B'
		}
		changed[i] = changed[i][:8] + string(c) + changed[i][9:]
		p, err := jose.ParseSigned(strings.Join(changed, "."), []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			continue
		}
		if _, err := p.Verify(keys); err == nil {
			t.Errorf("part %d changed and accepted", i)
		}
	}
}

// TestEARStatus: a failed rule of any kind contraindicates, under its own
// category; what is tolerated warns; what says nothing affirms nothing.
func TestEARStatus(t *testing.T) {
	good, by := earFixture(t)
	status := func(r kbs.AttestationResult) (string, map[Trust]int8) {
		e, err := NewEAR(r, by, "p", testTime)
		if err != nil {
			t.Fatal(err)
		}
		return e.Submods["cpu0"].Status, e.Submods["cpu0"].Vector
	}
	for i, rule := range good.Rules {
		r := good
		r.Rules = append([]Rule{}, good.Rules...)
		r.Rules[i].Pass = false
		if s, v := status(r); s != Contraindicated || v[trustOf(rule.Rule)] != trustContraindicated {
			t.Errorf("%s failed: %s, %v", rule.Rule, s, v)
		}
	}
	for name, edit := range map[string]func(*Claims) Trust{
		"debug":       func(c *Claims) Trust { c.SNP.Policy.Debug = true; return RuntimeOpaque },
		"provisional": func(c *Claims) Trust { c.SNP.Current.Minor++; return Hardware },
		"out of date": func(c *Claims) Trust {
			c.SNP, c.TDX = nil, &TDXClaims{TCBStatus: "OutOfDate"}
			return Hardware
		},
		"vTPM without PCRs": func(c *Claims) Trust { c.VTPM = &VTPMClaims{}; return Executables },
		"TD debug": func(c *Claims) Trust {
			c.SNP, c.TDX = nil, &TDXClaims{TCBStatus: UpToDate, TDAttributes: TDDebug}
			return RuntimeOpaque
		},
	} {
		claims, _, _ := strictSNP()
		category := edit(claims)
		r := good
		b, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		r.Claims = b
		if s, v := status(r); s != "warning" || v[category] != trustWarning {
			t.Errorf("%s: %s, %v", name, s, v)
		}
	}
	denied := good
	denied.Result = "" // by a rule that is not listed
	for name, r := range map[string]kbs.AttestationResult{"empty": {}, "result empty": denied, "no rules": {Result: Affirming}} {
		if s, v := status(r); s != Contraindicated || len(v) == 0 {
			t.Errorf("%s: %s, %v", name, s, v)
		}
	}
	if _, err := NewEAR(good, VerifierID{}, "p", testTime); err == nil {
		t.Error("an EAR of nobody")
	}
	if _, err := NewEAR(good, by, "p", time.Time{}); err == nil {
		t.Error("an EAR of no time")
	}
	if _, err := NewJWKSet(&ecdsa.PublicKey{Curve: elliptic.P384()}); err == nil {
		t.Error("a key on P-384 for ES256")
	}
}
