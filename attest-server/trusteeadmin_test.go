package attestserver

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
)

// kbsClient sends what Trustee's kbs-client sends for an admin.
func (r *rig) kbsClient(method, path, token, body string) (status int, e errorInformation) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, r.http.URL+"/kbs/v0/"+path, strings.NewReader(body))
	if err != nil {
		r.t.Fatal(err)
	}
	if method == "POST" {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := r.http.Client().Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
			r.t.Errorf("%s %s: %d is no ErrorInformation: %v", method, path, resp.StatusCode, err)
		}
	}
	return resp.StatusCode, e
}

// TestTrusteeAdmin: kbs-client sets and deletes resources with a token of ours.
func TestTrusteeAdmin(t *testing.T) {
	r := newRig(t, withSNP(t, session.Trustee))
	acme := r.tenant("acme", store.Publisher)
	r.registerSNP("w1", kbs.TypeNative, 1)
	r.registerSNP("acme.w", kbs.TypeTrustee, 2)
	r.registerSNP("acme-not", kbs.TypeTrustee, 3)
	const value = "\x00raw bytes, not JSON\n"
	if status, e := r.kbsClient("POST", "resource/acme/key/1", text(acme.Token), value); status != 200 {
		t.Fatalf("set-resource: %d %+v", status, e)
	}
	if v, err := r.coco("P-256", 2).resource("acme/key/1"); err != nil || string(v) != value {
		t.Errorf("the tenant's workload: %q, %v", v, err)
	}
	for _, digest := range []byte{1, 3} {
		if v, err := r.coco("P-256", digest).resource("acme/key/1"); err == nil {
			t.Errorf("workload %d of somebody else got %q", digest, v)
		}
	}
	// An operator's resource needs a policy first, and keeps it.
	admin := text(r.admin.Token)
	if status, e := r.kbsClient("POST", "resource/default/key/1", admin, value); status != 404 || !strings.Contains(e.Detail, "ccrun resource set default/key/1") {
		t.Errorf("new, without a policy: %d %+v", status, e)
	}
	id := kbs.ResourceID{Repo: "default", Type: "key", Tag: "1"}
	if _, err := r.admin.SetResource(t.Context(), id, kbs.ResourceRequest{Value: []byte("first"), Policy: kbs.ResourcePolicy{Workloads: []string{"w1"}}}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // idempotent
		if status, e := r.kbsClient("POST", "resource/default/key/1", admin, value); status != 200 {
			t.Errorf("new value: %d %+v", status, e)
		}
	}
	m, err := r.store.Resource(t.Context(), id)
	if err != nil || len(m.Versions) != 2 || len(m.Versions[0].Policy.Workloads) != 1 || m.Versions[0].Policy.Workloads[0] != "w1" {
		t.Errorf("versions: %+v, %v", m.Versions, err)
	}
	if v, err := r.coco("RSA", 1).resource("default/key/1"); err != nil || string(v) != value {
		t.Errorf("%q, %v", v, err)
	}
	if status, e := r.kbsClient("DELETE", "resource/default/key/1", admin, ""); status != 200 {
		t.Errorf("delete-resource: %d %+v", status, e)
	}
	if v, err := r.coco("RSA", 1).resource("default/key/1"); err == nil {
		t.Errorf("deleted, and released: %q", v)
	}
}

func TestTrusteeAdminRefuses(t *testing.T) {
	r := newRig(t, withSNP(t, session.Trustee))
	acme := r.tenant("acme", store.Publisher)
	r.registerSNP("w1", kbs.TypeNative, 1)
	admin, auditor := text(r.admin.Token), text(r.token(store.Auditor))
	coco := r.coco("P-256", 1)
	if err := coco.handshake(); err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		method, path, token, body string
		status                    int
		kind, detail              string
	}{
		"nobody":             {"POST", "resource/a/b/c", "", "x", 401, "AdminAuthAccess", "token"},
		"nobody deletes":     {"DELETE", "resource/a/b/c", "", "", 401, "AdminAuthAccess", "token"},
		"an EdDSA JWT":       {"POST", "resource/a/b/c", "eyJhbGciOiJFZERTQSJ9.e30.AAAA", "x", 401, "AdminAuthAccess", ""},
		"auditor":            {"POST", "resource/a/b/c", auditor, "x", 403, "AdminAuthAccess", "auditor"},
		"another tenant's":   {"POST", "resource/evil/b/c", text(acme.Token), "x", 403, "AdminAuthAccess", "acme"},
		"empty":              {"POST", "resource/a/b/c", admin, "", 401, "SerdeError", "empty"},
		"too large":          {"POST", "resource/a/b/c", admin, strings.Repeat("x", kbs.MaxResourceBytes+1), 413, "SerdeError", ""},
		"a disk key":         {"POST", "resource/ccrun/disk-key/w1", admin, "x", 401, "SerdeError", "disk keys"},
		"a staged disk key":  {"POST", "resource/ccrun/disk-key.staged/w1", admin, "x", 401, "SerdeError", "disk keys"},
		"two segments":       {"POST", "resource/a/b", admin, "x", 404, "PluginNotFound", ""},
		"not there":          {"DELETE", "resource/a/b/c", admin, "", 404, "PluginInternalError", ""},
		"resource policy":    {"POST", "resource-policy", admin, `{"policy":"cGFja2FnZQ"}`, 404, "PluginNotFound", "ccrun resource set"},
		"attestation policy": {"POST", "attestation-policy", admin, `{"type":"rego","policy_id":"default_cpu","policy":"x"}`, 404, "PluginNotFound", "registration"},
		"reference value":    {"POST", "reference-value", admin, `{"version":"0.1.0","type":"sample","payload":""}`, 404, "PluginNotFound", "ccrun register"},
		"reference values":   {"GET", "reference-value/x/y", admin, "", 404, "PluginNotFound", "ccrun workload show"},
	} {
		status, e := r.kbsClient(x.method, x.path, x.token, x.body)
		if status != x.status || e.kind() != x.kind || !strings.Contains(e.Detail, x.detail) {
			t.Errorf("%s: %d %s %q, expected %d %s %q", name, status, e.kind(), e.Detail, x.status, x.kind, x.detail)
		}
	}
	native := newRig(t, withSNP(t, session.Native))
	for _, p := range native.server.routes().Patterns {
		if strings.HasPrefix(p, "POST /kbs/v0/resource") {
			t.Errorf("without the dialect there is %s", p)
		}
	}
}
