package attestserver

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// resource sets a resource for one workload.
func (r *rig) resource(owner *kbs.AdminClient, name, workload, value string, approvals ...string) {
	r.t.Helper()
	id, err := kbs.ParseResourceID(name)
	if err == nil {
		_, err = owner.SetResource(r.t.Context(), id, kbs.ResourceRequest{
			Value: []byte(value), Policy: kbs.ResourcePolicy{Workloads: []string{workload}, Approvals: approvals},
		})
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// TestSecrets: one request gets a workload what it may have, says what it may
// not, and leaves one audit entry for each repository.
func TestSecrets(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	r.register("w2", 2)
	owner := r.adminClient(r.token(store.Admin))
	r.resource(&owner, "acme/db/password", "w1", "very-secret\x00\xff")
	r.resource(&owner, "acme/db/password", "w1", "very-secret 2")
	r.resource(&owner, "acme/tls/key", "w1", strings.Repeat("k", kbs.MaxResourceBytes))
	r.resource(&owner, "bank/data/key", "w1", "very-secret", "bank")
	r.resource(&owner, "acme.b/x/y", "w1", "\x00")
	r.resource(&owner, "acme/db/other", "w2", "very-secret")
	c, req := r.guest("w1", 1)
	s, err := c.Attest(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	got, err := s.Secrets(t.Context(), []string{"acme.b/x/y", "acme/db/password", "acme/db/other", "no/such/thing", "bank/data/key", "acme/tls/key"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		value, refused string
		version        int64
	}{
		"acme/db/password": {"very-secret 2", "", 2}, "acme/tls/key": {strings.Repeat("k", kbs.MaxResourceBytes), "", 1}, "acme.b/x/y": {"\x00", "", 1},
		"acme/db/other": {"", kbs.CodeNotFound, 0}, "no/such/thing": {"", kbs.CodeNotFound, 0}, "bank/data/key": {"", kbs.CodeForbidden, 0},
	} {
		if v, ok := got[name]; !ok || string(v.Value.Reveal()) != want.value || v.Refused != want.refused || v.Version != want.version {
			t.Errorf("%s: %d bytes, version %d, %q", name, v.Value.Len(), v.Version, v.Refused)
		}
	}
	var audit []string
	if err := r.store.Audit(t.Context(), 0, func(e store.AuditEntry) error {
		if strings.HasPrefix(e.Action, "secrets.") || strings.HasPrefix(e.Action, "resource.re") {
			audit = append(audit, e.Action+" "+e.Object+": "+e.Detail)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"secrets.release acme: 2 to workload w1: acme/db/password version 2, acme/tls/key version 1",
		"secrets.release acme.b: 1 to workload w1: acme.b/x/y version 1",
	} {
		if !slices.Contains(audit, want) {
			t.Errorf("no entry %q", want)
		}
	}
	if refused := slices.DeleteFunc(audit, func(e string) bool { return !strings.HasPrefix(e, "resource.refuse") }); len(refused) != 3 {
		t.Errorf("refusals: %q", refused)
	}
	if text := r.log.String(); strings.Contains(text, "very-secret") {
		t.Error("the log holds a secret")
	}
	if m, err := owner.ResourceMeta(t.Context(), kbs.ResourceID{Repo: "acme", Type: "tls", Tag: "key"}); err != nil || m.Versions[0].Releases != 1 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestSecretsRefuses: no session but that of the workload's own attested guest
// gets anything, and no request that is too large or names one thing twice.
func TestSecretsRefuses(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	r.register("w2", 2)
	owner := r.adminClient(r.token(store.Admin))
	many := make([]string, kbs.MaxSecrets+1)
	for i := range many {
		many[i] = "acme/many/" + strings.Repeat("a", i%60+1) + string(rune('a'+i/60))
	}
	for _, name := range append(many[:34:34], "acme/db/password") {
		r.resource(&owner, name, "w1", strings.Repeat("v", kbs.MaxResourceBytes))
	}
	attested := func(id string, digest byte) string {
		g := r.begin(id, digest)
		if code := g.doAttest(); code != "" {
			t.Fatal(code)
		}
		return g.auth.Session
	}
	w1, w2, fresh := attested("w1", 1), attested("w2", 2), r.begin("w1", 1).auth.Session
	one := kbs.SecretsRequest{Names: []string{"acme/db/password"}}
	for name, x := range map[string]struct {
		bearer string
		body   any
		want   int
	}{
		"another workload's guest": {w2, one, http.StatusForbidden}, "one that has not attested": {fresh, one, http.StatusForbidden}, "nobody": {"x", one, http.StatusUnauthorized},
		"an owner":  {string(owner.Token.Reveal()), one, http.StatusUnauthorized},
		"no names":  {w1, kbs.SecretsRequest{Names: []string{}}, http.StatusBadRequest},
		"too many":  {w1, kbs.SecretsRequest{Names: many}, http.StatusBadRequest},
		"twice":     {w1, kbs.SecretsRequest{Names: []string{"acme/db/password", "acme/db/password"}}, http.StatusBadRequest},
		"no name":   {w1, kbs.SecretsRequest{Names: []string{"acme/../password"}}, http.StatusBadRequest},
		"a path":    {w1, kbs.SecretsRequest{Names: []string{"acme/db/password/x"}}, http.StatusBadRequest},
		"unknown":   {w1, map[string]any{"names": one.Names, "all": true}, http.StatusBadRequest},
		"too large": {w1, kbs.SecretsRequest{Names: many[:34]}, http.StatusRequestEntityTooLarge},
		"1 MiB":     {w1, kbs.SecretsRequest{Names: many[:32]}, http.StatusOK},
	} {
		if status, b := r.call("POST", "/v1/workloads/w1/secrets", x.bearer, x.body); status != x.want {
			t.Errorf("%s: %d %.300s, expected %d", name, status, b, x.want)
		}
	}
	if _, err := owner.Revoke(t.Context(), "w1"); err != nil {
		t.Fatal(err)
	}
	if status, b := r.call("POST", "/v1/workloads/w1/secrets", w1, one); status != http.StatusForbidden {
		t.Errorf("revoked: %d %s", status, b)
	}
}

// TestSecretsAreCounted: a batch is one of what a session may fetch.
func TestSecretsAreCounted(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	c, req := r.guest("w1", 1)
	s, err := c.Attest(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	fetched := 0
	for ; fetched < 100 && err == nil; fetched++ {
		_, err = s.Secrets(t.Context(), []string{"a/b/c"})
	}
	var p *kbs.ProblemError
	if !errors.As(err, &p) || p.Code != kbs.CodeSessionExpired || fetched != 65 {
		t.Errorf("%v after %d", err, fetched)
	}
}

// TestWorkloadSecrets: an owner sees what a workload may get, and what is missing.
func TestWorkloadSecrets(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	owner := r.adminClient(r.token(store.Admin))
	r.resource(&owner, "acme/db/password", "w1", "old")
	r.resource(&owner, "acme/db/password", "w1", "very-secret")
	r.resource(&owner, "bank/data/key", "w1", "v", "bank", "card")
	r.resource(&owner, "acme/db/other", "w2", "v")
	r.resource(&owner, "acme/was/mine", "w1", "v")
	r.resource(&owner, "acme/was/mine", "w2", "v")
	auditor := r.adminClient(r.token(store.Auditor))
	l, err := auditor.WorkloadSecrets(t.Context(), "w1")
	if err != nil || len(l.Secrets) != 2 || l.More {
		t.Fatalf("%+v, %v", l, err)
	}
	if s := l.Secrets[0]; s.Name != "acme/db/password" || s.Version != 2 || s.SizeBytes != 11 || s.Missing != nil {
		t.Errorf("%+v", s)
	}
	if s := l.Secrets[1]; s.Name != "bank/data/key" || !slices.Equal(s.Missing, []string{"bank", "card"}) {
		t.Errorf("%+v", s)
	}
	var p *kbs.ProblemError
	if _, err := owner.WorkloadSecrets(t.Context(), "none"); !errors.As(err, &p) || p.Code != kbs.CodeNotFound {
		t.Errorf("of no workload: %v", err)
	}
}
