package attestserver

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
)

// foreignEAR reads a token with nothing but the drafts and the key set: RFC
// 7515, RFC 7517, draft-ietf-rats-ear-03 and draft-ietf-rats-ar4si.
func foreignEAR(t *testing.T, token string, jwks []byte) map[string]any {
	t.Helper()
	part := strings.Split(token, ".")
	decode := func(s string, v any) []byte {
		b, err := base64.RawURLEncoding.Strict().DecodeString(s)
		if err == nil && v != nil {
			err = json.Unmarshal(b, v)
		}
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		return b
	}
	if len(part) != 3 {
		t.Fatalf("token of %d parts", len(part))
	}
	var header struct{ Alg, KID, Typ string }
	decode(part[0], &header)
	var set struct {
		Keys []struct{ KTY, CRV, X, Y, KID, Alg, Use string }
	}
	if err := json.Unmarshal(jwks, &set); err != nil || header.Alg != "ES256" {
		t.Fatalf("header %+v, key set %s: %v", header, jwks, err)
	}
	i := slices.IndexFunc(set.Keys, func(k struct{ KTY, CRV, X, Y, KID, Alg, Use string }) bool { return k.KID == header.KID })
	if i < 0 || set.Keys[i].KTY != "EC" || set.Keys[i].CRV != "P-256" {
		t.Fatalf("no key %q in %s", header.KID, jwks)
	}
	point := slices.Concat([]byte{4}, decode(set.Keys[i].X, nil), decode(set.Keys[i].Y, nil))
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		t.Fatal(err)
	}
	sig, sum := decode(part[2], nil), sha256.Sum256([]byte(part[0]+"."+part[1]))
	if len(sig) != 64 || !ecdsa.Verify(pub, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		t.Fatal("the signature is not good")
	}
	var claims map[string]any
	decode(part[1], &claims)
	return claims
}

// TestEARForeign: the results of real sessions, one granted and one denied,
// as a relying party reads them that knows the drafts alone.
func TestEARForeign(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, withSNP(t, session.Trustee), func(c *Config) { c.SigningKey = key })
	r.registerSNP("w1", kbs.TypeNative, 1)
	c := r.coco("P-256", 1)
	if _, err := c.resource(diskKeyOf + "w1"); err != nil {
		t.Fatal(err)
	}
	other := r.coco("P-256", 9)
	denied := other.handshake()
	if denied == nil {
		t.Fatal("a guest that is not registered attested")
	}
	_, deniedNumber, _ := strings.Cut(denied.Error(), "ccrun explain ")
	granted := regexp.MustCompile(`"msg":"key released","session":"([^"]+)"`).FindStringSubmatch(r.log.String())
	if granted == nil {
		t.Fatal("no released key in the log")
	}
	_, jwks := r.call("GET", "/v1/jwks", "", nil)
	for number, want := range map[string]string{granted[1]: "affirming", deniedNumber: "contraindicated"} {
		_, token := r.ear(number, string(r.token(store.Auditor).Reveal()))
		ear := foreignEAR(t, token, jwks)
		if p, _ := ear["eat_profile"].(string); !strings.HasPrefix(p, "tag:") || ear["iat"] != float64(r.clock.Now().Unix()) || ear["ear.status"] != want {
			t.Errorf("%s: profile %v, issued %v, status %v", number, ear["eat_profile"], ear["iat"], ear["ear.status"])
		}
		id, _ := ear["ear.verifier-id"].(map[string]any)
		if id["developer"] == "" || id["build"] == "" {
			t.Errorf("verifier %v", id)
		}
		cpu, _ := ear["submods"].(map[string]any)["cpu0"].(map[string]any)
		vector, _ := cpu["ear.trustworthiness-vector"].(map[string]any)
		if cpu["ear.status"] != want || len(vector) == 0 {
			t.Fatalf("%s: %v", number, cpu)
		}
		worst := 0.
		for category, v := range vector {
			if !slices.Contains([]string{"instance-identity", "configuration", "executables", "file-system", "hardware", "runtime-opaque", "storage-opaque", "sourced-data"}, category) {
				t.Errorf("category %q is none of AR4SI's", category)
			}
			claim, ok := v.(float64)
			if !ok || claim < -128 || claim > 127 || claim != float64(int(claim)) {
				t.Errorf("%s = %v is no trustworthiness claim", category, v)
			}
			worst = max(worst, claim)
		}
		// 2 to 31 affirm, 32 to 95 warn, 96 and more contraindicate.
		if tier := map[bool]string{true: "contraindicated", false: "affirming"}[worst >= 96]; tier != want || worst > 31 && worst < 96 {
			t.Errorf("%s: the worst claim is %v, the status %s", number, worst, want)
		}
	}
}
