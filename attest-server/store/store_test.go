package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
	"github.com/ccrun/ccrun/secret"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

type clock struct{ now time.Time }

func (c *clock) Now() time.Time { return c.now }

func options(t testing.TB) Options {
	t.Helper()
	k, err := masterkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return Options{MasterKey: k, Rand: rand.Reader, Clock: (&clock{start}).Now}
}

func newStore(t testing.TB) (*DB, string, Options) {
	t.Helper()
	return newStoreWith(t, options(t))
}

func newStoreWith(t testing.TB, o Options) (*DB, string, Options) {
	t.Helper()
	if databasetest.OnPostgres() {
		return newPostgresStore(t, o)
	}
	path := databasetest.Place(t)
	s, err := create(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, path, o
}

// newTables is the name of a database with a new store's tables, for all tests.
var newTables = sync.OnceValues(func() (name string, err error) {
	return databasetest.Template(func(at string) error {
		db, err := database.CreatePostgres(context.Background(), database.Postgres{DSN: at}, schema)
		if err != nil {
			return err
		}
		return db.Close()
	})
})

// newPostgresStore spares PostgreSQL the tables of each test's store.
func newPostgresStore(t testing.TB, o Options) (*DB, string, Options) {
	t.Helper()
	template, err := newTables()
	if err != nil {
		t.Fatal(err)
	}
	at := databasetest.Copy(t, template)
	s, err := create(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, at, o
}

func registration(id string, digests ...byte) kbs.Registration {
	r := kbs.Registration{
		Version: 1, WorkloadID: id, IdentityDigest: kbs.Sum384([]byte(id)), FooterDigest: kbs.Sum384([]byte("footer" + id)),
		ReferenceValues: kbs.ReferenceValues{TEE: kbs.Sample},
	}
	for _, d := range digests {
		r.ReferenceValues.Measurements = append(r.ReferenceValues.Measurements, kbs.Measurement{LaunchDigest: kbs.LaunchDigest{d}, Profile: "p", CPUs: 1, MemoryMiB: 512})
	}
	return r
}

func diskKey(s string) secret.Bytes { return secret.New([]byte(s)) }

func mustRegister(t testing.TB, s *DB, r kbs.Registration, k string) {
	t.Helper()
	if created, err := s.Register(t.Context(), r, nil, diskKey(k), "token/t"); err != nil || !created {
		t.Fatalf("Register = %v, %v", created, err)
	}
}

func TestRegisterAndRelease(t *testing.T) {
	s, path, o := newStore(t)
	reg := registration("a", 1, 1, 2)
	mustRegister(t, s, reg, "key-a")
	w, err := s.Workload(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	// What was acknowledged survives: reopen the file without Close, as after kill -9.
	again, err := reopen(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	k, err := again.Release(t.Context(), "a", w.Digest, Guest{Session: "n1"})
	if err != nil || string(k.Reveal()) != "key-a" {
		t.Fatalf("Release = %q, %v", k.Reveal(), err)
	}
	w, err = s.Workload(t.Context(), "a")
	if err != nil || w.Releases != 1 || w.LastRelease == nil || !w.LastRelease.Equal(start) || w.RegisteredBy != "token/t" {
		t.Fatalf("Workload = %+v, %v", w, err)
	}
}

func TestRegisterIsIdempotentByContentOnly(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("a", 1), "key-a")
	mustRegister(t, s, registration("b", 2), "key-b")
	if created, err := s.Register(t.Context(), registration("a", 1), nil, diskKey("key-a"), "x"); err != nil || created {
		t.Fatalf("the same again = %v, %v", created, err)
	}
	var conflict *ConflictError
	if _, err := s.Register(t.Context(), registration("a", 3), nil, diskKey("key-a"), "x"); !errors.As(err, &conflict) {
		t.Errorf("other measurement: %v", err)
	}
	if _, err := s.Register(t.Context(), registration("a", 1), nil, diskKey("other"), "x"); !errors.As(err, &conflict) {
		t.Errorf("other key: %v", err)
	}
	var dup *DuplicateIdentityError
	if _, err := s.Register(t.Context(), registration("c", 9, 2), nil, diskKey("key-c"), "x"); !errors.As(err, &dup) || dup.WorkloadID != "b" {
		t.Errorf("b's launch digest: %v", err)
	}
	// The refused registration must leave nothing behind, not even its claim on digest 9.
	if _, err := s.Workload(t.Context(), "c"); !errors.Is(err, ErrNotFound) {
		t.Errorf("refused workload is there: %v", err)
	}
	mustRegister(t, s, registration("d", 9), "key-d")
	if _, err := s.Revoke(t.Context(), "a", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Register(t.Context(), registration("a", 1), nil, diskKey("key-a"), "x"); !errors.As(err, &conflict) || !conflict.Revoked {
		t.Errorf("registering brought a revoked workload back: %v", err)
	}
	if err := s.Remove(t.Context(), "a", "x"); err != nil {
		t.Fatal(err)
	}
	mustRegister(t, s, registration("a", 1), "key-a2")
}

func TestReleaseRefuses(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("a", 1), "key-a")
	w, err := s.Workload(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	refuses := func(name string, want error) {
		t.Helper()
		if k, err := s.Release(t.Context(), "a", w.Digest, Guest{Session: "n"}); !errors.Is(err, want) || k.Len() != 0 {
			t.Errorf("%s: %v, expected %v", name, err, want)
		}
	}
	if _, err := s.Release(t.Context(), "a", kbs.Digest{}, Guest{Session: "n"}); !errors.Is(err, ErrChanged) {
		t.Errorf("zero digest: %v", err)
	}
	if _, err := s.Revoke(t.Context(), "a", "x"); err != nil {
		t.Fatal(err)
	}
	refuses("revoked", ErrRevoked)
	if err := s.Remove(t.Context(), "a", "x"); err != nil {
		t.Fatal(err)
	}
	refuses("removed", ErrNotFound)
	mustRegister(t, s, registration("a", 7), "key-a")
	refuses("removed and registered otherwise", ErrChanged)
	if w, err := s.Workload(t.Context(), "a"); err != nil || w.Releases != 0 {
		t.Errorf("refused releases were counted: %+v, %v", w, err)
	}
}

// TestTamperedDatabase plays someone who can write the file but lacks the
// master key: no edit may lead to a released key.
func TestTamperedDatabase(t *testing.T) {
	edits := map[string]string{
		"registration of the attacker's making": `UPDATE workloads SET registration = (SELECT CAST(replace(CAST(registration AS TEXT), '"b"', '"a"') AS BLOB) FROM workloads WHERE id = 'b') WHERE id = 'a'`,
		"victim's sealed key in another row":    `UPDATE workloads SET disk_key = (SELECT disk_key FROM workloads WHERE id = 'b') WHERE id = 'a'`,
		"sealed key cut short":                  `UPDATE workloads SET disk_key = substr(disk_key, 1, 20) WHERE id = 'a'`,
		"sealed key empty":                      `UPDATE workloads SET disk_key = x'' WHERE id = 'a'`,
		"rows swapped":                          `UPDATE workloads SET id = CASE id WHEN 'a' THEN 'zz' ELSE 'a' END`,
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			s, _, _ := newStore(t)
			mustRegister(t, s, registration("a", 1), "key-a")
			mustRegister(t, s, registration("b", 2), "key-b")
			if err := s.write(t.Context(), func(tx *sql.Tx) error {
				if _, err := tx.Exec("DELETE FROM identities"); err != nil {
					return err
				}
				_, err := tx.Exec(databasetest.Words(edit))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			w, err := s.Workload(t.Context(), "a")
			if err != nil {
				return // seen already
			}
			if k, err := s.Release(t.Context(), "a", w.Digest, Guest{Session: "n"}); !errors.Is(err, ErrTampered) || k.Len() != 0 {
				t.Errorf("Release = %q, %v", k.Reveal(), err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	s, path, o := newStore(t)
	mustRegister(t, s, registration("a", 1), "key-a")
	other := options(t)
	if _, err := reopen(t.Context(), path, other); !errors.Is(err, ErrWrongMasterKey) {
		t.Errorf("other master key: %v", err)
	}
	if _, err := create(t.Context(), path, o); err == nil {
		t.Error("Create over an existing store")
	}
	if _, err := reopen(t.Context(), path+"x", o); err == nil {
		t.Error("Open of a missing store")
	}
	if _, err := reopen(t.Context(), path, Options{}); err == nil {
		t.Error("zero Options")
	}
	locked, err := reopen(t.Context(), path, Options{Rand: o.Rand, Clock: o.Clock})
	if err != nil {
		t.Fatal(err)
	}
	defer locked.Close()
	if _, err := locked.Register(t.Context(), registration("b", 2), nil, diskKey("k"), "x"); !errors.Is(err, ErrLocked) {
		t.Errorf("Register without master key: %v", err)
	}
	w, _ := locked.Workload(t.Context(), "a")
	if _, err := locked.Release(t.Context(), "a", w.Digest, Guest{Session: "n"}); !errors.Is(err, ErrLocked) {
		t.Errorf("Release without master key: %v", err)
	}
	edit(t, s, "PRAGMA user_version = 99")
	if _, err := reopen(t.Context(), path, o); !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), "99") {
		t.Errorf("newer schema: %v", err)
	}
}

func TestNoSecretInFile(t *testing.T) {
	s, path, _ := newStore(t)
	mustRegister(t, s, registration("a", 1), "very-secret-disk-key")
	tok, _, err := s.CreateToken(t.Context(), "", Admin, "n", time.Time{}, "local")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b := readAll(t, path)
	for _, x := range []string{"very-secret-disk-key", string(tok.Reveal()), strings.SplitN(string(tok.Reveal()), "_", 3)[2]} {
		if strings.Contains(b, x) {
			t.Errorf("file holds %q", x)
		}
	}
}

func TestTokens(t *testing.T) {
	s, _, o := newStore(t)
	c := &clock{start}
	s.clock = c.Now
	_ = o
	text, tok, err := s.CreateToken(t.Context(), "", Publisher, "ci", start.Add(time.Hour), "local")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Authenticate(t.Context(), text); err != nil || got.ID != tok.ID || got.Role != Publisher {
		t.Fatalf("Authenticate = %+v, %v", got, err)
	}
	for name, bad := range map[string]string{
		"empty":           "",
		"no parts":        "x",
		"unknown id":      "ccrun_000000000000_" + strings.SplitN(string(text.Reveal()), "_", 3)[2],
		"other secret":    "ccrun_" + tok.ID + "_AAAA",
		"truncated":       string(text.Reveal())[:text.Len()-1],
		"trailing":        string(text.Reveal()) + "A",
		"upper-case name": strings.ToUpper(string(text.Reveal())),
	} {
		if _, err := s.Authenticate(t.Context(), diskKey(bad)); !errors.Is(err, ErrBadToken) {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.now = start.Add(time.Hour)
	if _, err := s.Authenticate(t.Context(), text); !errors.Is(err, ErrBadToken) {
		t.Errorf("expired: %v", err)
	}
	c.now = start
	if err := s.RevokeToken(t.Context(), tok.ID, "local"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Authenticate(t.Context(), text); !errors.Is(err, ErrBadToken) {
		t.Errorf("revoked: %v", err)
	}
	if err := s.RevokeToken(t.Context(), "nope", "local"); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown id: %v", err)
	}
	if _, _, err := s.CreateToken(t.Context(), "", "root", "", time.Time{}, "local"); err == nil {
		t.Error("unknown role")
	}
}

func TestSessionsAreBounded(t *testing.T) {
	s, _, _ := newStore(t)
	s.kept = 3
	numbers := []string{"s1", "s2", "s3", "s4", "s5"}
	for i, n := range numbers {
		r := kbs.SessionRecord{Session: n, WorkloadID: "a", At: start, Granted: i%2 == 0, Result: kbs.AttestationResult{Result: kbs.Affirming}}
		if err := s.RecordSession(t.Context(), r, true); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"f1", "f2", "f3", "f4", "f5"} { // a flood of forgeries pushes out nothing else
		if err := s.RecordSession(t.Context(), kbs.SessionRecord{Session: n, At: start}, false); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Session(t.Context(), "f2"); !errors.Is(err, ErrNotFound) {
		t.Errorf("forgeries are not bounded: %v", err)
	}
	for i, n := range numbers {
		_, err := s.Session(t.Context(), n)
		if gone := errors.Is(err, ErrNotFound); gone != (i < 2) {
			t.Errorf("session %s: %v", n, err)
		}
	}
}

func TestAuditSeesEveryEdit(t *testing.T) {
	entries := func(s *DB) (n int, err error) {
		err = s.Audit(context.Background(), 0, func(AuditEntry) error { n++; return nil })
		return n, err
	}
	for name, edit := range map[string]string{
		"none":           "SELECT 1",
		"actor":          "UPDATE audit SET actor = 'x' WHERE seq = 2",
		"time":           "UPDATE audit SET at = at + 1 WHERE seq = 2",
		"moved boundary": "UPDATE audit SET action = action || substr(object, 1, 1), object = substr(object, 2) WHERE seq = 2",
		"deleted":        "DELETE FROM audit WHERE seq = 2",
		"first deleted":  "DELETE FROM audit WHERE seq = 1",
		"renumbered":     "DELETE FROM audit WHERE seq = 1; UPDATE audit SET seq = seq - 1",
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := newStore(t)
			mustRegister(t, s, registration("a", 1), "k")
			mustRegister(t, s, registration("b", 2), "k")
			mustRegister(t, s, registration("c", 3), "k")
			if err := s.write(t.Context(), func(tx *sql.Tx) error {
				_, err := tx.Exec(databasetest.Words("DROP TRIGGER audit_update; DROP TRIGGER audit_delete; " + edit))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			n, err := entries(s)
			if name == "none" {
				if n != 3 || err != nil {
					t.Fatalf("%d entries, %v", n, err)
				}
			} else if !errors.Is(err, ErrTampered) {
				t.Fatalf("edit not seen: %d entries, %v", n, err)
			}
		})
	}
	t.Run("edited, its own hash mended", func(t *testing.T) {
		s, _, _ := newStore(t)
		for i, id := range []string{"a", "b", "c"} {
			mustRegister(t, s, registration(id, byte(i+1)), "k")
		}
		if err := s.write(t.Context(), func(tx *sql.Tx) error {
			var e AuditEntry
			var at int64
			var prev []byte
			if err := tx.QueryRow("SELECT seq, at, action, object, detail, prev FROM audit WHERE seq = 2").Scan(&e.Sequence, &at, &e.Action, &e.Object, &e.Detail, &prev); err != nil {
				return err
			}
			e.Actor, e.At = "somebody else", fromMilli(at)
			if _, err := tx.Exec(databasetest.Words("DROP TRIGGER audit_update;")); err != nil {
				return err
			}
			_, err := tx.Exec("UPDATE audit SET actor = ?, hash = ? WHERE seq = 2", e.Actor, e.ChainHash(prev))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if n, err := entries(s); !errors.Is(err, ErrTampered) || n != 2 {
			t.Fatalf("edit not seen: %d entries, %v", n, err)
		}
	})
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("a", 1), "k")
	if err := s.write(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec("DELETE FROM audit"); return err }); err == nil {
		t.Error("audit rows can be deleted by plain SQL")
	}
}
