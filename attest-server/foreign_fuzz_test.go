package attestserver

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/session"
)

// FuzzTrusteeAttestation: whatever the body, nothing panics, and a key that is
// accepted can be encrypted to.
func FuzzTrusteeAttestation(f *testing.F) {
	_, jwk := cocoKey(f, "P-256")
	_, big := cocoKey(f, "RSA")
	for _, k := range []map[string]string{jwk, big, {"kty": "EC"}, {"kty": "RSA", "alg": "RSA-OAEP-256", "n": strings.Repeat("A", 342), "e": "AQAB"}} {
		b, _ := json.Marshal(map[string]any{"runtime-data": map[string]any{"nonce": "n", "tee-pubkey": k},
			"tee-evidence": map[string]any{"primary_evidence": map[string]any{"attestation_report": map[string]any{"version": 3}}, "additional_evidence": ""}})
		f.Add(b)
	}
	sess := &session.Session{Dialect: session.Trustee, TEE: "snp"}
	f.Fuzz(func(t *testing.T, b []byte) {
		isLegacyAuth(b)
		isLegacyAttest(b)
		var req trusteeAttestation
		if answer.ReadForeign(b, &req) != nil || len(req.Runtime.Key) == 0 {
			return
		}
		a, err := trusteeRequest(sess, req)
		if err != nil || a.Recipient == nil {
			return
		}
		if sealed, err := a.Recipient.Seal(rand.Reader, recipient.Item{Plain: []byte("secret")}); err != nil || bytes.Contains(sealed, []byte("secret")) {
			t.Errorf("seal = %s, %v", sealed, err)
		}
		if a.ReportData.IsZero() {
			t.Error("zero report data")
		}
	})
}

// FuzzLegacy: the same for the C client's dialect, registration included.
func FuzzLegacy(f *testing.F) {
	f.Add([]byte(`{"tee-pubkey":{"alg":"RSA","k-mod":"`+modulus(rsaKeys()[0])+`","k-exp":"AQAB"},"tee-evidence":"{\"report\":\"00\"}"}`), `{"flags":{"bits":15}}`)
	f.Add([]byte(mkcw("w1", 1, "p")), "")
	f.Fuzz(func(t *testing.T, b []byte, config string) {
		var a legacyAttestation
		if answer.ReadForeign(b, &a) == nil {
			_, _ = parseLegacyEvidence(a.Evidence)
			if k, err := legacyKeyOf(a); err == nil {
				sealed, err := recipient.Legacy{Public: k}.Seal(rand.Reader, recipient.Item{Plain: bytes.Repeat([]byte("x"), recipient.MaxPassphrase)})
				if _, bad := hex.DecodeString(strings.Trim(string(sealed), `"`)); err != nil || bad != nil || len(sealed) != 2*k.Size()+2 || len(sealed) >= 4096 {
					t.Errorf("seal = %s, %v", sealed, err)
				}
			}
		}
		var r legacyRegistration
		if answer.ReadForeign(b, &r) != nil {
			return
		}
		r.TEEConfig = config
		reg, err := r.registration()
		if err != nil {
			return
		}
		if rules := reg.ReferenceValues.SNP; reg.Type != kbs.TypeLegacy || rules != nil && (rules.AllowDebug || rules.AllowMigrateMA) {
			t.Errorf("registration %+v", reg)
		}
	})
}
