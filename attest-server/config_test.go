package attestserver

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// TestConfig: the owner sets, the guest of that workload gets, nobody is shown a
// value, and what the guest says of it the owner reads.
func TestConfig(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	r.register("w2", 2)
	owner := r.adminClient(r.token(store.Admin))
	set := kbs.ConfigChange{Set: kbs.WorkloadConfig{Env: map[string]string{"A": "very-secret"}, Args: []string{"x"}}}
	if a, err := owner.SetConfig(t.Context(), "w1", set); err != nil || !a.Created || a.Version != 1 {
		t.Fatalf("%+v, %v", a, err)
	}
	for id, want := range map[string]string{"w1": `{"args":["x"],"env":{"A":"very-secret"}}`, "w2": "{}"} {
		c, req := r.guest(id, id[1]-'0')
		s, err := c.Attest(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if got, err := s.Config(t.Context()); err != nil || string(got.Reveal()) != want {
			t.Errorf("%s: %q, %v", id, got.Reveal(), err)
		}
		number, err := s.Report(t.Context(), "variable A of "+id)
		if err != nil {
			t.Fatal(err)
		}
		if rec, err := owner.Session(t.Context(), number); err != nil || rec.Refused != "variable A of "+id || !rec.Granted {
			t.Errorf("%+v, %v", rec, err)
		}
	}
	status, b := r.call("GET", "/v1/workloads/w1/config", string(r.token(store.Auditor).Reveal()), nil)
	if status != http.StatusOK || strings.Contains(string(b), "very-secret") || !strings.Contains(string(b), `"env":["A"]`) {
		t.Errorf("%d %s", status, b)
	}
	if err := owner.RemoveConfig(t.Context(), "w1"); err != nil {
		t.Error(err)
	}
	if m, err := owner.ConfigMeta(t.Context(), "w1"); err != nil || len(m.Versions) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

// TestConfigRefuses: no session but that of the workload's own attested guest
// gets its configuration, and no token but its owner's changes it.
func TestConfigRefuses(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	r.register("w2", 2)
	owner := r.adminClient(r.token(store.Admin))
	if _, err := owner.SetConfig(t.Context(), "w1", kbs.ConfigChange{Set: kbs.WorkloadConfig{Env: map[string]string{"A": "1"}}}); err != nil {
		t.Fatal(err)
	}
	granted := r.begin("w2", 2)
	if code := granted.doAttest(); code != "" {
		t.Fatal(code)
	}
	fresh := r.begin("w1", 1)
	revoked := r.begin("w1", 1)
	if code := revoked.doAttest(); code != "" {
		t.Fatal(code)
	}
	if _, err := owner.Revoke(t.Context(), "w1"); err != nil {
		t.Fatal(err)
	}
	for name, bearer := range map[string]string{"another workload's guest": granted.auth.Session, "one that has not attested": fresh.auth.Session, "a revoked workload's guest": revoked.auth.Session, "nobody": "x"} {
		for _, x := range []struct {
			method, path string
			body         any
		}{{"GET", "/v1/workloads/w1/config", nil}, {"POST", "/v1/workloads/w1/report", kbs.GuestReport{Refused: "x"}}} {
			if bearer == revoked.auth.Session && x.method == "POST" {
				continue // it may say why it stops
			}
			if status, b := r.call(x.method, x.path, bearer, x.body); status/100 != 4 {
				t.Errorf("%s, %s %s: %d %s", name, x.method, x.path, status, b)
			}
		}
	}
	for name, body := range map[string]string{
		"no name": `{"set":{"env":{"":"x"}}}`, "NUL": `{"set":{"env":{"A":"\u0000"}}}`, "unknown": `{"set":{"user":"root"}}`, "unset unknown": `{"unset":["B"]}`, "no JSON": "A=1",
	} {
		if status, b := r.call("PUT", "/v1/workloads/w1/config", string(owner.Token.Reveal()), body); status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, status, b)
		}
	}
	large := kbs.ConfigChange{Set: kbs.WorkloadConfig{Env: map[string]string{"A": strings.Repeat("x", 1<<20)}}}
	var p *kbs.ProblemError
	if _, err := owner.SetConfig(t.Context(), "w1", large); !errors.As(err, &p) || p.Code != kbs.CodeTooLarge {
		t.Errorf("1 MiB: %v", err)
	}
	auditor := r.adminClient(r.token(store.Auditor))
	if _, err := auditor.SetConfig(t.Context(), "w1", kbs.ConfigChange{Unset: []string{"A"}}); !errors.As(err, &p) || p.Code != kbs.CodeForbidden {
		t.Errorf("auditor: %v", err)
	}
}
