package web

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// TestTenantsSeeTheirOwn: no page names another tenant's workload or session,
// and what is another's looks like what is not there.
func TestTenantsSeeTheirOwn(t *testing.T) {
	s := newSite(t)
	for _, tenant := range []string{"acme", "acme2", "zeta"} {
		if err := s.store.SetTenant(t.Context(), tenant, 10, 10, "local"); err != nil {
			t.Fatal(err)
		}
	}
	for i, id := range []string{"aaa", "acme.one", "acme.two", "acme2.three", "zeta.four"} {
		reg := kbs.Registration{
			Version: 1, WorkloadID: id, IdentityDigest: kbs.Sum384([]byte(id)), FooterDigest: kbs.Sum384([]byte(id)),
			ReferenceValues: kbs.ReferenceValues{TEE: kbs.SNP, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{byte(i + 1)}}}},
		}
		if _, err := s.store.Register(t.Context(), reg, nil, secret.New([]byte("k")), "token/x"); err != nil {
			t.Fatal(err)
		}
		rec := kbs.SessionRecord{Session: "of-" + id, WorkloadID: id, At: s.now, Result: kbs.AttestationResult{
			TEE: kbs.SNP, Result: kbs.Contraindicated, Rules: []kbs.Rule{{Rule: "rule-of-" + id}},
		}}
		if err := s.store.RecordSession(t.Context(), rec, true); err != nil {
			t.Fatal(err)
		}
	}
	for _, tenant := range []string{"acme", "zeta"} {
		if err := s.store.Approve(t.Context(), tenant, kbs.Approval{Name: "key-for-" + tenant, WorkloadID: "w", RegistrationDigest: kbs.Digest{1}}, "token/"+tenant); err != nil {
			t.Fatal(err)
		}
	}
	text, _, err := s.store.CreateToken(t.Context(), "acme", store.Auditor, "", time.Time{}, "local")
	if err != nil {
		t.Fatal(err)
	}
	cookie := s.login(string(text.Reveal()))
	for path, wants := range map[string][]string{
		"/": {"acme.one", "acme.two", "rule-of-acme.one"}, "/ui/workloads": {"acme.one", "acme.two"}, "/ui/workloads?after=a": {"acme.one"},
		"/ui/fleet": {"acme.one", "acme.two"}, "/ui/fleet?q=ONE": {"acme.one"}, "/ui/approvals": {"key-for-acme"},
		"/ui/sessions": {"of-acme.one", "of-acme.two"}, "/ui/denials": {"rule-of-acme.one"},
		"/ui/workloads/acme.one": {"acme.one"}, "/ui/sessions/of-acme.two": {"acme.two"},
	} {
		w := s.do("GET", path, cookie, nil)
		body := w.Body.String()
		if w.Code != http.StatusOK {
			t.Errorf("%s: %d", path, w.Code)
		}
		checkPage(t, path, w)
		for _, want := range wants {
			if !strings.Contains(body, want) {
				t.Errorf("%s lacks %s", path, want)
			}
		}
		for _, others := range []string{"aaa", "acme2", "zeta", "/ui/audit", "/ui/expiry"} {
			if strings.Contains(body, others) {
				t.Errorf("%s shows %s", path, others)
			}
		}
	}
	for _, path := range []string{
		"/ui/workloads/aaa", "/ui/workloads/acme2.three", "/ui/workloads/nothing", "/ui/sessions/of-zeta.four", "/ui/sessions/of-aaa", "/ui/sessions/nothing",
		"/ui/audit", "/ui/expiry",
	} {
		w := s.do("GET", path, cookie, nil)
		if body := w.Body.String(); w.Code != http.StatusNotFound || !strings.Contains(body, "There is nothing here") {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	if body := s.do("GET", "/ui/workloads?after=acme.two", cookie, nil).Body.String(); strings.Contains(body, "acme2") {
		t.Error("paging leads to another tenant")
	}
	if body := s.do("GET", "/ui/sessions?workload=zeta.four", cookie, nil).Body.String(); strings.Contains(body, "of-zeta") {
		t.Error("sessions of another tenant's workload")
	}
}

// TestStrictness: an auditor sees what a registration asks beyond the default,
// expressions among it.
func TestStrictness(t *testing.T) {
	got := strictness(kbs.ReferenceValues{SNP: &kbs.SNPRules{AllowDebug: true}, CEL: []kbs.Expression{{Name: "mine", Expression: "claims.tee == 'snp'"}}})
	want := []fact{{"snp.allow_debug", "true"}, {"cel.mine", "claims.tee == 'snp'"}}
	if !slices.Equal(got, want) {
		t.Errorf("%v, expected %v", got, want)
	}
}
