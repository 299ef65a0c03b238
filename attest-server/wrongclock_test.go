package attestserver

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// TestServerWithAWrongClock: while the server's clock is years off, no guest is
// refused for good; all are served when it is right again, as it also is when
// it steps there and back.
func TestServerWithAWrongClock(t *testing.T) {
	r := newRig(t, withSNP(t, session.Native))
	r.registerSNP("w", kbs.TypeNative, 1)
	attester, _, _ := platform(t)
	l, err := sample.NewLaunch(kbs.LaunchDigest{1})
	if err != nil {
		t.Fatal(err)
	}
	c, req := r.guest("w", 1)
	req.TEE = kbs.SNP
	req.Attest = func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
		ev, err := attester.Sign(rd, l)
		ev.TEE = kbs.SNP
		return ev, err
	}
	right := r.clock.Now()
	for _, x := range []struct {
		name          string
		off           time.Duration
		ready, served bool
	}{
		{"right", 0, true, true},
		{"20 years behind", -20 * 365 * 24 * time.Hour, false, false},
		{"right again", 0, true, true},
		{"30 years ahead", 30 * 365 * 24 * time.Hour, true, false},
		{"right after that", 0, true, true},
		{"a year ahead", 365 * 24 * time.Hour, true, true},
		{"right, with an audit entry of next year", 0, false, true},
		{"an hour behind", -time.Hour, false, true},
		{"right in the end", 0, true, true},
	} {
		r.clock.advance(right.Add(x.off).Sub(r.clock.Now()))
		status, body := r.call("GET", "/readyz", "", nil)
		if (status == http.StatusOK) != x.ready {
			t.Errorf("%s: readyz %d %s", x.name, status, body)
		}
		k, err := c.Release(t.Context(), req)
		var p *kbs.ProblemError
		if x.served && (err != nil || k.Len() == 0) || !x.served && (!errors.As(err, &p) || p.Code != kbs.CodeUnavailable || p.RetryAfter == 0) {
			t.Errorf("%s: %v, expected to be served: %t", x.name, err, x.served)
		}
	}
	if w, err := r.store.Workload(t.Context(), "w"); err != nil || w.Denials != 0 {
		t.Errorf("%d denials, %v", w.Denials, err)
	}
}

// TestCollateralExpiresInASession: Evidence is verified once, at attest; what
// expires later ends no session, and holds for the next.
func TestCollateralExpiresInASession(t *testing.T) {
	n := verifiertest.NewIntel(t, verifiertest.Time)
	r := newRig(t, withTDX(t, n))
	raw, err := tdx.ParseCollateral(n.Collateral(t))
	if err != nil {
		t.Fatal(err)
	}
	verified, err := tdx.VerifyCollateral(raw, n.Root)
	if err != nil {
		t.Fatal(err)
	}
	reg := request("td", 0)
	reg.Registration.ReferenceValues = measured(kbs.TDX, 0x3e)
	reg.Registration.ReferenceValues.TDX = &kbs.TDXRules{RTMRs: verifiertest.RTMRs()}
	if _, err := r.admin.Register(t.Context(), reg); err != nil {
		t.Fatal(err)
	}
	c, req := r.guest("td", 0)
	req.TEE = kbs.TDX
	req.Attest = func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
		return kbs.Evidence{TEE: kbs.TDX, Report: n.Quote(t, verifiertest.Body(rd[:]))}, nil
	}
	r.clock.advance(verified.Expires().Add(-time.Second).Sub(r.clock.Now()))
	s, k, err := c.Open(t.Context(), req)
	if err != nil || k.Len() == 0 {
		t.Fatalf("a second before the end: %v", err)
	}
	defer s.Close()
	r.clock.advance(2 * time.Second)
	if k, err := s.DiskKey(t.Context()); err != nil || k.Len() == 0 {
		t.Errorf("in the same session, a second after: %v", err)
	}
	var p *kbs.ProblemError
	if _, _, err := c.Open(t.Context(), req); !errors.As(err, &p) || p.Code != kbs.CodeUnavailable || p.Session == "" {
		t.Errorf("in the next: %v", err)
	} else if rec, err := r.admin.Session(t.Context(), p.Session); err != nil || rec.Result.Result != kbs.Undecided {
		t.Errorf("explained as %+v, %v", rec, err)
	}
}
