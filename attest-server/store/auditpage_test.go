package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store/database"
)

// written appends an entry for each object, in one transaction.
func written(t testing.TB, s *DB, objects ...string) {
	t.Helper()
	err := s.write(t.Context(), func(tx *sql.Tx) error {
		for _, o := range objects {
			if err := s.log.append(tx, "x", "test", o, ""); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAuditTenantIsTheObjects: the database's column is kbs.TenantOf, whatever
// the object.
func TestAuditTenantIsTheObjects(t *testing.T) {
	s, _, _ := newStore(t)
	objects := []string{"", "acme", "acme.shop", "acme.shop.x", "acme/key/db", "acme.x/key/db", "acme.x/k.y/db.z", "/configuration", ".x", "acme-2.y", "0f1e", "acme./", "ACME.x", "a/b.c"}
	written(t, s, objects...)
	for i, got := range column(t, s.db.DB, "SELECT tenant FROM audit ORDER BY seq") {
		if want := kbs.TenantOf(objects[i]); got != want {
			t.Errorf("tenant of %q is %q, expected %q", objects[i], got, want)
		}
	}
}

// TestAuditPages: every page holds what is the reader's, in order, none twice.
func TestAuditPages(t *testing.T) {
	s, _, _ := newStore(t)
	for _, tenant := range []string{"acme", "evil"} {
		if err := s.SetTenant(t.Context(), tenant, 1, 1, "local"); err != nil {
			t.Fatal(err)
		}
	}
	var objects []string
	for i := range 25 {
		objects = append(objects, fmt.Sprint("acme.w", i), fmt.Sprint("evil/w/", i), fmt.Sprint("w", i))
	}
	written(t, s, objects...)
	for tenant, want := range map[string]int{"": 77, "acme": 26, "evil": 26, "nobody": 0} {
		var got []int64
		for after := int64(0); ; {
			page, err := s.AuditPage(t.Context(), tenant, after, 10)
			if err != nil || len(page.Entries) > 10 || page.Entries == nil {
				t.Fatalf("%+v, %v", page, err)
			}
			for _, e := range page.Entries {
				if got = append(got, e.Sequence); !kbs.Owns(tenant, e.Object) {
					t.Errorf("tenant %q reads %+v", tenant, e)
				}
			}
			if after = page.Next; after == 0 {
				break
			}
		}
		if len(got) != want || !slices.IsSorted(got) || len(slices.Compact(got)) != want {
			t.Errorf("tenant %q: entries %v, expected %d", tenant, got, want)
		}
	}
}

// TestTenantInheritsNoAudit: a tenant of the same name as an earlier one reads
// what happened since it was made, and nothing of before.
func TestTenantInheritsNoAudit(t *testing.T) {
	s, _, _ := newStore(t)
	set := func() {
		t.Helper()
		if err := s.SetTenant(t.Context(), "acme", 1, 1, "local"); err != nil {
			t.Fatal(err)
		}
	}
	set()
	written(t, s, "acme.secret-project")
	if err := s.RemoveTenant(t.Context(), "acme", "local"); err != nil {
		t.Fatal(err)
	}
	set()
	set() // another quota is no new tenant
	written(t, s, "acme.new")
	page, err := s.AuditPage(t.Context(), "acme", 0, 10)
	if err != nil || len(page.Entries) != 3 || page.Entries[0].Sequence != 4 || page.Entries[2].Object != "acme.new" {
		t.Errorf("%+v, %v", page, err)
	}
}

// TestMigrateAudit: entries of every older store are their tenants' after it is
// upgraded, the chain holds, and what an earlier tenant left stays its own.
func TestMigrateAudit(t *testing.T) {
	const last = 10 // without tenants in the audit log
	for v := 1; v <= last; v++ {
		s := migrated(t, v, func(exec func(string, ...any)) {
			prev := make([]byte, sha256.Size)
			for i, e := range []AuditEntry{{Action: "tenant.set", Object: "acme"}, {Action: "x", Object: "acme.old"}, {Action: "tenant.remove", Object: "acme"},
				{Action: "tenant.set", Object: "acme"}, {Action: "x", Object: "acme.new"}, {Action: "x", Object: "shop"}} {
				e.Sequence, e.Actor, e.At = int64(i+1), keylessActor, fromMilli(7)
				sum := e.ChainHash(prev)
				exec("INSERT INTO audit(seq, at, actor, action, object, detail, prev, hash) VALUES(?,?,?,?,?,?,?,?)", e.Sequence, 7, e.Actor, e.Action, e.Object, "", prev, sum)
				prev = sum
			}
			if v >= 4 {
				exec("INSERT INTO tenants(name, max_workloads, max_resources, created_at) VALUES(?,?,?,?)", "acme", 1, 1, 7)
			}
		})
		if err := s.Audit(t.Context(), 0, func(AuditEntry) error { return nil }); err != nil {
			t.Errorf("from version %d: %v", v, err)
		}
		page, err := s.AuditPage(t.Context(), "acme", 0, 10)
		if err != nil {
			t.Fatal(err)
		}
		if v < 4 {
			if len(page.Entries) != 0 { // that version had no tenants
				t.Errorf("from version %d: %+v", v, page)
			}
			continue
		}
		if len(page.Entries) != 2 || page.Entries[1].Object != "acme.new" {
			t.Errorf("from version %d: %+v", v, page)
		}
	}
}

// TestCopyAudit: a copy has the same entries, though a column of theirs is
// computed.
func TestCopyAudit(t *testing.T) {
	s, _, o := newStore(t)
	written(t, s, "acme.a", "b")
	path := filepath.Join(t.TempDir(), "copy")
	to, err := database.CreateSQLite(t.Context(), path, schema)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.copyTo(t.Context(), to); err != nil {
		t.Fatal(err)
	}
	back, err := Open(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if got := column(t, back.db.DB, "SELECT tenant FROM audit ORDER BY seq"); !slices.Equal(got, []string{"acme", "b"}) {
		t.Errorf("tenants %v", got)
	}
}

// BenchmarkAudit reads and verifies a log of CCRUN_AUDIT_ENTRIES entries
// (default 200000), of which every hundredth is the tenant's that reads.
func BenchmarkAudit(b *testing.B) {
	n := 200_000
	if v := os.Getenv("CCRUN_AUDIT_ENTRIES"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			b.Fatal(err)
		}
	}
	s, _, _ := newStore(b)
	if err := s.SetTenant(b.Context(), "acme", 1, 1, "local"); err != nil {
		b.Fatal(err)
	}
	fillAudit(b, s, n)
	for _, tenant := range []string{"", "acme", "nobody"} {
		b.Run("page/"+tenant, func(b *testing.B) {
			var slowest time.Duration
			for i := range max(b.N, 200) { // the slowest of one says nothing
				begin := time.Now()
				if _, err := s.AuditPage(b.Context(), tenant, int64(i*7919%n), 100); err != nil {
					b.Fatal(err)
				}
				slowest = max(slowest, time.Since(begin))
			}
			b.ReportMetric(float64(slowest.Microseconds())/1000, "slowest-ms")
		})
	}
	b.Run("verify", func(b *testing.B) {
		begin := cpuTime(b)
		for range b.N {
			read := 0
			if err := s.Audit(context.Background(), 0, func(AuditEntry) error { read++; return nil }); err != nil || read <= n {
				b.Fatal(read, err)
			}
		}
		b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
		b.ReportMetric(float64(n)*float64(b.N)/(cpuTime(b)-begin).Seconds(), "entries/cpu-s")
	})
}

// fillAudit appends entries as long as a release's.
func fillAudit(b *testing.B, s *DB, n int) {
	b.Helper()
	l := auditLog{now: time.Now}
	for done := 0; done < n; {
		err := s.write(b.Context(), func(tx *sql.Tx) error {
			for range min(20_000, n-done) {
				object := "shop.web"
				if done++; done%100 == 0 {
					object = "acme.web"
				}
				if err := l.add(tx, "session/"+strings.Repeat("k", 16), "key.release", object, ""); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	if h, err := s.AuditHead(b.Context()); err != nil && !errors.Is(err, ErrNotFound) {
		b.Fatal(h, err)
	}
}
