package attestserver

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/policy"
	"github.com/ccrun/ccrun/attest-server/store"
)

func policyOf(t testing.TB, s string) *kbs.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return &p
}

// attested lets workload id's guest attest and says which rules failed, as
// "rule level", in the record that the owner gets.
func (r *rig) attested(id string, digest byte) (failed []string) {
	r.t.Helper()
	c, req := r.guest(id, digest)
	k, err := c.Release(r.t.Context(), req)
	if err == nil {
		k.Wipe()
		return nil
	}
	var p *kbs.ProblemError
	if !errors.As(err, &p) || p.Session == "" {
		r.t.Fatalf("no denial of a session: %v", err)
	}
	rec, err := r.admin.Session(r.t.Context(), p.Session)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, x := range rec.Result.Rules {
		if !x.Pass && x.Rule != "appraisal" {
			failed = append(failed, strings.TrimSpace(x.Rule+" "+x.Level))
		}
	}
	if len(failed) == 0 || rec.Granted {
		r.t.Errorf("denied without a failed rule: %+v", rec)
	}
	return failed
}

func (r *rig) tenantAdmin(name string, role store.Role) kbs.AdminClient {
	r.t.Helper()
	if err := r.store.SetTenant(r.t.Context(), name, 10, 10, "local"); err != nil {
		r.t.Fatal(err)
	}
	tok, _, err := r.store.CreateToken(r.t.Context(), name, role, "", time.Time{}, "local")
	if err != nil {
		r.t.Fatal(err)
	}
	return r.adminClient(tok)
}

// TestPolicyLevels: each level alone denies what the others allow, by name;
// none gives back what another took.
func TestPolicyLevels(t *testing.T) {
	r := newRig(t)
	acme := r.tenantAdmin("acme", store.Admin)
	const strict, lenient = `{"snp":{"require_ecc":true}}`, `{"snp":{"allow_debug":true}}` // fake reports have no ECC
	req := request("acme.w", 1)
	req.Registration.ReferenceValues.SNP = &kbs.SNPRules{}
	if _, err := acme.Register(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	r.register("w", 2)
	set := func(server, tenant string) {
		t.Helper()
		var p *kbs.Policy
		if server != "" {
			p = policyOf(t, server)
		}
		if err := r.server.engine.Policies.Set(p); err != nil {
			t.Fatal(err)
		}
		var err error
		if tenant == "" {
			err = acme.RemoveTenantPolicy(t.Context(), "acme")
		} else {
			err = acme.SetTenantPolicy(t.Context(), "acme", *policyOf(t, tenant))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	expired := fmt.Sprintf(`{"not_after":%q}`, r.clock.Now().Add(time.Minute).Format(time.RFC3339))
	cel := `{"cel":[{"name":"vlek","expression":"claims.snp.signer == 'VLEK'"}]}`
	for _, x := range []struct{ server, tenant, acme, other string }{
		{"", "", "", ""},
		{strict, "", "platform_info_ecc server", "platform_info_ecc server"},
		{"", strict, "platform_info_ecc tenant", ""},
		{strict, lenient, "platform_info_ecc server", "platform_info_ecc server"}, // a tenant cannot loosen
		{lenient, strict, "platform_info_ecc tenant", ""},
		{strict, strict, "platform_info_ecc server, tenant", "platform_info_ecc server"},
		{cel, "", "cel:vlek server", "cel:vlek server"},
		{"", cel, "cel:vlek tenant", ""},
		{expired, "", "", ""},
		{"", "", "", ""},
	} {
		set(x.server, x.tenant)
		if got := strings.Join(r.attested("acme.w", 1), "; "); got != x.acme {
			t.Errorf("server %s, tenant %s: %q, expected %q", x.server, x.tenant, got, x.acme)
		}
		if got := strings.Join(r.attested("w", 2), "; "); got != x.other {
			t.Errorf("server %s, tenant %s, other workload: %q, expected %q", x.server, x.tenant, got, x.other)
		}
	}
	set(expired, "")
	r.clock.advance(2 * time.Minute)
	if got := strings.Join(r.attested("w", 2), "; "); got != "policy_not_after server" {
		t.Errorf("after the server's policy expired: %q", got)
	}
}

// TestPolicyIsRefusedAtLoad: by the server, by the tenant's route and at
// registration; what was in force stays.
func TestPolicyIsRefusedAtLoad(t *testing.T) {
	chips := func(b string) string { return `{"snp":{"chip_ids":["` + strings.Repeat(b, 64) + `"]}}` }
	r := newRig(t, func(c *Config) { c.Policy = policyOf(t, chips("07")) })
	acme := r.tenantAdmin("acme", store.Admin)
	for _, s := range []string{`{}`, `{"snp":{"host_data":"` + strings.Repeat("01", 32) + `"}}`, `{"cel":[{"name":"x","expression":"true"}]}`,
		`{"snp":{"allow_debug":true,"allow_migrate_ma":true,"allow_provisional":true,"allow_cxl":true,"allow_advisories":["all"]}}`} {
		if err := r.server.engine.Policies.Set(policyOf(t, s)); err == nil || !strings.HasPrefix(err.Error(), "the server's policy: ") {
			t.Errorf("server: %s: %v", s, err)
		}
		if _, err := New(Config{Store: r.store, Verifiers: r.server.Verifiers, Clock: r.clock.Now, Rand: r.server.Rand, Log: r.server.Log, Policy: policyOf(t, s)}); err == nil {
			t.Errorf("New: %s", s)
		}
		if err := acme.SetTenantPolicy(t.Context(), "acme", *policyOf(t, s)); err == nil {
			t.Errorf("tenant: %s", s)
		}
	}
	if err := acme.SetTenantPolicy(t.Context(), "acme", *policyOf(t, chips("08"))); err == nil || !strings.Contains(err.Error(), "chip_ids") {
		t.Errorf("a tenant's policy that contradicts the server's: %v", err)
	}
	for name, change := range map[string]func(*kbs.ReferenceValues){
		"chip_ids": func(v *kbs.ReferenceValues) { v.SNP = policyOf(t, chips("08")).SNP },
		"false whatever": func(v *kbs.ReferenceValues) {
			v.CEL = []kbs.Expression{{Name: "x", Expression: "1 > 2 && claims.tee == 'snp'"}}
		},
		"undefined field": func(v *kbs.ReferenceValues) { v.CEL = []kbs.Expression{{Name: "x", Expression: "claims.snp.x == 1"}} },
		"at most":         func(v *kbs.ReferenceValues) { v.CEL = make([]kbs.Expression, policy.MaxExpressions+1) },
	} {
		req := request("w", 1)
		change(&req.Registration.ReferenceValues)
		if _, err := r.admin.Register(t.Context(), req); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A contradiction that arises later denies, and says why.
	req := request("w", 1)
	req.Registration.ReferenceValues.SNP = policyOf(t, chips("07")).SNP
	if _, err := r.admin.Register(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if got := r.attested("w", 1); got != nil {
		t.Errorf("%v", got)
	}
	if err := r.server.engine.Policies.Set(policyOf(t, chips("08"))); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(r.attested("w", 1), "; "); got != "policy server" {
		t.Errorf("contradiction: %q", got)
	}
}

// TestRegisteredExpression: a workload's own expression decides, and what it
// costs is bounded.
func TestRegisteredExpression(t *testing.T) {
	r := newRig(t)
	for i, x := range []struct{ expression, want string }{
		{"claims.snp.product == 'Genoa' && now < timestamp('2027-01-01T00:00:00Z')", ""},
		{"claims.snp.product != 'Genoa'", "cel:own workload"},
		{"claims.tdx.tcb_status == 'UpToDate'", "cel:own workload"}, // not there
		{"(claims.snp.product == 'Genoa' ? [" + strings.Repeat("1,", 200) + "1] : [1]).all(a, [" + strings.Repeat("1,", 200) + "1].all(b, a + b > claims.snp.vmpl))", "cel:own workload"},
	} {
		req := request(fmt.Sprint("w", i), byte(i+1))
		req.Registration.ReferenceValues.CEL = []kbs.Expression{{Name: "own", Expression: x.expression, Hint: "see to it"}}
		if _, err := r.admin.Register(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if got := strings.Join(r.attested(req.Registration.WorkloadID, byte(i+1)), "; "); got != x.want {
			t.Errorf("%.60s: %q, expected %q", x.expression, got, x.want)
		}
		if d := time.Since(start); d > time.Minute {
			t.Errorf("%.60s took %s", x.expression, d)
		}
	}
	denials, err := r.store.Denials(t.Context(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range denials {
		if strings.HasPrefix(d.Rule, "cel:") {
			t.Errorf("a publisher's name among the statistics: %s", d.Rule)
		}
	}
}

// TestTenantPolicyRoles: who may read and change whose policy.
func TestTenantPolicyRoles(t *testing.T) {
	r := newRig(t)
	const path, body = "/v1/tenants/acme/policy", `{"snp":{"require_ecc":true}}`
	own, ownPublisher := r.tenantAdmin("acme", store.Admin), r.tenantAdmin("acme", store.Publisher)
	other := r.tenantAdmin("other", store.Admin)
	for _, x := range []struct {
		name     string
		token    string
		put, get int
	}{
		{"nobody", "", 401, 401}, {"operator", string(r.admin.Token.Reveal()), 204, 200}, {"own admin", string(own.Token.Reveal()), 204, 200},
		{"own publisher", string(ownPublisher.Token.Reveal()), 403, 200}, {"other tenant", string(other.Token.Reveal()), 404, 404},
		{"operator's auditor", string(r.token(store.Auditor).Reveal()), 403, 200}, {"operator's publisher", string(r.token(store.Publisher).Reveal()), 403, 200},
	} {
		if err := r.store.SetTenantPolicy(t.Context(), "acme", policyOf(t, body), "local"); err != nil {
			t.Fatal(err)
		}
		if status, b := r.call("PUT", path, x.token, body); status != x.put {
			t.Errorf("%s: PUT %d %s", x.name, status, b)
		}
		if status, b := r.call("GET", path, x.token, nil); status != x.get || status == http.StatusOK && strings.TrimSpace(string(b)) != body {
			t.Errorf("%s: GET %d %s", x.name, status, b)
		}
		if status, b := r.call("DELETE", path, x.token, nil); status != x.put {
			t.Errorf("%s: DELETE %d %s", x.name, status, b)
		}
	}
	admin := string(r.admin.Token.Reveal())
	for _, x := range []struct {
		method, path, body string
		want               int
	}{
		{"DELETE", path, "", 204}, {"GET", path, "", 404}, {"PUT", "/v1/tenants/nobody/policy", body, 404}, {"DELETE", "/v1/tenants/nobody/policy", "", 404}, {"GET", "/v1/tenants/A.B/policy", "", 404},
		{"PUT", path, `{}`, 400}, {"PUT", path, `{"snp":{"x":1}}`, 400}, {"PUT", path, `{"snp":{},"snp":{}}`, 400},
		{"PUT", path, `{"cel":[{"name":"x","expression":"` + strings.Repeat("1+", 300_000) + `"}]}`, 413},
	} {
		var in any
		if x.body != "" {
			in = x.body
		}
		if status, b := r.call(x.method, x.path, admin, in); status != x.want {
			t.Errorf("%s %s %.40s: %d %s, expected %d", x.method, x.path, x.body, status, b, x.want)
		}
	}
}
