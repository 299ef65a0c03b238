package store

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"errors"
	"testing"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// TestLogKeyOutlivesMasterKeys: the key that signs the log is drawn once. Another
// MasterKey seals the same one, and a log that was archived, or begun anew, keeps
// it; whoever knew it before can check what comes after.
func TestLogKeyOutlivesMasterKeys(t *testing.T) {
	s, at, o := newStore(t)
	fill(t, s, 300)
	before, err := s.LogKeys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	master := o.MasterKey
	s.master.reload = func() ([]secret.Bytes, error) {
		return []secret.Bytes{secret.New(bytes.Clone(master.Reveal()))}, nil
	}
	check := func(db *DB) {
		t.Helper()
		c := mustCheckpoint(t, db)
		if _, err := checkpoint.Open(c.Note, before); err != nil {
			t.Errorf("the key from before: %v", err)
		}
		h, err := db.AuditHead(t.Context())
		if k, keyErr := db.AuditKey(t.Context(), master); err != nil || keyErr != nil || !bytes.Equal(k, h.PublicKey) {
			t.Errorf("head signed by %x, expected %x: %v, %v", h.PublicKey, k, err, keyErr)
		}
	}
	for range 2 {
		next, err := masterkey.New(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		o.MasterKey = master
		other, err := reopen(t.Context(), at, o)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		if err := other.RotateMasterKey(t.Context(), secret.New(bytes.Clone(next.Reveal())), "local"); err != nil {
			t.Fatal(err)
		}
		master = next
		fill(t, s, 1) // the server that runs
		check(s)
		check(other)
	}
	fill(t, s, 300)
}

// TestAnotherLogKeyIsRefused: even one that somebody with the MasterKey has sealed.
// There is no change of the log's key, so there is none to be mistaken for one.
func TestAnotherLogKeyIsRefused(t *testing.T) {
	s, at, o := newStore(t)
	fill(t, s, 3)
	seed, err := drawSeed(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := s.sealer.Seal(seed, valueLocation(auditKeyName))
	if err != nil {
		t.Fatal(err)
	}
	k, err := asAuditKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	forger := headSigner{now: s.clock}
	if err := s.write(t.Context(), func(tx *sql.Tx) error {
		if _, err := tx.Exec("UPDATE meta SET value = ? WHERE name = ?", sealed, auditKeyName); err != nil {
			return err
		}
		h, err := chainEnd(tx)
		if err == nil {
			_, err = forger.signHead(tx, k, h)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Note(t.Context(), "test", "w", ""); !errors.Is(err, ErrTampered) {
		t.Errorf("a server that runs writes: %v", err)
	}
	if _, err := reopen(t.Context(), at, o); !errors.Is(err, ErrTampered) {
		t.Errorf("a server starts: %v", err)
	}
}
