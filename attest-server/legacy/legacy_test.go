package legacy

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
)

// FuzzLegacy: whatever the body, nothing panics, and a key that is accepted can
// be encrypted to.
func FuzzLegacy(f *testing.F) {
	f.Add([]byte(`{"tee-pubkey":{"alg":"RSA","k-mod":"`+base64.StdEncoding.EncodeToString(append(bytes.Repeat([]byte{0xc1}, 255), 1))+`","k-exp":"AQAB"},"tee-evidence":"{\"report\":\"00\"}"}`), `{"flags":{"bits":15}}`)
	f.Add([]byte(`{"workload_id":"w1","launch_measurement":"`+strings.Repeat("01", 48)+`","tee_config":"{\"flags\":{\"bits\":15}}","passphrase":"p"}`), "")
	f.Fuzz(func(t *testing.T, b []byte, config string) {
		IsAuth(b)
		IsAttest(b)
		var a attestation
		if answer.ReadForeign(b, &a) == nil {
			_, _ = parseEvidence(a.Evidence)
			if k, err := publicKey(a); err == nil {
				sealed, err := recipient.Legacy{Public: k}.Seal(rand.Reader, recipient.Item{Plain: bytes.Repeat([]byte("x"), recipient.MaxPassphrase)})
				if _, bad := hex.DecodeString(strings.Trim(string(sealed), `"`)); err != nil || bad != nil || len(sealed) != 2*k.Size()+2 || len(sealed) >= 4096 {
					t.Errorf("seal = %s, %v", sealed, err)
				}
			}
		}
		var r registration
		if answer.ReadForeign(b, &r) != nil {
			return
		}
		r.TEEConfig = config
		reg, err := r.record()
		if err != nil {
			return
		}
		if rules := reg.ReferenceValues.SNP; reg.Type != kbs.TypeLegacy || rules != nil && (rules.AllowDebug || rules.AllowMigrateMA) {
			t.Errorf("registration %+v", reg)
		}
	})
}

// The answer is that of reference-kbs, run.
func TestKnownAnswer(t *testing.T) {
	n := make([]byte, 256)
	for i := range n {
		n[i] = byte(i)
	}
	n[0] = 0xc0
	rd := reportData("00112233445566778899aabbccddeeff", base64.StdEncoding.EncodeToString(n), "AQAB")
	if rd.String() != "a6787518c6c632fed326bad7c9b3d46f64927dd631d23e24e16c2c4e8138a3ffa549c0fb4decfc5608dcfb8f17ac2399591500d41040af4bef2b893ab92cd957" {
		t.Errorf("report data %s", rd)
	}
}

// TestRules: what tee_config asks for is kept, what it allows is not.
func TestRules(t *testing.T) {
	for config, want := range map[string]string{
		``: "null",
		`{"flags":{"bits":15},"minfw":{"major":0,"minor":0}}`: "null",
		`{"flags":{"bits":14},"minfw":{"major":0,"minor":0}}`: `{"forbid_smt":true}`,
		`{"flags":{"bits":15},"minfw":{"major":1,"minor":5}}`: `{"minimum_abi":{"major":1,"minor":5}}`,
	} {
		rules, err := rulesOf(config)
		b, _ := json.Marshal(rules)
		if err != nil || string(b) != want {
			t.Errorf("%s: %s, %v", config, b, err)
		}
	}
}
