package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func resourceID(t testing.TB, s string) kbs.ResourceID {
	t.Helper()
	id, err := kbs.ParseResourceID(s)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func digestOf(t *testing.T, s *DB, id string) kbs.Digest {
	t.Helper()
	w, err := s.Workload(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return w.Digest
}

func TestResourceVersions(t *testing.T) {
	s, path, _ := newStore(t)
	mustRegister(t, s, registration("w", 1), "k")
	id := resourceID(t, "repo/type/tag")
	p := kbs.ResourcePolicy{Workloads: []string{"w"}}
	for i := 1; i <= 7; i++ {
		for _, created := range []bool{true, false} { // the second is the same again
			a, err := s.PutResource(t.Context(), id, p, diskKey(fmt.Sprint("very-secret-", i)), anyone)
			if err != nil || a.Version != int64(i) || a.Created != created {
				t.Fatalf("PutResource = %+v, %v", a, err)
			}
		}
	}
	v, err := s.ReleaseResource(t.Context(), id, "w", digestOf(t, s, "w"), "n")
	if err != nil || string(v.Reveal()) != "very-secret-7" {
		t.Fatalf("ReleaseResource = %q, %v", v.Reveal(), err)
	}
	m, err := s.Resource(t.Context(), id)
	if err != nil || len(m.Versions) != versionsKept || m.Versions[0].Version != 7 || m.Versions[0].Releases != 1 || m.Versions[0].SizeBytes != 13 {
		t.Fatalf("Resource = %+v, %v", m, err)
	}
	if strings.Contains(readAll(t, path), "very-secret") {
		t.Error("the file holds the value")
	}
	if err := s.RemoveResource(t.Context(), id, anyone); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveResource(t.Context(), id, anyone); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
	if _, err := s.ReleaseResource(t.Context(), id, "w", digestOf(t, s, "w"), "n"); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
}

// TestReleaseResourceRefuses changes one thing about a release that is right.
func TestReleaseResourceRefuses(t *testing.T) {
	for name, x := range map[string]struct {
		change func(t *testing.T, s *DB, workload *string, appraised *kbs.Digest)
		want   error
	}{
		"nothing":                     {func(*testing.T, *DB, *string, *kbs.Digest) {}, nil},
		"another workload":            {func(t *testing.T, s *DB, w *string, d *kbs.Digest) { *w, *d = "evil.w", digestOf(t, s, "evil.w") }, ErrNotFound},
		"zero digest":                 {func(_ *testing.T, _ *DB, _ *string, d *kbs.Digest) { *d = kbs.Digest{} }, ErrChanged},
		"another's appraisal":         {func(t *testing.T, s *DB, _ *string, d *kbs.Digest) { *d = digestOf(t, s, "evil.w") }, ErrChanged},
		"revoked workload":            {func(t *testing.T, s *DB, w *string, _ *kbs.Digest) { s.Revoke(t.Context(), *w, "x") }, ErrRevoked},
		"removed workload":            {func(t *testing.T, s *DB, w *string, _ *kbs.Digest) { s.Remove(t.Context(), *w, "x") }, ErrNotFound},
		"one of two approvals gone":   {func(t *testing.T, s *DB, _ *string, d *kbs.Digest) { withdraw(t, s, "bank", *d) }, ErrNotApproved},
		"the other gone":              {func(t *testing.T, s *DB, _ *string, d *kbs.Digest) { withdraw(t, s, "card", *d) }, ErrNotApproved},
		"registered anew, unapproved": {registerAnew, ErrNotApproved},
		"policy edited": {func(t *testing.T, s *DB, _ *string, _ *kbs.Digest) {
			edit(t, s, `UPDATE resources SET policy = CAST('{"workloads":["evil.w"]}' AS BLOB)`)
		}, ErrTampered},
		"value of another resource": {func(t *testing.T, s *DB, _ *string, _ *kbs.Digest) {
			edit(t, s, `UPDATE resources SET value = (SELECT value FROM resources WHERE tag = 'other')`)
		}, ErrTampered},
		"an older version brought back": {func(t *testing.T, s *DB, _ *string, _ *kbs.Digest) {
			edit(t, s, `UPDATE resources SET version = version + 10`)
		}, ErrTampered},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := newStore(t)
			for _, tenant := range []string{"bank", "card", "evil"} {
				if err := s.SetTenant(t.Context(), tenant, 10, 10, "local"); err != nil {
					t.Fatal(err)
				}
			}
			mustRegister(t, s, registration("bank.w", 1), "k")
			mustRegister(t, s, registration("evil.w", 2), "k")
			id := resourceID(t, "bank/data/key")
			p := kbs.ResourcePolicy{Workloads: []string{"bank.w"}, Approvals: []string{"bank", "card"}}
			for _, r := range []kbs.ResourceID{id, resourceID(t, "bank/data/other")} {
				if _, err := s.PutResource(t.Context(), r, p, diskKey("value"), anyone); err != nil {
					t.Fatal(err)
				}
			}
			w, d := "bank.w", digestOf(t, s, "bank.w")
			for _, tenant := range []string{"bank", "card"} {
				if err := s.Approve(t.Context(), tenant, kbs.Approval{Name: kbs.ResourceName(id), WorkloadID: w, RegistrationDigest: d}, "x"); err != nil {
					t.Fatal(err)
				}
			}
			x.change(t, s, &w, &d)
			v, err := s.ReleaseResource(t.Context(), id, w, d, "n")
			if !errors.Is(err, x.want) || (v.Len() != 0) != (x.want == nil) {
				t.Errorf("ReleaseResource = %q, %v, expected %v", v.Reveal(), err, x.want)
			}
		})
	}
}

// TestForeignAndMissingResourcesCostTheSame: both are one durable entry, so that
// time does not tell a guest what another tenant has.
func TestForeignAndMissingResourcesCostTheSame(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("w", 1), "k")
	if _, err := s.PutResource(t.Context(), resourceID(t, "acme/tls/key"), kbs.ResourcePolicy{Workloads: []string{"other"}}, diskKey("v"), anyone); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"acme/tls/key", "acme/tls/nothing"} {
		before, _ := s.writer.Last()
		if _, err := s.ReleaseResource(t.Context(), resourceID(t, name), "w", digestOf(t, s, "w"), "n"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
		after, failed := s.writer.Last()
		var last AuditEntry
		if err := s.Audit(t.Context(), 0, func(e AuditEntry) error { last = e; return nil }); err != nil {
			t.Fatal(err)
		}
		if after != before+1 || failed || last.Action != "resource.refuse" || last.Object != name {
			t.Errorf("%s: %d writes, failed %v, last entry %+v", name, after-before, failed, last)
		}
	}
}

func withdraw(t *testing.T, s *DB, tenant string, d kbs.Digest) {
	t.Helper()
	if err := s.Withdraw(t.Context(), tenant, kbs.Approval{Name: "resource/bank/data/key", WorkloadID: "bank.w", RegistrationDigest: d}, "x"); err != nil {
		t.Fatal(err)
	}
}

func registerAnew(t *testing.T, s *DB, w *string, d *kbs.Digest) {
	if err := s.Remove(t.Context(), *w, "x"); err != nil {
		t.Fatal(err)
	}
	mustRegister(t, s, registration(*w, 9), "k")
	*d = digestOf(t, s, *w)
}

func TestDiskKeyNeedsApprovals(t *testing.T) {
	s, _, _ := newStore(t)
	for _, tenant := range []string{"a", "b"} {
		if err := s.SetTenant(t.Context(), tenant, 10, 10, "local"); err != nil {
			t.Fatal(err)
		}
	}
	r := registration("a.w", 1)
	r.Release = &kbs.ReleaseLimits{Approvals: []string{"b"}}
	mustRegister(t, s, r, "k")
	d := digestOf(t, s, "a.w")
	if _, err := s.Release(t.Context(), "a.w", d, Guest{Session: "n"}); !errors.Is(err, ErrNotApproved) {
		t.Errorf("without approval: %v", err)
	}
	a := kbs.Approval{Name: kbs.ReleaseName("a.w"), WorkloadID: "a.w", RegistrationDigest: d}
	if err := s.Approve(t.Context(), "a", a, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Release(t.Context(), "a.w", d, Guest{Session: "n"}); !errors.Is(err, ErrNotApproved) {
		t.Errorf("with another tenant's approval: %v", err)
	}
	if err := s.Approve(t.Context(), "b", a, "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Release(t.Context(), "a.w", d, Guest{Session: "n"}); err != nil {
		t.Errorf("approved: %v", err)
	}
	if err := s.Approve(t.Context(), "nobody", a, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("approval of no tenant: %v", err)
	}
}

func TestTenants(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("old.w", 1), "k")
	for _, bad := range []string{"", "A", "a.b", "a/b", "-a", strings.Repeat("a", 33), "old"} {
		if err := s.SetTenant(t.Context(), bad, 1, 1, "local"); err == nil {
			t.Errorf("tenant %q made", bad)
		}
	}
	if err := s.SetTenant(t.Context(), "acme", 2, 1, "local"); err != nil {
		t.Fatal(err)
	}
	text, _, err := s.CreateToken(t.Context(), "acme", Publisher, "", time.Time{}, "local")
	if err != nil {
		t.Fatal(err)
	}
	if tok, err := s.Authenticate(t.Context(), text); err != nil || tok.Tenant != "acme" {
		t.Fatalf("%+v, %v", tok, err)
	}
	if _, _, err := s.CreateToken(t.Context(), "nobody", Publisher, "", time.Time{}, "local"); !errors.Is(err, ErrNotFound) {
		t.Errorf("token of no tenant: %v", err)
	}
	for i, id := range []string{"acme-x", "acmee.w", "acm.w", "zeta"} { // not acme's
		mustRegister(t, s, registration(id, byte(10+i)), "k")
	}
	mustRegister(t, s, registration("acme.a", 20), "k")
	mustRegister(t, s, registration("acme.b", 21), "k")
	var quota *QuotaError
	if _, err := s.Register(t.Context(), registration("acme.c", 22), nil, diskKey("k"), "x"); !errors.As(err, &quota) || quota.Max != 2 {
		t.Errorf("third of two: %v", err)
	}
	if created, err := s.Register(t.Context(), registration("acme.b", 21), nil, diskKey("k"), "x"); err != nil || created {
		t.Errorf("the same again at the quota: %v, %v", created, err)
	}
	list, err := s.Workloads(t.Context(), "acme", "", 10)
	if err != nil || len(list.Workloads) != 2 || list.Workloads[0].WorkloadID != "acme.a" {
		t.Errorf("Workloads = %+v, %v", list, err)
	}
	if page, err := s.Workloads(t.Context(), "acme", "", 1); err != nil || page.Next != "acme.a" {
		t.Errorf("page = %+v, %v", page, err)
	}
	p := kbs.ResourcePolicy{Tenants: []string{"acme"}}
	if _, err := s.PutResource(t.Context(), resourceID(t, "acme/a/b"), p, diskKey("v"), anyone); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutResource(t.Context(), resourceID(t, "acme/a/b"), p, diskKey("v2"), anyone); err != nil {
		t.Errorf("another version at the quota: %v", err)
	}
	if _, err := s.PutResource(t.Context(), resourceID(t, "acme.x/a/b"), p, diskKey("v"), anyone); !errors.As(err, &quota) {
		t.Errorf("second of one resource: %v", err)
	}
	if _, err := s.PutResource(t.Context(), resourceID(t, "acmee/a/b"), p, diskKey("v"), anyone); err != nil {
		t.Errorf("another's resource: %v", err)
	}
	if l, err := s.Resources(t.Context(), "acme", "", 10); err != nil || len(l.Resources) != 1 || l.Resources[0] != "acme/a/b" {
		t.Errorf("Resources = %+v, %v", l, err)
	}
	for _, x := range []struct{ id string }{{"acme-x"}, {"zeta"}} {
		if _, err := s.ReleaseResource(t.Context(), resourceID(t, "acme/a/b"), x.id, digestOf(t, s, x.id), "n"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", x.id, err)
		}
	}
	if _, err := s.ReleaseResource(t.Context(), resourceID(t, "acme/a/b"), "acme.a", digestOf(t, s, "acme.a"), "n"); err != nil {
		t.Error(err)
	}
	tenants, err := s.Tenants(t.Context())
	if err != nil || len(tenants) != 1 || tenants[0].Workloads != 2 || tenants[0].Resources != 1 {
		t.Errorf("Tenants = %+v, %v", tenants, err)
	}
	if err := s.RemoveTenant(t.Context(), "acme", "local"); err == nil {
		t.Error("removed a tenant that has workloads")
	}
	for _, err := range []error{s.Remove(t.Context(), "acme.a", "x"), s.Remove(t.Context(), "acme.b", "x"),
		s.RemoveResource(t.Context(), resourceID(t, "acme/a/b"), anyone), s.RemoveTenant(t.Context(), "acme", "local")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Authenticate(t.Context(), text); !errors.Is(err, ErrBadToken) {
		t.Errorf("token of a removed tenant: %v", err)
	}
}

// TestQuotaUnderRace lets many registrations come for the places there are.
func TestQuotaUnderRace(t *testing.T) {
	s, path, o := newStore(t)
	if err := s.SetTenant(t.Context(), "acme", 3, 0, "local"); err != nil {
		t.Fatal(err)
	}
	other, err := reopen(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			_, err := []*DB{s, other}[i%2].Register(t.Context(), registration(fmt.Sprint("acme.w", i), byte(i)+1), nil, diskKey("k"), "x")
			var quota *QuotaError
			if err != nil && !errors.As(err, &quota) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if l, err := s.Workloads(t.Context(), "acme", "", 100); err != nil || len(l.Workloads) != 3 {
		t.Errorf("%d workloads of 3, %v", len(l.Workloads), err)
	}
}

// TestTenantLeavesNoSessions: records of what an earlier tenant's guests were
// told are not shown to a later one of its name, nor is it taken for that.
func TestTenantLeavesNoSessions(t *testing.T) {
	s, _, _ := newStore(t)
	set := func() (made int64) {
		t.Helper()
		if err := s.SetTenant(t.Context(), "acme", 1, 1, "local"); err != nil {
			t.Fatal(err)
		}
		made, err := s.TenantMade(t.Context(), "acme")
		if err != nil || made == 0 {
			t.Fatal(made, err)
		}
		return made
	}
	first := set()
	if set() != first {
		t.Error("another quota makes another tenant")
	}
	for number, workload := range map[string]string{"one": "acme.secret", "two": "acme", "three": "acmeother.w", "four": "acme-x"} {
		if err := s.RecordSession(t.Context(), kbs.SessionRecord{Session: number, WorkloadID: workload, At: start}, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RemoveTenant(t.Context(), "acme", "local"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.TenantMade(t.Context(), "acme"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a removed tenant: %v", err)
	}
	if set() == first {
		t.Error("a tenant made again is taken for the first")
	}
	if l, err := s.Sessions(t.Context(), SessionQuery{Tenant: "acme"}, 10); err != nil || len(l) != 0 {
		t.Errorf("inherited %+v, %v", l, err)
	}
	if l, err := s.Sessions(t.Context(), SessionQuery{}, 10); err != nil || len(l) != 2 {
		t.Errorf("left %+v, %v", l, err)
	}
}

// TestTenantLeavesNoApprovals: a later tenant of the same name starts with none.
func TestTenantLeavesNoApprovals(t *testing.T) {
	s, _, _ := newStore(t)
	if err := s.SetTenant(t.Context(), "acme", 1, 1, "local"); err != nil {
		t.Fatal(err)
	}
	mustRegister(t, s, registration("other", 1), "k")
	w, err := s.Workload(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Approve(t.Context(), "acme", kbs.Approval{Name: "deploy", WorkloadID: "other", RegistrationDigest: w.Digest}, "x"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{s.RemoveTenant(t.Context(), "acme", "local"), s.SetTenant(t.Context(), "acme", 1, 1, "local")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if l, err := s.Approvals(t.Context(), "acme"); err != nil || len(l.Approvals) != 0 {
		t.Errorf("inherited %+v, %v", l, err)
	}
}
