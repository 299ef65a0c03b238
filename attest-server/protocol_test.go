package attestserver

import (
	"context"
	"crypto/hpke"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

// marksPerGrant is how many more denials than grants a server remembers.
const marksPerGrant = 16

// handshake is one guest's session, every step of which a test may change.
type handshake struct {
	r       *rig
	id      string
	digest  byte
	tee     kbs.TEE
	private hpke.PrivateKey
	auth    kbs.AuthAnswer
	attest  kbs.AttestRequest
	bearer  string
}

// begin goes as far as a request to attest that is right.
func (r *rig) begin(id string, digest byte) *handshake {
	r.t.Helper()
	h := &handshake{r: r, id: id, digest: digest, tee: kbs.Sample}
	status, b := r.call("POST", "/v1/auth", "", kbs.AuthRequest{Version: 1, TEE: kbs.Sample, WorkloadID: id})
	if status != http.StatusOK {
		r.t.Fatalf("auth: %d %s", status, b)
	}
	if err := kbs.UnmarshalStrict(b, &h.auth); err != nil {
		r.t.Fatal(err)
	}
	h.bearer = h.auth.Session
	var err error
	if h.private, err = hpke.MLKEM768X25519().GenerateKey(); err != nil {
		r.t.Fatal(err)
	}
	h.attest.RuntimeData = kbs.RuntimeData{
		Nonce: h.auth.Nonce, TEEKey: kbs.TEEKey{KEM: h.private.KEM().ID(), Public: h.private.PublicKey().Bytes()},
		IdentityDigest: kbs.Sum384([]byte("identity of " + id)), FooterDigest: kbs.Sum384([]byte("footer of " + id)),
	}
	h.sign()
	return h
}

// sign has the TEE bind the runtime data as it now is.
func (h *handshake) sign() {
	rd, err := kbs.Binding(h.id, h.attest.RuntimeData)
	if err != nil {
		h.r.t.Fatal(err)
	}
	h.attest.Evidence = fakeReport(h.tee, kbs.LaunchDigest{h.digest}, rd)
}

func (h *handshake) doAttest() string {
	status, b := h.r.call("POST", "/v1/attest", h.bearer, h.attest)
	return code(h.r.t, status, b)
}

func (h *handshake) doKey() string {
	status, b := h.r.call("GET", "/v1/workloads/"+h.id+"/key", h.bearer, nil)
	return code(h.r.t, status, b)
}

// TestAttestRefuses changes one thing about a handshake that is right. Every
// change must be denied, leave the nonce spent and the key unreleased.
func TestAttestRefuses(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(r *rig, h *handshake)
		want string // problem code
		rule string // that must have failed, for attestation_denied
	}{
		"nothing": {func(*rig, *handshake) {}, "", ""},
		"replayed evidence of an earlier session": {func(r *rig, h *handshake) {
			h.attest.Evidence = r.begin("w1", 1).attest.Evidence
		}, kbs.CodeAttestationDenied, "report_data"},
		"whole request of an earlier session": {func(r *rig, h *handshake) {
			h.attest = r.begin("w1", 1).attest
		}, kbs.CodeAttestationDenied, "session_nonce"},
		"other nonce, signed": {func(_ *rig, h *handshake) {
			h.attest.RuntimeData.Nonce = make([]byte, kbs.NonceSize)
			h.sign()
		}, kbs.CodeAttestationDenied, "session_nonce"},
		"no nonce": {func(_ *rig, h *handshake) {
			h.attest.RuntimeData.Nonce = nil
		}, kbs.CodeAttestationDenied, "session_nonce"},
		"TEE key swapped by the host": {func(_ *rig, h *handshake) {
			k, _ := hpke.MLKEM768X25519().GenerateKey()
			h.attest.RuntimeData.TEEKey.Public = k.PublicKey().Bytes()
		}, kbs.CodeAttestationDenied, "report_data"},
		"TEE key cut short": {func(_ *rig, h *handshake) {
			h.attest.RuntimeData.TEEKey.Public = h.attest.RuntimeData.TEEKey.Public[1:]
			h.sign()
		}, kbs.CodeAttestationDenied, "tee_key"},
		"TEE key a quantum computer breaks": {func(_ *rig, h *handshake) {
			k, _ := hpke.NewKEM(0x0020)
			p, _ := k.GenerateKey()
			h.attest.RuntimeData.TEEKey = kbs.TEEKey{KEM: 0x0020, Public: p.PublicKey().Bytes()}
			h.sign()
		}, kbs.CodeAttestationDenied, "tee_key"},
		"identity digest changed": {func(_ *rig, h *handshake) {
			h.attest.RuntimeData.IdentityDigest[3] ^= 1
		}, kbs.CodeAttestationDenied, "identity_digest"},
		"identity digest changed, signed": {func(_ *rig, h *handshake) {
			h.attest.RuntimeData.IdentityDigest[3] ^= 1
			h.sign()
		}, kbs.CodeAttestationDenied, "identity_digest"},
		"footer digest changed, signed": {func(_ *rig, h *handshake) {
			h.attest.RuntimeData.FooterDigest[47] ^= 1
			h.sign()
		}, kbs.CodeAttestationDenied, "footer_digest"},
		"other launch digest": {func(_ *rig, h *handshake) {
			h.digest = 9
			h.sign()
		}, kbs.CodeAttestationDenied, "measurement"},
		"other registered workload's launch digest": {func(_ *rig, h *handshake) {
			h.digest = 2
			h.sign()
		}, kbs.CodeAttestationDenied, "measurement"},
		"forged report": {func(_ *rig, h *handshake) {
			h.attest.Evidence.Report[0] ^= 1
		}, kbs.CodeAttestationDenied, "signature"},
		"no report": {func(_ *rig, h *handshake) {
			h.attest.Evidence.Report = nil
		}, kbs.CodeAttestationDenied, "signature"},
		"evidence of another TEE": {func(_ *rig, h *handshake) {
			h.attest.Evidence.TEE = kbs.SNP
		}, kbs.CodeAttestationDenied, "session_tee"},
		"hostile TEE name": {func(_ *rig, h *handshake) {
			h.attest.Evidence.TEE = kbs.TEE(strings.Repeat("\x1b[2J", 10000))
		}, kbs.CodeAttestationDenied, "session_tee"},
		"bound to another workload": {func(_ *rig, h *handshake) {
			h.id = "w2"
			h.sign()
			h.id = "w1"
		}, kbs.CodeAttestationDenied, "report_data"},
		"revoked workload": {func(r *rig, _ *handshake) {
			if _, err := r.admin.Revoke(context.Background(), "w1"); err != nil {
				r.t.Fatal(err)
			}
		}, kbs.CodeAttestationDenied, "not_revoked"},
		"removed workload": {func(r *rig, _ *handshake) {
			if err := r.admin.Remove(context.Background(), "w1"); err != nil {
				r.t.Fatal(err)
			}
		}, kbs.CodeAttestationDenied, "registered"},
		"expired session": {func(r *rig, _ *handshake) {
			r.clock.advance(time.Minute)
		}, kbs.CodeSessionExpired, ""},
		"other session's bearer": {func(r *rig, h *handshake) {
			h.bearer = r.begin("w1", 1).bearer
		}, kbs.CodeAttestationDenied, "session_nonce"},
		"other workload's session": {func(r *rig, h *handshake) {
			h.bearer = r.begin("w2", 2).bearer
		}, kbs.CodeAttestationDenied, "session_nonce"},
		"no bearer": {func(_ *rig, h *handshake) { h.bearer = "" }, kbs.CodeUnauthorized, ""},
		"bearer cut short": {func(_ *rig, h *handshake) {
			h.bearer = h.bearer[:len(h.bearer)-2]
		}, kbs.CodeSessionExpired, ""},
		"bearer with one bit flipped": {func(_ *rig, h *handshake) {
			b, _ := base64.RawURLEncoding.DecodeString(h.bearer)
			b[len(b)/2] ^= 1
			h.bearer = base64.RawURLEncoding.EncodeToString(b)
		}, kbs.CodeSessionExpired, ""},
		"admin's token as bearer": {func(r *rig, h *handshake) {
			h.bearer = string(r.admin.Token.Reveal())
		}, kbs.CodeSessionExpired, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.register("w1", 1)
			r.register("w2", 2)
			h := r.begin("w1", 1)
			change.do(r, h)
			status, b := r.call("POST", "/v1/attest", h.bearer, h.attest)
			if got := code(t, status, b); got != change.want {
				t.Fatalf("attest: %d %s, expected code %q", status, b, change.want)
			}
			if change.want == "" {
				if got := h.doKey(); got != "" {
					t.Fatalf("key: %s", got)
				}
				return
			}
			if got := h.doKey(); got == "" {
				t.Fatal("the key was released")
			}
			if change.rule != "" {
				r.checkExplained(b, change.rule)
				if got := h.doAttest(); got != kbs.CodeSessionExpired {
					t.Errorf("attest again: %q: a denial leaves the nonce unspent", got)
				}
			}
			if st, err := r.admin.Get(t.Context(), "w1"); err == nil && st.Releases != 0 {
				t.Errorf("%d releases", st.Releases)
			}
		})
	}
}

// checkExplained wants the owner to find the rule failed in the session.
func (r *rig) checkExplained(body []byte, rule string) {
	r.t.Helper()
	var p kbs.Problem
	if err := json.Unmarshal(body, &p); err != nil || p.Session == "" {
		r.t.Fatalf("problem %s: %v", body, err)
	}
	rec, err := r.admin.Session(r.t.Context(), p.Session)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, x := range rec.Result.Rules {
		if len(x.Got) > 2048 {
			r.t.Errorf("rule %s keeps %d bytes of the guest's", x.Rule, len(x.Got))
		}
		if strings.Contains(x.Got, "\x1b") {
			r.t.Errorf("rule %s keeps terminal escapes", x.Rule)
		}
		if x.Rule == rule && !x.Pass {
			return
		}
	}
	r.t.Errorf("rule %s did not fail: %+v", rule, rec.Result.Rules)
}

func TestKeyRefuses(t *testing.T) {
	for name, change := range map[string]struct {
		do   func(r *rig, h *handshake)
		want string
	}{
		"nothing":                 {func(*rig, *handshake) {}, ""},
		"other workload's id":     {func(_ *rig, h *handshake) { h.id = "w2" }, kbs.CodeForbidden},
		"unknown workload's id":   {func(_ *rig, h *handshake) { h.id = "nope" }, kbs.CodeForbidden},
		"before attest":           {func(r *rig, h *handshake) { h.bearer = r.begin("w1", 1).bearer }, kbs.CodeNotAttested},
		"no bearer":               {func(_ *rig, h *handshake) { h.bearer = "" }, kbs.CodeUnauthorized},
		"after its life":          {func(r *rig, _ *handshake) { r.clock.advance(time.Minute) }, kbs.CodeSessionExpired},
		"long after its life":     {func(r *rig, _ *handshake) { r.clock.advance(time.Hour) }, kbs.CodeSessionExpired},
		"a fourth time":           {func(_ *rig, h *handshake) { h.doKey(); h.doKey(); h.doKey() }, kbs.CodeSessionExpired},
		"admin's token as bearer": {func(r *rig, h *handshake) { h.bearer = string(r.admin.Token.Reveal()) }, kbs.CodeSessionExpired},
		"revoked meanwhile": {func(r *rig, _ *handshake) {
			if _, err := r.admin.Revoke(context.Background(), "w1"); err != nil {
				r.t.Fatal(err)
			}
		}, kbs.CodeAttestationDenied},
		"registered otherwise meanwhile": {func(r *rig, _ *handshake) {
			if err := r.admin.Remove(context.Background(), "w1"); err != nil {
				r.t.Fatal(err)
			}
			r.register("w1", 5)
		}, kbs.CodeUnavailable}, // attesting again says what holds now
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.register("w1", 1)
			r.register("w2", 2)
			h := r.begin("w1", 1)
			if got := h.doAttest(); got != "" {
				t.Fatalf("attest: %s", got)
			}
			change.do(r, h)
			if got := h.doKey(); got != change.want {
				t.Errorf("key: code %q, expected %q", got, change.want)
			}
		})
	}
}

// TestSealedToTheAttestedKey: the answer opens with the guest's private key
// under this session's info, and with nothing else.
func TestSealedToTheAttestedKey(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	h := r.begin("w1", 1)
	if got := h.doAttest(); got != "" {
		t.Fatal(got)
	}
	_, b := r.call("GET", "/v1/workloads/w1/key", h.bearer, nil)
	var s kbs.Sealed
	if err := kbs.UnmarshalStrict(b, &s); err != nil {
		t.Fatal(err)
	}
	rd, err := kbs.Binding("w1", h.attest.RuntimeData)
	if err != nil {
		t.Fatal(err)
	}
	both := append(append([]byte{}, s.Enc...), s.Ciphertext...)
	open := func(k hpke.PrivateKey, info []byte) (string, error) {
		p, err := hpke.Open(k, hpke.HKDFSHA256(), hpke.AES256GCM(), info, both)
		return string(p), err
	}
	if p, err := open(h.private, kbs.ReleaseInfo(rd, kbs.ReleaseName("w1"))); err != nil || p != diskKeyText+"w1" {
		t.Errorf("open = %q, %v", p, err)
	}
	other, _ := hpke.MLKEM768X25519().GenerateKey()
	if _, err := open(other, kbs.ReleaseInfo(rd, kbs.ReleaseName("w1"))); err == nil {
		t.Error("opened with another key")
	}
	if _, err := open(h.private, kbs.ReleaseInfo(rd, kbs.ReleaseName("w2"))); err == nil {
		t.Error("opened as another workload's key")
	}
	rd[0] ^= 1
	if _, err := open(h.private, kbs.ReleaseInfo(rd, kbs.ReleaseName("w1"))); err == nil {
		t.Error("opened under another session's report data")
	}
}

// TestRaceForOneNonce: of many guests with one session, one attests.
func TestRaceForOneNonce(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	h := r.begin("w1", 1)
	var granted atomic.Int32
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if h.doAttest() == "" {
				granted.Add(1)
			}
		})
	}
	wg.Wait()
	if granted.Load() != 1 {
		t.Fatalf("%d attestations granted for one nonce", granted.Load())
	}
	granted.Store(0)
	for range 16 {
		wg.Go(func() {
			if h.doKey() == "" {
				granted.Add(1)
			}
		})
	}
	wg.Wait()
	if granted.Load() != 3 {
		t.Errorf("%d releases, expected 3", granted.Load())
	}
}

// TestAuthTellsNothing: known and unknown workloads get the same answers up
// to attest, and there too but for the number.
func TestAuthTellsNothing(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	known, unknown := r.begin("w1", 9), r.begin("w9", 9)
	if len(known.bearer) != len(unknown.bearer) || len(known.auth.Nonce) != kbs.NonceSize || known.auth.ExpiresIn != 60 {
		t.Errorf("auth answers %+v and %+v", known.auth, unknown.auth)
	}
	s1, b1 := r.call("POST", "/v1/attest", known.bearer, known.attest)
	s2, b2 := r.call("POST", "/v1/attest", unknown.bearer, unknown.attest)
	var p1, p2 kbs.Problem
	if json.Unmarshal(b1, &p1) != nil || json.Unmarshal(b2, &p2) != nil {
		t.Fatal(string(b1), string(b2))
	}
	p1.Session, p2.Session = "", ""
	if s1 != s2 || p1 != p2 || p1.Code != kbs.CodeAttestationDenied {
		t.Errorf("attest answers differ: %+v, %+v", p1, p2)
	}
}

func TestUsedSessionsAreBounded(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxSessions = 4 })
	r.register("w1", 1)
	var fresh []*handshake
	for range 100 { // a flood of /auth takes no place
		fresh = append(fresh, r.begin("w1", 1))
	}
	for i, h := range fresh[:6] {
		want := ""
		if i >= 4 {
			want = kbs.CodeUnavailable
		}
		if got := h.doAttest(); got != want {
			t.Errorf("attest %d: %q, expected %q", i, got, want)
		}
	}
	r.clock.advance(3 * time.Minute)
	if got := r.begin("w1", 1).doAttest(); got != "" {
		t.Errorf("attest after the table has aged: %q", got)
	}
	for i := range 4*marksPerGrant + 2 {
		want := kbs.CodeAttestationDenied
		if i >= 4*marksPerGrant-1 { // one place is taken
			want = kbs.CodeUnavailable
		}
		h := r.begin("w1", 9)
		h.attest.RuntimeData.Nonce = nil // fails at once
		if got := h.doAttest(); got != want {
			t.Fatalf("denial %d: %q, expected %q", i, got, want)
		}
	}
	r.clock.advance(3 * time.Minute)
	if got := r.begin("w1", 1).doAttest(); got != "" {
		t.Errorf("attest after the table has aged again: %q", got)
	}
	if granted, marks := r.server.sessions.Size(); granted != 1 || marks != 1 {
		t.Errorf("%d sessions left, %d of them granted, expected the last one alone", marks, granted)
	}
}

func TestRegisteredTEE(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Verifiers[kbs.SNP] = fakeTEE{} })
	r.register("w1", 1)
	h := &handshake{r: r, id: "w1", digest: 1, tee: kbs.SNP}
	_, b := r.call("POST", "/v1/auth", "", kbs.AuthRequest{Version: 1, TEE: kbs.SNP, WorkloadID: "w1"})
	if err := kbs.UnmarshalStrict(b, &h.auth); err != nil {
		t.Fatal(err)
	}
	h.bearer, h.attest = h.auth.Session, r.begin("w1", 1).attest
	h.attest.RuntimeData.Nonce = h.auth.Nonce
	h.sign()
	status, b := r.call("POST", "/v1/attest", h.bearer, h.attest)
	if got := code(t, status, b); got != kbs.CodeAttestationDenied {
		t.Fatalf("attest: %q", got)
	}
	r.checkExplained(b, "registered_tee")
	r.checkExplained(b, "tee")
}

// TestRestartVoidsSessions: the second server is the first after a restart.
func TestRestartVoidsSessions(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	fresh, granted := r.begin("w1", 1), r.begin("w1", 1)
	if got := granted.doAttest(); got != "" {
		t.Fatal(got)
	}
	c := r.server.Config
	c.Metrics = nil // of one process
	again, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	r.http.Config.Handler = again.Handler()
	if got := fresh.doAttest(); got != kbs.CodeSessionExpired {
		t.Errorf("attest with a session of before: %q", got)
	}
	if got := granted.doKey(); got != kbs.CodeSessionExpired {
		t.Errorf("key with a session of before: %q", got)
	}
}

// brokenTEE stands for a verifier in trouble.
type brokenTEE struct {
	verify func() (*verifier.Claims, error)
}

func (b brokenTEE) Verify(context.Context, kbs.Evidence, time.Time) (*verifier.Claims, error) {
	return b.verify()
}

func TestVerifierInTrouble(t *testing.T) {
	for name, x := range map[string]struct {
		verify func() (*verifier.Claims, error)
		want   string
	}{
		"panics":               {func() (*verifier.Claims, error) { panic("hostile bytes") }, kbs.CodeInternal},
		"has no answer":        {func() (*verifier.Claims, error) { return nil, errors.New("cache is gone") }, kbs.CodeUnavailable},
		"neither yes nor no":   {func() (*verifier.Claims, error) { return nil, nil }, kbs.CodeUnavailable},
		"claims nothing":       {func() (*verifier.Claims, error) { return &verifier.Claims{}, nil }, kbs.CodeAttestationDenied},
		"claims and complains": {func() (*verifier.Claims, error) { return &verifier.Claims{TEE: kbs.Sample}, &verifier.Error{} }, kbs.CodeAttestationDenied},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.Verifiers[kbs.Sample] = brokenTEE{x.verify}; c.MaxVerifying = 1 })
			r.register("w1", 1)
			for range 3 { // a place among the appraisals must not stay taken
				h := r.begin("w1", 1)
				if got := h.doAttest(); got != x.want {
					t.Errorf("attest: %q, expected %q", got, x.want)
				}
				if got := h.doKey(); got != kbs.CodeAttestationDenied {
					t.Errorf("key: %q", got)
				}
			}
		})
	}
}
