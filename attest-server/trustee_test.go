package attestserver

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
)

const diskKeyOf = "ccrun/disk-key/"

func TestTrusteeReleases(t *testing.T) {
	r := newRig(t, withSNP(t, session.Trustee))
	r.registerSNP("w1", kbs.TypeNative, 1)
	r.registerSNP("w2", kbs.TypeTrustee, 2)
	for _, kind := range []string{"P-256", "P-521", "RSA"} {
		for id, digest := range map[string]byte{"w1": 1, "w2": 2} {
			c := r.coco(kind, digest)
			k, err := c.resource(diskKeyOf + id)
			if err != nil || string(k) != diskKeyText+id {
				t.Fatalf("%s, %s: %q, %v", kind, id, k, err)
			}
			if c.attested != 1 {
				t.Errorf("%s: %d attestations for one key", kind, c.attested)
			}
		}
	}
	st, err := r.admin.Get(t.Context(), "w2")
	if err != nil || st.Releases != 3 || st.Registration.Type != kbs.TypeTrustee {
		t.Errorf("status %+v, %v", st, err)
	}
	list, err := r.admin.List(t.Context())
	if err != nil || len(list) != 2 || list[0].Type != kbs.TypeNative || list[1].Type != kbs.TypeTrustee {
		t.Errorf("list %+v, %v", list, err)
	}
	if s := r.log.String(); strings.Contains(s, diskKeyText) {
		t.Error("the log holds a secret")
	}
}

// TestTrusteeSession walks one session to its end: a token instead of the
// cookie, the releases counted, and then a new handshake.
func TestTrusteeSession(t *testing.T) {
	r := newRig(t, withSNP(t, session.Trustee))
	r.registerSNP("w1", kbs.TypeNative, 1)
	c := r.coco("P-256", 1)
	if err := c.handshake(); err != nil {
		t.Fatal(err)
	}
	get := func(token string) error {
		req, _ := http.NewRequest("GET", c.url+"/kbs/v0/resource/"+diskKeyOf+"w1", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := r.http.Client().Do(req) // no cookies
		if err != nil {
			t.Fatal(err)
		}
		b, err := c.answer(resp)
		if err == nil {
			b, err = c.open(b)
		}
		if err == nil && string(b) != diskKeyText+"w1" {
			t.Errorf("token: %q", b)
		}
		return err
	}
	if err := get(c.token); err != nil {
		t.Errorf("with the token: %v", err)
	}
	for name, token := range map[string]string{
		"signature changed": c.token[:len(c.token)-4] + "AAAA",
		"no signature":      strings.Join(strings.Split(c.token, ".")[:2], ".") + ".",
		"none":              base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + strings.Split(c.token, ".")[1] + ".",
		"other claims":      strings.Split(c.token, ".")[0] + "." + raw64([]byte(`{"jti":"x"}`)) + "." + strings.Split(c.token, ".")[2],
		"admin's token":     string(r.admin.Token.Reveal()),
		"empty":             "",
		"huge":              strings.Repeat("a.", 100000)[:8000],
	} {
		var e *errorInformation
		if err := get(token); !errors.As(err, &e) || e.status != 401 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.resource(diskKeyOf + "nothing"); err == nil {
		t.Error("a workload that does not exist")
	}
	for i := range 2 {
		if _, err := c.resource(diskKeyOf + "w1"); err != nil || c.attested != 1 {
			t.Errorf("release %d: %v after %d attestations", i+2, err, c.attested)
		}
	}
	if _, err := c.resource(diskKeyOf + "w1"); err != nil || c.attested != 2 {
		t.Errorf("after the session's last release: %v after %d attestations", err, c.attested)
	}
	r.clock.advance(time.Minute)
	if _, err := c.resource(diskKeyOf + "w1"); err != nil || c.attested != 3 {
		t.Errorf("after the session's life: %v after %d attestations", err, c.attested)
	}
	if _, err := r.admin.Revoke(t.Context(), "w1"); err != nil {
		t.Fatal(err)
	}
	if k, err := c.resource(diskKeyOf + "w1"); err == nil {
		t.Errorf("revoked: %q", k)
	}
}

// TestTrusteeRefuses changes one thing about a handshake that is right.
func TestTrusteeRefuses(t *testing.T) {
	r := newRig(t, withSNP(t, session.Native, session.Trustee, session.Legacy))
	r.registerSNP("w1", kbs.TypeNative, 1)
	r.registerSNP("w2", kbs.TypeTrustee, 2)
	r.registerSNP("old", kbs.TypeLegacy, 3)
	in := func(step string, f func(body map[string]any)) func(*cocoClient) {
		return func(c *cocoClient) {
			c.change = func(s string, body map[string]any) {
				if s == step {
					f(body)
				}
			}
		}
	}
	runtime := func(body map[string]any) map[string]any { return body["runtime-data"].(map[string]any) }
	evidence := func(body map[string]any) map[string]any { return body["tee-evidence"].(map[string]any) }
	report := func(body map[string]any) map[string]any {
		return evidence(body)["primary_evidence"].(map[string]any)["attestation_report"].(map[string]any)
	}
	var earlier map[string]any // a whole request of another session
	other := r.coco("P-256", 1)
	other.change = func(step string, body map[string]any) {
		if step == "attest" {
			earlier = body
		}
	}
	if err := other.handshake(); err != nil {
		t.Fatal(err)
	}
	_, stranger := cocoKey(t, "P-256")
	for name, x := range map[string]struct {
		change func(*cocoClient)
		kind   string // of the error
		rule   string // that must have failed
	}{
		"nothing":             {func(*cocoClient) {}, "", ""},
		"additional evidence": {in("attest", func(b map[string]any) { evidence(b)["additional_evidence"] = "{}" }), "AttestationError", "report_data"},
		"unknown member":      {in("attest", func(b map[string]any) { b["later"] = 1 }), "", ""},
		"init-data":           {in("attest", func(b map[string]any) { b["init-data"] = map[string]any{"format": "toml", "body": "x"} }), "", ""},
		"old version":         {func(c *cocoClient) { c.version = "0.1.1" }, "AttestationError", ""},
		"later version":       {func(c *cocoClient) { c.version = "0.4.1" }, "AttestationError", ""},
		"other TEE":           {func(c *cocoClient) { c.tee = "sgx" }, "SerdeError", ""},
		"no such TEE here":    {func(c *cocoClient) { c.tee = "tdx" }, "AttestationError", ""},
		"wrong TEE":           {func(c *cocoClient) { c.tee = "az-snp-vtpm" }, "AttestationError", "session_tee"},
		"sample TEE":          {func(c *cocoClient) { c.tee = "sample" }, "AttestationError", "signature"},
		"no version":          {in("auth", func(b map[string]any) { delete(b, "version") }), "SerdeError", ""},
		"no extra-params":     {in("auth", func(b map[string]any) { delete(b, "extra-params") }), "SerdeError", ""},
		"CoCo's sample": {func(c *cocoClient) {
			c.evidence = func(rd [64]byte) any { return map[string]any{"svn": "1", "report_data": rd[:48]} }
		}, "AttestationError", "evidence_format"},
		"no evidence":   {in("attest", func(b map[string]any) { delete(evidence(b), "primary_evidence") }), "SerdeError", ""},
		"null evidence": {in("attest", func(b map[string]any) { evidence(b)["primary_evidence"] = nil }), "AttestationError", "evidence_format"},
		"replayed request": {in("attest", func(b map[string]any) {
			b["runtime-data"], b["tee-evidence"] = earlier["runtime-data"], earlier["tee-evidence"]
		}), "AttestationError", "session_nonce"},
		"replayed evidence": {in("attest", func(b map[string]any) { b["tee-evidence"] = earlier["tee-evidence"] }), "AttestationError", "report_data"},
		"other nonce":       {in("attest", func(b map[string]any) { runtime(b)["nonce"] = strings.Repeat("A", 43) + "=" }), "AttestationError", "session_nonce"},
		"empty nonce":       {in("attest", func(b map[string]any) { runtime(b)["nonce"] = "" }), "AttestationError", "session_nonce"},
		"host's key":        {in("attest", func(b map[string]any) { runtime(b)["tee-pubkey"] = stranger }), "AttestationError", "report_data"},
		"key of unknown kind": {in("attest", func(b map[string]any) {
			runtime(b)["tee-pubkey"] = map[string]string{"kty": "AKP", "alg": "ML-KEM-768+A192KW"}
		}), "AttestationError", "tee_key"},
		"key off the curve":   {in("attest", func(b map[string]any) { runtime(b)["tee-pubkey"].(map[string]string)["x"] = raw64(make([]byte, 32)) }), "AttestationError", "tee_key"},
		"RSA1_5":              {in("attest", func(b map[string]any) { runtime(b)["tee-pubkey"].(map[string]string)["alg"] = "RSA1_5" }), "AttestationError", "tee_key"},
		"changed measurement": {in("attest", func(b map[string]any) { report(b)["measurement"].([]int)[0] = 2 }), "AttestationError", "signature"},
		"changed report data": {in("attest", func(b map[string]any) { report(b)["report_data"].([]int)[0] ^= 1 }), "AttestationError", "signature"},
		"debug policy":        {in("attest", func(b map[string]any) { report(b)["policy"] = 0xb0000 }), "AttestationError", "signature"},
		"short field":         {in("attest", func(b map[string]any) { report(b)["chip_id"] = []int{1} }), "AttestationError", "evidence_format"},
		"unregistered":        {func(c *cocoClient) { c.evidence = r.coco("P-256", 9).evidence }, "AttestationError", "registered"},
		"legacy workload":     {func(c *cocoClient) { c.evidence = r.coco("P-256", 3).evidence }, "AttestationError", "registered_type"},
	} {
		t.Run(name, func(t *testing.T) {
			c := r.coco("P-256", 1)
			c.t = t
			x.change(c)
			err := c.handshake()
			var e *errorInformation
			switch {
			case x.kind == "" && err != nil:
				t.Fatal(err)
			case x.kind == "":
				if k, err := c.resource(diskKeyOf + "w1"); err != nil || string(k) != diskKeyText+"w1" {
					t.Fatalf("%q, %v", k, err)
				}
				return
			case !errors.As(err, &e) || e.kind() != x.kind || e.status != 401:
				t.Fatalf("%v, expected %s", err, x.kind)
			}
			if strings.Contains(x.kind+name, "version") && !strings.Contains(e.Detail, "KBS Client Protocol Version Mismatch: expect =0.4.0 while the request is "+c.version) && c.version != "0.4.0" {
				t.Errorf("detail %q", e.Detail)
			}
			if x.rule != "" {
				_, number, _ := strings.Cut(e.Detail, "ccrun explain ")
				r.t = t
				r.checkExplained([]byte(`{"session":"`+number+`"}`), x.rule)
			}
			resp, err := c.http.Get(c.url + "/kbs/v0/resource/" + diskKeyOf + "w1")
			if err != nil {
				t.Fatal(err)
			}
			if b, err := c.answer(resp); err == nil {
				t.Fatalf("released %s", b)
			}
		})
	}
}

// TestTrusteeNonceIsSpent: neither a denied nor a granted session attests
// again, and no other session's cookie helps.
func TestTrusteeNonceIsSpent(t *testing.T) {
	r := newRig(t, withSNP(t, session.Trustee))
	r.registerSNP("w1", kbs.TypeNative, 1)
	for name, digest := range map[string]byte{"denied": 9, "granted": 1} {
		c := r.coco("P-256", digest)
		var nonce string
		c.change = func(step string, b map[string]any) {
			if step == "attest" {
				nonce = b["runtime-data"].(map[string]any)["nonce"].(string)
			}
		}
		if err := c.handshake(); (err == nil) != (digest == 1) {
			t.Fatalf("%s: %v", name, err)
		}
		c.evidence = r.coco("P-256", 1).evidence
		token := c.token
		if err := c.attest(nonce); err == nil || c.token != token {
			t.Errorf("%s: attested twice with one nonce", name)
		}
		fresh := r.coco("P-256", 1)
		if _, err := fresh.post("/kbs/v0/auth", map[string]any{"version": "0.4.0", "tee": "snp", "extra-params": ""}); err != nil {
			t.Fatal(err)
		}
		if err := fresh.attest(nonce); err == nil {
			t.Errorf("%s: another session took the nonce", name)
		}
	}
}

func TestTrusteeResourcePaths(t *testing.T) {
	r := newRig(t, withSNP(t, session.Trustee))
	r.registerSNP("w1", kbs.TypeNative, 1)
	r.registerSNP("w2", kbs.TypeTrustee, 2)
	c := r.coco("P-256", 1)
	if err := c.handshake(); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]struct {
		status int
		kind   string
	}{
		"resource/" + diskKeyOf + "w2":                        {403, "PolicyDeny"},
		"resource/" + diskKeyOf + "none":                      {403, "PolicyDeny"},
		"resource/default/disk-key/w1":                        {404, "PluginInternalError"},
		"resource/ccrun/disk-key":                             {404, "InvalidRequestPath"},
		"resource/ccrun/disk-key/w1/x":                        {404, "InvalidRequestPath"},
		"resource/ccrun//w1":                                  {404, "InvalidRequestPath"},
		"resource/ccrun/../w1":                                {404, "InvalidRequestPath"},
		"resource/ccrun/disk-key/.w1":                         {404, "InvalidRequestPath"},
		"resource/ccrun/disk-key/w1%2fx":                      {404, "InvalidRequestPath"},
		"resource/ccrun/disk-key/" + strings.Repeat("a", 200): {404, "InvalidRequestPath"},
		"nebula-ca/x":                                         {404, "PluginNotFound"},
		"key/w1":                                              {404, "PluginNotFound"},
	} {
		resp, err := c.http.Get(c.url + "/kbs/v0/" + path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.answer(resp)
		var e *errorInformation
		if !errors.As(err, &e) || e.status != want.status || e.kind() != want.kind {
			t.Errorf("%s: %v, expected %d %s", path, err, want.status, want.kind)
		}
	}
	if k, err := c.resource("default/a/b"); !errors.Is(err, errNoResource) || c.attested != 1 {
		t.Errorf("missing resource: %q, %v after %d attestations", k, err, c.attested)
	}
	if k, err := c.resource(diskKeyOf + "w1"); err != nil {
		t.Errorf("refusals spent the session: %q, %v", k, err)
	}
	fresh := r.coco("P-256", 1)
	resp, err := fresh.http.Get(c.url + "/kbs/v0/resource/default/a/b")
	if err != nil {
		t.Fatal(err)
	}
	var e *errorInformation
	if _, err := fresh.answer(resp); !errors.As(err, &e) || e.status != 401 || e.kind() != "TokenNotFound" {
		t.Errorf("without a session: %v", err)
	}
}

// TestTrusteeResources: what owners store with `ccrun resource set` is there
// for CoCo guests under the same name, if its policy names their workload.
func TestTrusteeResources(t *testing.T) {
	r := newRig(t, withSNP(t, session.Trustee))
	r.registerSNP("w1", kbs.TypeNative, 1)
	r.registerSNP("w2", kbs.TypeTrustee, 2)
	id := kbs.ResourceID{Repo: "default", Type: "key", Tag: "1"}
	value := strings.Repeat("certificate\n", 1000)
	_, err := r.admin.SetResource(t.Context(), id, kbs.ResourceRequest{Value: []byte(value), Policy: kbs.ResourcePolicy{Workloads: []string{"w1"}}})
	if err != nil {
		t.Fatal(err)
	}
	c := r.coco("RSA", 1)
	for range 5 { // more often than disk keys
		if v, err := c.resource("default/key/1"); err != nil || string(v) != value || c.attested != 1 {
			t.Fatalf("%q, %v after %d attestations", v, err, c.attested)
		}
	}
	if v, err := c.resource("default/key/2"); !errors.Is(err, errNoResource) {
		t.Errorf("no such resource: %q, %v", v, err)
	}
	if v, err := r.coco("P-521", 2).resource("default/key/1"); !errors.Is(err, errNoResource) {
		t.Errorf("another workload's: %q, %v", v, err)
	}
	if _, err := r.coco("P-256", 9).resource("default/key/1"); err == nil {
		t.Error("released without a registration")
	}
	var p *kbs.ProblemError
	_, err = r.admin.SetResource(t.Context(), kbs.ResourceID{Repo: "ccrun", Type: "disk-key", Tag: "w1"},
		kbs.ResourceRequest{Value: []byte("x"), Policy: kbs.ResourcePolicy{Workloads: []string{"w1"}}})
	if !errors.As(err, &p) || p.Status != 400 {
		t.Errorf("a resource in the place of disk keys: %v", err)
	}
}
