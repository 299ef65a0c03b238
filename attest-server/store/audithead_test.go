package store

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
	"github.com/ccrun/ccrun/secret"
)

func TestAuditHeadIsSigned(t *testing.T) {
	s, path, o := newStore(t)
	if _, err := s.AuditHead(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Fatalf("head of an empty chain: %v", err)
	}
	mustRegister(t, s, registration("a", 1), "k")
	mustRegister(t, s, registration("b", 2), "k")
	var last AuditEntry
	if err := s.Audit(t.Context(), 0, func(e AuditEntry) error { last = e; return nil }); err != nil {
		t.Fatal(err)
	}
	h, err := s.AuditHead(t.Context())
	if err != nil || h.Sequence != 2 || h.Hash != last.Hash || h.Verify() != nil {
		t.Fatalf("head %+v, %v", h, err)
	}
	if k, err := s.AuditKey(t.Context(), o.MasterKey); err != nil || string(k) != string(h.PublicKey) {
		t.Errorf("AuditKey = %x, %v", k, err)
	}
	other := options(t)
	if _, err := s.AuditKey(t.Context(), other.MasterKey); !errors.Is(err, ErrTampered) {
		t.Errorf("AuditKey with another master key: %v", err)
	}
	for name, change := range map[string]func(*kbs.AuditHead){
		"sequence":  func(h *kbs.AuditHead) { h.Sequence-- },
		"hash":      func(h *kbs.AuditHead) { h.Hash = h.Hash[:63] + string('0'+('1'-h.Hash[63])&1) },
		"time":      func(h *kbs.AuditHead) { h.At = h.At.Add(time.Millisecond) },
		"key":       func(h *kbs.AuditHead) { h.PublicKey = append([]byte{h.PublicKey[0] ^ 1}, h.PublicKey[1:]...) },
		"signature": func(h *kbs.AuditHead) { h.Signature = append([]byte{h.Signature[0] ^ 1}, h.Signature[1:]...) },
		"zero":      func(h *kbs.AuditHead) { *h = kbs.AuditHead{} },
	} {
		bad := h
		if change(&bad); bad.Verify() == nil {
			t.Errorf("head with another %s verifies", name)
		}
	}

	// Without the master key entries are appended, not signed; the next write
	// with it signs them, and says that it did.
	s.Close()
	keyless := o
	keyless.MasterKey = other.MasterKey
	keyless.MasterKey.Wipe()
	k, err := reopen(t.Context(), path, keyless)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := k.CreateToken(t.Context(), "", Auditor, "", time.Time{}, "local"); err != nil {
		t.Fatal(err)
	}
	if h, err := k.AuditHead(t.Context()); err != nil || h.Sequence != 2 {
		t.Errorf("head %+v, %v", h, err)
	}
	k.Close()
	if s, err = reopen(t.Context(), path, o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	mustRegister(t, s, registration("c", 3), "k")
	if h, err := s.AuditHead(t.Context()); err != nil || h.Sequence != 5 {
		t.Errorf("head %+v, %v", h, err)
	}
	var said []string
	if err := s.Audit(t.Context(), 3, func(e AuditEntry) error { said = append(said, e.Action+" "+e.Object); return nil }); err != nil || strings.Join(said, ", ") != "audit.unsigned 3-3, workload.register c" {
		t.Errorf("after an unsigned entry: %v, %v", said, err)
	}
}

// forged appends an entry that follows, as who writes the database can.
func forged(t *testing.T, s *DB, actor, action string) {
	t.Helper()
	forger := auditLog{now: s.clock} // signs nothing
	if err := s.write(t.Context(), func(tx *sql.Tx) error { return forger.append(tx, actor, action, "shop", "") }); err != nil {
		t.Fatal(err)
	}
}

// TestForgedAuditIsNotSigned: what somebody who writes the database, without the
// MasterKey, puts in the log's or the key's place is neither signed nor started
// on. Each case leaves a chain that is whole by itself.
func TestForgedAuditIsNotSigned(t *testing.T) {
	const unlocked = "DROP TRIGGER IF EXISTS audit_delete; "
	for name, forge := range map[string]func(*testing.T, *DB){
		"an entry of a token's":        func(t *testing.T, s *DB) { forged(t, s, "token/0f1e2d3c4b5a", "workload.revoke") },
		"an entry of a session's":      func(t *testing.T, s *DB) { forged(t, s, "session/x", "key.release") },
		"an entry of this command's":   func(t *testing.T, s *DB) { forged(t, s, "local", "workload.revoke") },
		"an entry that looks admitted": func(t *testing.T, s *DB) { forged(t, s, "store", "audit.unsigned") },
		"all entries removed, with key and head": func(t *testing.T, s *DB) {
			edit(t, s, unlocked+"DELETE FROM audit; DELETE FROM meta WHERE name IN ('audit signing key', 'audit head')")
		},
		"rewritten, with key and head removed": func(t *testing.T, s *DB) {
			edit(t, s, unlocked+"DELETE FROM audit; DELETE FROM meta WHERE name IN ('audit signing key', 'audit head')")
			forged(t, s, "local", "token.create")
		},
		"rewritten, with the head removed": func(t *testing.T, s *DB) {
			edit(t, s, unlocked+"DELETE FROM audit; DELETE FROM meta WHERE name = 'audit head'")
			forged(t, s, "local", "token.create")
		},
		"the key removed":  func(t *testing.T, s *DB) { edit(t, s, "DELETE FROM meta WHERE name = 'audit signing key'") },
		"the head removed": func(t *testing.T, s *DB) { edit(t, s, "DELETE FROM meta WHERE name = 'audit head'") },
	} {
		t.Run(name, func(t *testing.T) {
			s, at, o := newStore(t)
			mustRegister(t, s, registration("a", 1), "k")
			// The forger's own connection, without the MasterKey.
			keyless := o
			keyless.MasterKey = secret.Bytes{}
			forger, err := reopen(t.Context(), at, keyless)
			if err != nil {
				t.Fatal(err)
			}
			forge(t, forger)
			if err := forger.Verify(t.Context()); err != nil && !errors.Is(err, ErrTampered) {
				t.Errorf("Verify = %v", err)
			}
			forger.Close()
			if name != "the key removed" { // the server has it
				if _, err := s.Register(t.Context(), registration("b", 2), nil, diskKey("k"), "x"); !errors.Is(err, ErrTampered) {
					t.Errorf("the running server signs: %v", err)
				}
			}
			s.Close()
			if again, err := reopen(t.Context(), at, o); !errors.Is(err, ErrTampered) {
				t.Errorf("Open = %v", err)
				if err == nil {
					again.Close()
				}
			}
		})
	}
}

// TestAuditOfOldStore: a store whose check value names no signing key yet gets
// one, once.
func TestAuditOfOldStore(t *testing.T) {
	for name, had := range map[string]string{
		"neither key nor head": "DELETE FROM meta WHERE name IN ('audit signing key', 'audit head')",
		"key and head":         "SELECT 1",
	} {
		s, at, o := newStore(t)
		mustRegister(t, s, registration("a", 1), "k")
		old, err := s.sealer.Seal(secret.New([]byte(oldCheckLabel)), valueLocation(checkName))
		if err != nil {
			t.Fatal(err)
		}
		edit(t, s, had)
		if _, err := s.db.Exec("UPDATE meta SET value = ? WHERE name = ?", old, checkName); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if s, err = reopen(t.Context(), at, o); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		key, err := s.AuditKey(t.Context(), o.MasterKey)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
		if s, err = reopen(t.Context(), at, o); err != nil || !key.Equal(s.master.log.key) {
			t.Fatalf("%s, opened again: the check value names %x, expected %x, %v", name, s.master.log.key, key, err)
		}
		edit(t, s, "DELETE FROM meta WHERE name = 'audit signing key'")
		s.Close()
		if _, err = reopen(t.Context(), at, o); !errors.Is(err, ErrTampered) {
			t.Errorf("%s, with the key removed: %v", name, err)
		}
	}
}

func TestCutAuditTailIsSeen(t *testing.T) {
	cut := func(t *testing.T, s *DB, query string) {
		t.Helper()
		if err := s.write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec(databasetest.Words("DROP TRIGGER IF EXISTS audit_delete; " + query))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("before start", func(t *testing.T) {
		s, path, o := newStore(t)
		mustRegister(t, s, registration("a", 1), "k")
		mustRegister(t, s, registration("b", 2), "k")
		cut(t, s, "DELETE FROM audit WHERE seq = 2")
		s.Close()
		if _, err := reopen(context.Background(), path, o); !errors.Is(err, ErrTampered) {
			t.Errorf("Open = %v", err)
		}
	})
	t.Run("while running", func(t *testing.T) {
		s, _, _ := newStore(t)
		mustRegister(t, s, registration("a", 1), "k")
		mustRegister(t, s, registration("b", 2), "k")
		cut(t, s, "DELETE FROM audit WHERE seq = 2")
		if _, err := s.Register(t.Context(), registration("c", 3), nil, diskKey("k"), "x"); !errors.Is(err, ErrTampered) {
			t.Errorf("Register = %v: the cut would be signed over", err)
		}
	})
	t.Run("head forged", func(t *testing.T) {
		s, path, o := newStore(t)
		mustRegister(t, s, registration("a", 1), "k")
		cut(t, s, "UPDATE meta SET value = CAST(replace(CAST(value AS TEXT), '\"sequence\":1', '\"sequence\":2') AS BLOB) WHERE name = 'audit head'")
		if _, err := s.AuditHead(t.Context()); !errors.Is(err, ErrTampered) {
			t.Errorf("AuditHead = %v", err)
		}
		s.Close()
		if _, err := reopen(context.Background(), path, o); !errors.Is(err, ErrTampered) {
			t.Errorf("Open = %v", err)
		}
	})
}

// TestHeadOfAnotherKey: a head that verifies, but by a key of somebody else's,
// stops the server at start.
func TestHeadOfAnotherKey(t *testing.T) {
	s, path, o := newStore(t)
	mustRegister(t, s, registration("a", 1), "k")
	h, err := s.AuditHead(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	public, forger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	h.PublicKey = public
	m, err := h.Message()
	if err != nil {
		t.Fatal(err)
	}
	h.Signature = ed25519.Sign(forger, m)
	b, err := json.Marshal(h)
	if err != nil || h.Verify() != nil {
		t.Fatalf("the forged head does not verify: %v, %v", err, h.Verify())
	}
	if _, err := s.db.Exec("UPDATE meta SET value = ? WHERE name = ?", b, auditHeadName); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if again, err := reopen(t.Context(), path, o); !errors.Is(err, ErrTampered) {
		t.Errorf("Open = %v", err)
		if err == nil {
			again.Close()
		}
	}
}

func TestHistory(t *testing.T) {
	s, _, o := newStore(t)
	start := o.Clock()
	record := func(number, id string, at time.Time, failed ...string) {
		t.Helper()
		r := kbs.SessionRecord{Session: number, WorkloadID: id, At: at, Granted: len(failed) == 0, Result: kbs.AttestationResult{TEE: kbs.SNP, Result: kbs.Affirming}}
		for _, f := range append(failed, "appraisal") {
			r.Result.Rules = append(r.Result.Rules, kbs.Rule{Rule: f, Pass: len(failed) == 0})
		}
		if err := s.RecordSession(t.Context(), r, number < "c"); err != nil {
			t.Fatal(err)
		}
	}
	record("a", "w1", start)
	record("b", "w1", start, "measurement", "debug")
	record("c", "w2", start.Add(time.Second), "signature")
	record("d", "w1", start.Add(2*time.Hour), "measurement")
	var got []string
	q := SessionQuery{}
	for range 3 {
		page, err := s.Sessions(t.Context(), q, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page {
			got = append(got, r.Session)
			q.Before, q.BeforeNumber = r.At, r.Session
		}
	}
	if want := "d c b a"; strings.Join(got, " ") != want {
		t.Errorf("sessions %v, expected %s", got, want)
	}
	if page, err := s.Sessions(t.Context(), SessionQuery{WorkloadID: "w2"}, 9); err != nil || len(page) != 1 || page[0].Session != "c" {
		t.Errorf("sessions of w2: %v, %v", page, err)
	}
	d, err := s.Denials(t.Context(), start)
	if err != nil || len(d) != 4 || d[0].Count != 1 || d[3].Rule != "measurement" || d[3].Hour.Sub(d[0].Hour) != 2*time.Hour {
		t.Errorf("denials %+v, %v", d, err)
	}
	record("e", "w1", start.Add(denialsKept+time.Hour), "x")
	if d, err := s.Denials(t.Context(), time.Unix(0, 0)); err != nil || len(d) != 2 {
		t.Errorf("denials after 90 days: %+v, %v", d, err)
	}
}

// TestCutTailOfAnother: a server signs nothing over what another signed, even
// if it never saw that entry itself.
func TestCutTailOfAnother(t *testing.T) {
	if !databasetest.OnPostgres() {
		t.Skip("TestCutTailOfAnother needs " + databasetest.PostgresURL)
	}
	for name, cut := range map[string]string{
		"entry":          "DELETE FROM audit WHERE seq = 3",
		"entry and head": "DELETE FROM audit WHERE seq > 1; DELETE FROM meta WHERE name = 'audit head'",
		"head":           "DELETE FROM meta WHERE name = 'audit head'",
	} {
		s, at, o := newStore(t)
		mustRegister(t, s, registration("a", 1), "k")
		mustRegister(t, s, registration("b", 2), "k")
		other, err := reopen(t.Context(), at, o)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		mustRegister(t, other, registration("c", 3), "k")
		edit(t, other, "DROP TRIGGER audit_delete; "+cut)
		if _, err := s.Register(t.Context(), registration("d", 4), nil, diskKey("k"), "x"); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: Register = %v", name, err)
		}
	}
}
