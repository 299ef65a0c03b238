package attestserver

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func TestReleaseEndToEnd(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	r.register("w2", 2)
	var times []time.Time
	for _, w := range []struct {
		id     string
		digest byte
	}{{"w1", 1}, {"w2", 2}, {"w1", 1}} {
		c, req := r.guest(w.id, w.digest)
		req.OnServerTime = func(at time.Time) { times = append(times, at) }
		k, err := c.Release(t.Context(), req)
		if err != nil || string(k.Reveal()) != diskKeyText+w.id {
			t.Fatalf("Release of %s = %q, %v", w.id, k.Reveal(), err)
		}
	}
	if len(times) != 6 || !times[0].Equal(r.clock.Now()) {
		t.Errorf("server times: %v", times)
	}
	st, err := r.admin.Get(t.Context(), "w1")
	if err != nil || st.Releases != 2 || st.Denials != 0 {
		t.Errorf("status = %+v, %v", st, err)
	}
	if s := r.log.String(); strings.Contains(s, diskKeyText) || strings.Contains(s, string(r.admin.Token.Reveal())) {
		t.Error("the log holds a secret")
	}
}

func TestDenialIsExplainedToTheOwnerOnly(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	c, req := r.guest("w1", 9)
	_, err := c.Release(t.Context(), req)
	var p *kbs.ProblemError
	if !errors.Is(err, kbs.ErrDenied) || !errors.As(err, &p) || p.Session == "" {
		t.Fatalf("Release = %v", err)
	}
	registered := kbs.LaunchDigest{1}.String()
	if strings.Contains(p.Detail, registered) || strings.Contains(p.Detail, "measurement") {
		t.Errorf("the guest is told too much: %q", p.Detail)
	}
	rec, err := r.admin.Session(t.Context(), p.Session)
	if err != nil || rec.Granted || rec.WorkloadID != "w1" || rec.Result.Result != kbs.Contraindicated {
		t.Fatalf("Session = %+v, %v", rec, err)
	}
	for _, rule := range rec.Result.Rules {
		if failed := !rule.Pass; failed != (rule.Rule == "measurement" || rule.Rule == "appraisal") {
			t.Errorf("rule %+v", rule)
		}
		if rule.Rule == "measurement" && (rule.Expected != registered || rule.Got != (kbs.LaunchDigest{9}).String() || rule.Hint == "") {
			t.Errorf("rule %+v", rule)
		}
	}
	if st, err := r.admin.Get(t.Context(), "w1"); err != nil || st.Denials != 1 || st.Releases != 0 {
		t.Errorf("status = %+v, %v", st, err)
	}
}

func TestNewRefusesZeroConfig(t *testing.T) {
	good := newRig(t).server.Config
	for name, change := range map[string]func(*Config){
		"zero":         func(c *Config) { *c = Config{} },
		"store":        func(c *Config) { c.Store = nil },
		"verifiers":    func(c *Config) { c.Verifiers = nil },
		"nil verifier": func(c *Config) { c.Verifiers[kbs.SNP] = nil },
		"clock":        func(c *Config) { c.Clock = nil },
		"rand":         func(c *Config) { c.Rand = nil },
		"log":          func(c *Config) { c.Log = nil },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("New without %s", name)
		}
	}
}

func TestReleaseStopsAtFirstRefusal(t *testing.T) {
	r := newRig(t)
	asked := 0
	c, req := r.guest("unknown", 1)
	c.URLs = []string{r.http.URL, r.http.URL}
	c.Wait = kbs.Forever
	attest := req.Attest
	req.Attest = func(ctx context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
		asked++
		return attest(ctx, rd)
	}
	if _, err := c.Release(t.Context(), req); !errors.Is(err, kbs.ErrDenied) || asked != 1 {
		t.Errorf("Release = %v after %d attestations", err, asked)
	}
}

// TestReadyz: a balancer is told not to send guests where none could attest.
func TestReadyz(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	ready := func(want int) {
		t.Helper()
		if status, body := r.call("GET", "/readyz", "", nil); status != want {
			t.Errorf("readyz: %d %s, expected %d", status, body, want)
		}
	}
	ready(http.StatusOK)
	r.clock.advance(-time.Hour)
	ready(http.StatusServiceUnavailable)
	r.clock.advance(time.Hour)
	ready(http.StatusOK)
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	ready(http.StatusServiceUnavailable)
	if status, _ := r.call("GET", "/healthz", "", nil); status != http.StatusOK {
		t.Errorf("healthz: %d", status)
	}
}
