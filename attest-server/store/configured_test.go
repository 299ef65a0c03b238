package store

import (
	"errors"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestPolicyIsNeverLostBySilence walks through what may follow what.
func TestPolicyIsNeverLostBySilence(t *testing.T) {
	s, _, _ := newStore(t)
	entries := func() (n int, last AuditEntry) {
		t.Helper()
		if err := s.Audit(t.Context(), 0, func(e AuditEntry) error { n++; last = e; return nil }); err != nil {
			t.Fatal(err)
		}
		return n, last
	}
	for _, tenant := range []string{"configuration", "server", "a"} {
		if kbs.Owns(tenant, configuredObject) {
			t.Errorf("tenant %s reads what is the operator's", tenant)
		}
	}
	for i, x := range []struct {
		now     Configured
		refused bool
		audited bool
	}{
		{now: Configured{}},
		{now: Configured{Configuration: "c1"}, audited: true},
		{now: Configured{Configuration: "c2", Policy: "p1"}, audited: true},
		{now: Configured{Configuration: "c2", Policy: "p1"}},
		{now: Configured{}, refused: true},
		{now: Configured{Configuration: "c2"}, refused: true},
		{now: Configured{Configuration: "c3", Policy: "p2"}, audited: true},
		{now: Configured{Configuration: "c4", NoPolicy: true}, audited: true},
		{now: Configured{Configuration: "c5"}, audited: true},
		{now: Configured{Configuration: "c6", Policy: "p1"}, audited: true},
		{now: Configured{Configuration: "c6"}, refused: true},
	} {
		had, err := s.Configured(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n, _ := entries()
		before, err := s.Configure(t.Context(), x.now)
		if errors.Is(err, ErrPolicyGone) != x.refused || !x.refused && err != nil || before != had {
			t.Errorf("%d: %+v, %v, expected %+v, refused %v", i, before, err, had, x.refused)
		}
		is, err := s.Configured(t.Context())
		if err != nil || x.refused && is != had || !x.refused && !is.same(x.now) {
			t.Errorf("%d: in force %+v, %v", i, is, err)
		}
		m, last := entries()
		if (m > n) != x.audited || x.audited && (last.Action != "configuration.change" || !strings.Contains(last.Detail, orNone(x.now.Policy)) ||
			!strings.Contains(last.Detail, orNone(had.Policy)) || !strings.Contains(last.Detail, orNone(had.Configuration))) {
			t.Errorf("%d: %d entries before, then %d, last %+v", i, n, m, last)
		}
	}
}
