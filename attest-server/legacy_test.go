package attestserver

import (
	"net/http"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

func TestLegacyReleases(t *testing.T) {
	r := newRig(t, withSNP(t, session.Native, session.Trustee, session.Legacy))
	token := string(r.token(store.Publisher).Reveal())
	for _, id := range []string{"w1", "w2"} {
		for range 2 { // the second time it is there already
			if status, b := r.legacyCall(token, mkcw(id, id[1]-'0', diskKeyText+id)); status != 200 || b != "" {
				t.Fatalf("register %s: %d %q", id, status, b)
			}
		}
	}
	for _, id := range []string{"w1", "w2"} {
		c := r.cClient(id, id[1]-'0')
		if id == "w2" {
			c.base += "/" // //kbs/v0/auth
		}
		if k, err := c.run(); err != nil || k != diskKeyText+id {
			t.Fatalf("%s: %q, %v", id, k, err)
		}
		if len(c.cookie) > 88 || len(c.nonce) != 64 {
			t.Errorf("cookie of %d, nonce of %d characters", len(c.cookie), len(c.nonce))
		}
	}
	st, err := r.admin.Get(t.Context(), "w1")
	if err != nil || st.Registration.Type != kbs.TypeLegacy || !st.Registration.IdentityDigest.IsZero() || st.Releases != 1 || st.Registration.ReferenceValues.SNP != nil {
		t.Errorf("status %+v, %v", st, err)
	}
	list, err := r.admin.List(t.Context())
	if err != nil || len(list) != 2 || list[0].Type != kbs.TypeLegacy {
		t.Errorf("list %+v, %v: the weaker identity does not show", list, err)
	}
	if s := r.log.String(); strings.Contains(s, diskKeyText) || strings.Contains(s, token) {
		t.Error("the log holds a secret")
	}
}

// TestLegacyRefuses changes one thing. The client knows a refusal of attest by
// a body that is not empty, and must not be sent one that it cannot hold.
func TestLegacyRefuses(t *testing.T) {
	r := newRig(t, withSNP(t, session.Native, session.Trustee, session.Legacy))
	r.registerSNP("w1", kbs.TypeLegacy, 1)
	r.registerSNP("w2", kbs.TypeLegacy, 2)
	r.registerSNP("new", kbs.TypeNative, 3)
	r.registerSNP("coco", kbs.TypeTrustee, 4)
	earlier := r.cClient("w1", 1)
	if err := earlier.auth(); err != nil {
		t.Fatal(err)
	}
	old := earlier.request()
	replace := func(a, b string) func(*cClient) {
		return func(c *cClient) {
			c.attestBody = func(s string) string {
				if !strings.Contains(s, a) {
					t.Errorf("no %q", a)
				}
				return strings.Replace(s, a, b, 1)
			}
		}
	}
	for name, change := range map[string]func(*cClient){
		"replayed request": func(c *cClient) { c.attestBody = func(string) string { return old } },
		"host's key": func(c *cClient) {
			c.attestBody = func(s string) string {
				c.private = verifiertest.RSAKeys()[1]
				return strings.Replace(s, modulus(verifiertest.RSAKeys()[0]), modulus(verifiertest.RSAKeys()[1]), 1)
			}
		},
		"other measurement": func(c *cClient) { c.digest = 9 },
		"other workload's":  func(c *cClient) { c.digest = 2 },
		"native workload":   func(c *cClient) { c.id, c.keyID, c.digest = "new", "new", 3 },
		"trustee workload":  func(c *cClient) { c.id, c.keyID, c.digest = "coco", "coco", 4 },
		"unknown workload":  func(c *cClient) { c.id, c.keyID = "nope", "nope" },
		"forged report":     replace(`\"report\":\"0500`, `\"report\":\"0501`),
		"short report":      replace(`\"report\":\"05000000`, `\"report\":\"`),
		"no hex":            replace(`\"report\":\"0`, `\"report\":\"x`),
		"no evidence": func(c *cClient) {
			c.attestBody = func(s string) string { return s[:strings.Index(s, `"tee-evidence"`)-1] + "}" }
		},
		"small exponent":   replace(`"AQAB"`, `"Aw=="`),
		"no RSA":           replace(`"alg":"RSA"`, `"alg":"EC"`),
		"no JSON":          func(c *cClient) { c.attestBody = func(string) string { return `{"tee-pubkey":` } },
		"empty body":       func(c *cClient) { c.attestBody = func(string) string { return "" } },
		"duplicate member": replace(`"tee-evidence":`, `"tee-evidence":"{}","tee-evidence":`),
		"oversize": func(c *cClient) {
			c.attestBody = func(s string) string { return s + strings.Repeat(" ", maxForeignBody) }
		},
		"cookie changed": func(c *cClient) {
			c.attestBody = func(s string) string { c.cookie = string(c.cookie[0]^1) + c.cookie[1:]; return s }
		},
		"other session cookie": func(c *cClient) { c.attestBody = func(s string) string { c.cookie = earlier.cookie; return s } },
		"no cookie":            func(c *cClient) { c.attestBody = func(s string) string { c.cookie = ""; return s } },
		"expired": func(c *cClient) {
			c.attestBody = func(s string) string { r.clock.advance(r.server.SessionLife); return s }
		},
	} {
		t.Run(name, func(t *testing.T) {
			r.t = t
			c := r.cClient("w1", 1)
			change(c)
			if err := c.auth(); err != nil {
				t.Fatal(err)
			}
			if err := c.attest(); err == nil || !strings.HasPrefix(err.Error(), "ATTESTATION ERROR: ") {
				t.Errorf("attest: %v", err)
			}
			if strings.Contains(c.status, " 200 ") {
				t.Error(c.status)
			}
			if k, err := c.key(); err == nil {
				t.Fatalf("released %q", k)
			}
		})
	}
}

func TestLegacyKeyRefuses(t *testing.T) {
	r := newRig(t, withSNP(t, session.Trustee, session.Legacy))
	r.registerSNP("w1", kbs.TypeLegacy, 1)
	r.registerSNP("w2", kbs.TypeLegacy, 2)
	c := r.cClient("w1", 1)
	if err := c.auth(); err != nil {
		t.Fatal(err)
	}
	if k, err := c.key(); err == nil {
		t.Fatalf("before attest: %q", k)
	}
	if err := c.attest(); err != nil {
		t.Fatal(err)
	}
	if err := c.attest(); err == nil {
		t.Error("attested twice with one nonce")
	}
	// What reference-kbs would give out.
	c.keyID = "w2"
	if k, err := c.key(); err == nil {
		t.Fatalf("another workload's key: %q", k)
	}
	c.keyID = "w1"
	own := c.cookie
	c.cookie = own + "; session_id=" + own[:len(own)-1] + "x"
	if len(c.cookie) < 100 {
		t.Fatal("test of two cookies")
	}
	first := "x"
	if own[:1] == first {
		first = "y"
	}
	resp := r.raw("/kbs/v0/key/w1", "session_id="+own+"; session_id="+first+own[1:])
	if resp == 200 {
		t.Error("two cookies that differ were taken")
	}
	c.cookie = own
	for i := range 3 {
		if k, err := c.key(); err != nil || k != diskKeyText+"w1" {
			t.Errorf("release %d: %q, %v", i, k, err)
		}
	}
	if _, err := c.key(); err == nil {
		t.Error("a fourth release")
	}
	// The cookie of one dialect is nothing in the other.
	for _, header := range []string{"kbs-session-id=" + own, "session_id=" + r.cocoCookie()} {
		if resp := r.raw("/kbs/v0/resource/ccrun/disk-key/w1", header); resp == 200 {
			t.Errorf("%s was taken for a CoCo session", header)
		}
		if resp := r.raw("/kbs/v0/key/w1", header); resp == 200 {
			t.Errorf("%s was taken for a legacy session", header)
		}
	}
}

func (r *rig) raw(path, cookie string) int {
	req, _ := http.NewRequest("GET", r.http.URL+path, nil)
	req.Header.Set("Cookie", cookie)
	resp, err := r.http.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

func (r *rig) cocoCookie() string {
	resp, err := r.http.Client().Post(r.http.URL+"/kbs/v0/auth", "application/json", strings.NewReader(`{"version":"0.4.0","tee":"snp","extra-params":""}`))
	if err != nil {
		r.t.Fatal(err)
	}
	resp.Body.Close()
	if len(resp.Cookies()) != 1 || resp.Cookies()[0].Name != "kbs-session-id" || !resp.Cookies()[0].Secure {
		r.t.Fatalf("cookies %v", resp.Cookies())
	}
	return resp.Cookies()[0].Value
}
