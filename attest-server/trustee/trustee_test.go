package trustee

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/session"
)

// FuzzAttestation: whatever the body, nothing panics, and a key that is
// accepted can be encrypted to.
func FuzzAttestation(f *testing.F) {
	big := base64.RawURLEncoding.EncodeToString(append(bytes.Repeat([]byte{0xc1}, 255), 1))
	for _, k := range []map[string]string{
		{"kty": "EC", "crv": "P-256", "alg": "ECDH-ES+A256KW", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
		{"kty": "RSA", "alg": "RSA-OAEP-256", "n": big, "e": "AQAB"}, {"kty": "EC"},
		{"kty": "RSA", "alg": "RSA-OAEP-256", "n": strings.Repeat("A", 342), "e": "AQAB"},
	} {
		b, _ := json.Marshal(map[string]any{"runtime-data": map[string]any{"nonce": "n", "tee-pubkey": k},
			"tee-evidence": map[string]any{"primary_evidence": map[string]any{"attestation_report": map[string]any{"version": 3}}, "additional_evidence": ""}})
		f.Add(b)
	}
	sess := &session.Session{Dialect: session.Trustee, TEE: "snp"}
	f.Fuzz(func(t *testing.T, b []byte) {
		var req attestation
		if answer.ReadForeign(b, &req) != nil || len(req.Runtime.Key) == 0 {
			return
		}
		q, err := request(sess, req)
		if err != nil || q.Recipient == nil {
			return
		}
		if sealed, err := q.Recipient.Seal(rand.Reader, recipient.Item{Plain: []byte("secret")}); err != nil || bytes.Contains(sealed, []byte("secret")) {
			t.Errorf("seal = %s, %v", sealed, err)
		}
		if q.ReportData.IsZero() {
			t.Error("zero report data")
		}
	})
}

// The answers are of facts about Trustee, computed by running its own code.
func TestKnownAnswers(t *testing.T) {
	nonce := make([]byte, 32)
	for i := range nonce {
		nonce[i] = byte(i)
	}
	raw := json.RawMessage(`{"kty":"EC","crv":"P-256","alg":"ECDH-ES+A256KW","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM","use":"dropped","n":"too"}`)
	k, _, err := recipient.ParseJWK(raw)
	if err != nil {
		t.Fatal(err)
	}
	rd, err := reportData(k, base64.StdEncoding.EncodeToString(nonce), "")
	const want = "8a6244441b1b1171b3a1d56a693d4ce116c1f9ca1ae558bc5f59d46dada54cf49e92a361ab2472c434652fed5887f16d"
	if err != nil || rd.String() != want+strings.Repeat("00", 16) {
		t.Errorf("report data %s, %v", rd, err)
	}
	c, err := kbs.Canonical(json.RawMessage(`{"b":1,"a":"test","c":{"d":"e"}}`))
	if err != nil || kbs.Sum384(c).String() != "e71ce8e70d814ba6639c3612ebee0ff1f76f650f8dbb5e47157e0f3f525cd22c4597480a186427c813ca941da78870c3" {
		t.Errorf("canonical %s, %v", c, err)
	}
}
