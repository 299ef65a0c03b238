package verifier

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

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

// TestEARSigned reads key set and token as their RFCs have them, by nothing but
// the standard library: the key is the server's, its name the thumbprint, the
// signature good, and that of a changed token bad.
func TestEARSigned(t *testing.T) {
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
	var keys struct{ Keys []map[string]string }
	if err := json.Unmarshal(b, &keys); err != nil || len(keys.Keys) != 1 {
		t.Fatalf("%s: %v", b, err)
	}
	j := keys.Keys[0]
	point := append(append([]byte{4}, unbase64(t, j["x"])...), unbase64(t, j["y"])...)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil || !public.Equal(&key.PublicKey) {
		t.Fatalf("another key: %v", err)
	}
	thumb := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, j["x"], j["y"])) // RFC 7638
	want := map[string]string{"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "x": j["x"], "y": j["y"], "kid": base64.RawURLEncoding.EncodeToString(thumb[:])}
	if !maps.Equal(j, want) {
		t.Errorf("JWK %v, expected %v", j, want)
	}
	parts := strings.Split(token, ".")
	if header := string(unbase64(t, parts[0])); header != fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":"JWT"}`, j["kid"]) {
		t.Errorf("header %s", header)
	}
	if !signedES256(t, public, parts) {
		t.Error("the signature is not good")
	}
	payload := unbase64(t, parts[1])
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
	for i := range parts {
		changed := slices.Clone(parts)
		c := byte('A')
		if changed[i][8] == c {
			c = 'B'
		}
		changed[i] = changed[i][:8] + string(c) + changed[i][9:]
		if signedES256(t, public, changed) {
			t.Errorf("part %d changed and accepted", i)
		}
	}
}

func unbase64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signedES256 checks the signature of a JWT: R and S of 32 bytes each (RFC
// 7518, section 3.4).
func signedES256(t *testing.T, public *ecdsa.PublicKey, parts []string) bool {
	t.Helper()
	sig := unbase64(t, parts[2])
	if len(sig) != 64 {
		t.Fatalf("signature of %d bytes", len(sig))
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	return ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:]))
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
