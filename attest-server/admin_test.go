package attestserver

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

func TestRoles(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	expiring, _, err := r.store.CreateToken(t.Context(), "", store.Admin, "", r.clock.Now().Add(time.Minute), "local")
	if err != nil {
		t.Fatal(err)
	}
	revoked, tok, err := r.store.CreateToken(t.Context(), "", store.Admin, "", time.Time{}, "local")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.store.RevokeToken(t.Context(), tok.ID, "local"); err != nil {
		t.Fatal(err)
	}
	publisher, auditor := r.token(store.Publisher), r.token(store.Auditor)
	r.clock.advance(time.Minute)
	put := request("w1", 1)
	session := r.begin("w1", 1)
	const none, forbidden, bad = "", kbs.CodeForbidden, kbs.CodeUnauthorized
	for _, x := range []struct {
		method, path                string
		body                        any
		admin, publisher, readsOnly string
	}{
		{"GET", "/v1/workloads", nil, none, none, none},
		{"GET", "/v1/workloads/w1", nil, none, none, none},
		{"GET", "/v1/sessions/0000", nil, kbs.CodeNotFound, kbs.CodeNotFound, kbs.CodeNotFound},
		{"PUT", "/v1/workloads/w1", put, none, none, forbidden},
		{"POST", "/v1/workloads/w1/revoke", nil, none, forbidden, forbidden},        // an admin's
		{"DELETE", "/v1/workloads/w1", nil, kbs.CodeNotFound, forbidden, forbidden}, // an admin's
	} {
		for _, who := range []struct {
			name, bearer, want string
		}{
			{"auditor", text(auditor), x.readsOnly}, {"publisher", text(publisher), x.publisher},
			{"nobody", "", bad}, {"expired", text(expiring), bad}, {"revoked", text(revoked), bad},
			{"guest", session.bearer, bad}, {"made up", "ccrun_000000000000_AAAA", bad}, {"admin", text(r.admin.Token), x.admin},
		} {
			if x.method == "DELETE" && who.name == "admin" {
				if err := r.admin.Remove(t.Context(), "w1"); err != nil {
					t.Fatal(err)
				}
			}
			status, b := r.call(x.method, x.path, who.bearer, x.body)
			if got := code(t, status, b); got != who.want {
				t.Errorf("%s %s as %s: code %q, expected %q", x.method, x.path, who.name, got, who.want)
			}
			if strings.Contains(string(b), diskKeyText[:16]) {
				t.Errorf("%s %s as %s: answer holds the disk key", x.method, x.path, who.name)
			}
		}
	}
}

func TestPublisherRemovesItsOwn(t *testing.T) {
	r := newRig(t)
	mine, others := r.adminClient(r.token(store.Publisher)), r.adminClient(r.token(store.Publisher))
	if _, err := mine.Register(t.Context(), request("w1", 1)); err != nil {
		t.Fatal(err)
	}
	var p *kbs.ProblemError
	if err := others.Remove(t.Context(), "w1"); !errors.As(err, &p) || p.Code != kbs.CodeForbidden {
		t.Errorf("another publisher: %v", err)
	}
	if err := mine.Remove(t.Context(), "w1"); err != nil {
		t.Error(err)
	}
	if err := mine.Remove(t.Context(), "w1"); !errors.As(err, &p) || p.Code != kbs.CodeNotFound {
		t.Errorf("again: %v", err)
	}
}

// principal is a new token of a principal's.
func (r *rig) principal(principal, tenant string) kbs.AdminClient {
	r.t.Helper()
	tok, _, err := r.store.CreateTokenFor(r.t.Context(), principal, tenant, store.Publisher, "", time.Time{}, "local")
	if err != nil {
		r.t.Fatal(err)
	}
	return r.adminClient(tok)
}

// TestPrincipalOwns: what was made with one token of a principal's, each other
// of his may change, by whichever route; nobody else's token, of the same name
// in another tenant neither.
func TestPrincipalOwns(t *testing.T) {
	r := newRig(t)
	r.tenant("acme", store.Auditor)
	first, next := r.principal("ci", ""), r.principal("ci", "")
	if _, err := first.Register(t.Context(), request("w1", 1)); err != nil {
		t.Fatal(err)
	}
	id, err := kbs.ParseResourceID("shop/tls/key")
	if err != nil {
		t.Fatal(err)
	}
	set := kbs.ResourceRequest{Value: []byte("v"), Policy: kbs.ResourcePolicy{Workloads: []string{"w1"}}}
	if _, err := first.SetResource(t.Context(), id, set); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]kbs.AdminClient{
		"a token": r.adminClient(r.token(store.Publisher)), "another principal": r.principal("ci2", ""), "a prefix": r.principal("c", ""),
	} {
		other := set
		other.Value = []byte("mine now")
		_, setErr := c.SetResource(t.Context(), id, other)
		_, revokeErr := c.Revoke(t.Context(), "w1")
		for what, err := range map[string]error{
			"set": setErr, "remove resource": c.RemoveResource(t.Context(), id), "revoke": revokeErr, "remove": c.Remove(t.Context(), "w1"),
			"set, CoCo's way":    trusteeResource(t, c, http.MethodPost, id, "mine now"),
			"remove, CoCo's way": trusteeResource(t, c, http.MethodDelete, id, ""),
		} {
			if err == nil || !strings.Contains(err.Error(), "principal") {
				t.Errorf("%s: %s: %v", name, what, err)
			}
		}
	}
	if err := trusteeResource(t, next, http.MethodPost, id, "v2"); err != nil {
		t.Errorf("the principal's next token: %v", err)
	}
	if err := next.RemoveResource(t.Context(), id); err != nil {
		t.Errorf("the principal's next token: %v", err)
	}
	if _, err := next.Revoke(t.Context(), "w1"); err != nil {
		t.Errorf("the principal's next token: %v", err)
	}
	if err := next.Remove(t.Context(), "w1"); err != nil {
		t.Errorf("the principal's next token: %v", err)
	}
	if store.SameOwner("principal/acme.ci/000000000001", "principal/ci/000000000001") || store.SameOwner("", "") || store.SameOwner("principal/a/1", "principal/a.b/1") {
		t.Error("principals of several tenants are one")
	}
}

// trusteeResource sets or removes a resource as kbs-client does.
func trusteeResource(t *testing.T, c kbs.AdminClient, method string, id kbs.ResourceID, value string) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.URL+"/kbs/v0/resource/"+id.String(), strings.NewReader(value))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+text(c.Token))
	resp, err := (&http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.RootCAs}}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return err
}

func text(s secret.Bytes) string { return string(s.Reveal()) }

func TestRegisterNeverOverwrites(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	r.register("w2", 2)
	again, err := r.admin.Register(t.Context(), request("w1", 1))
	if err != nil || again {
		t.Fatalf("the same again = %v, %v", again, err)
	}
	other := request("w1", 1)
	other.DiskKey = []byte("another key")
	for name, x := range map[string]struct {
		req  kbs.RegisterRequest
		want string
	}{
		"other measurement":            {request("w1", 7), kbs.CodeConflict},
		"other disk key":               {other, kbs.CodeConflict},
		"other workload's measurement": {request("w3", 2), kbs.CodeDuplicateDigest},
	} {
		_, err := r.admin.Register(t.Context(), x.req)
		var p *kbs.ProblemError
		if !errors.As(err, &p) || p.Code != x.want || p.Status != http.StatusConflict {
			t.Errorf("%s: %v", name, err)
		}
	}
	c, req := r.guest("w1", 1)
	if k, err := c.Release(t.Context(), req); err != nil || string(k.Reveal()) != diskKeyText+"w1" {
		t.Errorf("Release = %v", err)
	}
}

func TestRegistrationMustBeAbleToRelease(t *testing.T) {
	r := newRig(t)
	earlier, later := time.Unix(1, 0).UTC(), time.Unix(2, 0).UTC()
	for name, change := range map[string]func(*kbs.RegisterRequest){
		"version":                  func(q *kbs.RegisterRequest) { q.Registration.Version = 2 },
		"TEE without verifier":     func(q *kbs.RegisterRequest) { q.Registration.ReferenceValues.TEE = kbs.SNP },
		"unknown TEE":              func(q *kbs.RegisterRequest) { q.Registration.ReferenceValues.TEE = "sgx" },
		"no measurement":           func(q *kbs.RegisterRequest) { q.Registration.ReferenceValues.Measurements = nil },
		"no disk key":              func(q *kbs.RegisterRequest) { q.DiskKey = nil },
		"huge disk key":            func(q *kbs.RegisterRequest) { q.DiskKey = make([]byte, 5000) },
		"another id than the path": func(q *kbs.RegisterRequest) { q.Registration.WorkloadID = "w2" },
		"rules of another TEE":     func(q *kbs.RegisterRequest) { q.Registration.ReferenceValues.TDX = &kbs.TDXRules{} },
		"host data too short":      func(q *kbs.RegisterRequest) { q.Registration.ReferenceValues.SNP = &kbs.SNPRules{HostData: "00"} },
		"VMPL 4":                   func(q *kbs.RegisterRequest) { q.Registration.ReferenceValues.SNP = &kbs.SNPRules{VMPL: 4} },
		"empty chip id": func(q *kbs.RegisterRequest) {
			q.Registration.ReferenceValues.SNP = &kbs.SNPRules{ChipIDs: []string{""}}
		},
		"measurement never valid": func(q *kbs.RegisterRequest) {
			m := &q.Registration.ReferenceValues.Measurements[0]
			m.NotBefore, m.NotAfter = &later, &earlier
		},
		"too many measurements": func(q *kbs.RegisterRequest) {
			v := &q.Registration.ReferenceValues
			for i := range 65 {
				v.Measurements = append(v.Measurements, kbs.Measurement{LaunchDigest: kbs.LaunchDigest{1, byte(i)}})
			}
		},
	} {
		q := request("w1", 1)
		change(&q)
		status, b := r.call("PUT", "/v1/workloads/w1", text(r.admin.Token), q)
		if got := code(t, status, b); got != kbs.CodeBadRequest {
			t.Errorf("%s: %d %s", name, status, b)
		}
	}
	for name, body := range map[string]string{
		"zero identity digest":   `{"registration":{"version":1,"workload_id":"w1","footer_digest":"` + strings.Repeat("01", 48) + `","identity_digest":"` + strings.Repeat("00", 48) + `","reference_values":{"tee":"sample","measurements":[]}},"disk_key":"AAAA"}`,
		"identity digest absent": `{"registration":{"version":1,"workload_id":"w1","footer_digest":"` + strings.Repeat("01", 48) + `","reference_values":{"tee":"sample","measurements":[{"launch_digest":"` + strings.Repeat("01", 48) + `","profile":"","cpus":1,"memory_mib":1,"firmware":""}]}},"disk_key":"AAAA"}`,
	} {
		status, b := r.call("PUT", "/v1/workloads/w1", text(r.admin.Token), body)
		if got := code(t, status, b); got != kbs.CodeBadRequest {
			t.Errorf("%s: %d %s", name, status, b)
		}
	}
	if list, err := r.admin.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("refused registrations are there: %v, %v", list, err)
	}
}

func TestListPages(t *testing.T) {
	r := newRig(t)
	for i := range 203 {
		q := request(fmt.Sprintf("w%03d", i), 0)
		q.Registration.ReferenceValues.Measurements[0].LaunchDigest = kbs.LaunchDigest{1, byte(i)}
		if _, err := r.store.Register(t.Context(), q.Registration, nil, secret.New(q.DiskKey), "test"); err != nil {
			t.Fatal(err)
		}
	}
	list, err := r.admin.List(t.Context())
	if err != nil || len(list) != 203 || list[0].WorkloadID != "w000" || list[202].WorkloadID != "w202" {
		t.Errorf("List = %d, %v", len(list), err)
	}
}

func TestMalformedRequests(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	h := r.begin("w1", 1)
	deep := strings.Repeat("[", 5000) + strings.Repeat("]", 5000)
	for name, x := range map[string]struct {
		method, path, bearer string
		body                 any
		want                 string
	}{
		"empty body":                {"POST", "/v1/auth", "", "", kbs.CodeBadRequest},
		"no JSON":                   {"POST", "/v1/auth", "", "hello", kbs.CodeBadRequest},
		"array":                     {"POST", "/v1/auth", "", "[]", kbs.CodeBadRequest},
		"null":                      {"POST", "/v1/auth", "", "null", kbs.CodeBadRequest},
		"unknown member":            {"POST", "/v1/auth", "", `{"version":1,"tee":"sample","workload_id":"w1","x":1}`, kbs.CodeBadRequest},
		"duplicate member":          {"POST", "/v1/auth", "", `{"version":1,"tee":"sample","workload_id":"w1","workload_id":"w2"}`, kbs.CodeBadRequest},
		"duplicate by letter case":  {"POST", "/v1/auth", "", `{"version":1,"tee":"sample","workload_id":"w1","Workload_ID":"w2"}`, kbs.CodeBadRequest},
		"trailing data":             {"POST", "/v1/auth", "", `{"version":1,"tee":"sample","workload_id":"w1"} {}`, kbs.CodeBadRequest},
		"other version":             {"POST", "/v1/auth", "", `{"version":2,"tee":"sample","workload_id":"w1"}`, kbs.CodeBadRequest},
		"unknown TEE":               {"POST", "/v1/auth", "", `{"version":1,"tee":"sgx","workload_id":"w1"}`, kbs.CodeBadRequest},
		"path as workload id":       {"POST", "/v1/auth", "", `{"version":1,"tee":"sample","workload_id":"../w1"}`, kbs.CodeBadRequest},
		"newline in workload id":    {"POST", "/v1/auth", "", `{"version":1,"tee":"sample","workload_id":"w1\n"}`, kbs.CodeBadRequest},
		"deep nesting":              {"POST", "/v1/auth", "", `{"version":` + deep[:3000] + `}`, kbs.CodeBadRequest},
		"auth over its limit":       {"POST", "/v1/auth", "", strings.Repeat(" ", kbs.MaxAuthBody+1), kbs.CodeTooLarge},
		"attest over its limit":     {"POST", "/v1/attest", h.bearer, strings.Repeat(" ", kbs.MaxAttestBody+1), kbs.CodeTooLarge},
		"attest, deep nesting":      {"POST", "/v1/attest", h.bearer, deep, kbs.CodeBadRequest},
		"attest, digest upper case": {"POST", "/v1/attest", h.bearer, `{"runtime_data":{"identity_digest":"` + strings.Repeat("AA", 48) + `"}}`, kbs.CodeBadRequest},
		"register over its limit":   {"PUT", "/v1/workloads/w1", text(r.admin.Token), strings.Repeat(" ", kbs.MaxRegisterBody+1), kbs.CodeTooLarge},
		"page of -1":                {"GET", "/v1/workloads?limit=-1", text(r.admin.Token), nil, kbs.CodeBadRequest},
		"wrong method":              {"GET", "/v1/auth", "", nil, kbs.CodeNotFound},
		"unknown path":              {"GET", "/kbs/v1/auth", "", nil, kbs.CodeNotFound},
		"path to be cleaned":        {"GET", "//v1/workloads", text(r.admin.Token), nil, kbs.CodeNotFound},
		"path with dots":            {"GET", "/v1/x/../workloads", text(r.admin.Token), nil, kbs.CodeNotFound},
	} {
		status, b := r.call(x.method, x.path, x.bearer, x.body)
		if got := code(t, status, b); got != x.want {
			t.Errorf("%s: %d %.200s, expected code %q", name, status, b, x.want)
		}
	}
	if got := h.doAttest(); got != "" {
		t.Errorf("requests that could not be read spent the nonce: %q", got)
	}
	req, _ := http.NewRequest("POST", r.http.URL+"/v1/auth", strings.NewReader(`{"version":1,"tee":"sample","workload_id":"w1"}`))
	req.Header.Set("Content-Type", "text/plain")
	resp, err := r.http.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("text/plain: %s", resp.Status)
	}
}
