package command

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store"
)

// TestUpgradeWithKills: servers that start on the store of an earlier
// attest-server are killed while they upgrade it; in the end all is there. The
// stores are what those programs wrote (testdata/stores: `.dump` of SQLite,
// and the master key, which seals nothing else); vN is of schema version N.
func TestUpgradeWithKills(t *testing.T) {
	stores, err := filepath.Glob("testdata/stores/v*.sql")
	if err != nil || len(stores) < 3 {
		t.Fatalf("%v, %v: expected stores of several versions", stores, err)
	}
	kills := 3
	if os.Getenv("CCRUN_LONG") != "" {
		kills = 20
	}
	for _, dump := range stores {
		t.Run(strings.TrimSuffix(filepath.Base(dump), ".sql"), func(t *testing.T) {
			dir, _ := initDir(t)
			before := restoreDump(t, dir, dump)
			for range kills {
				killStarting(t, nil, time.Duration(rand.Int64N(int64(80*time.Millisecond))), "--data", dir)
			}
			cmd, _ := process(t, nil, "--data", dir)
			cmd.Process.Kill()
			_ = cmd.Wait()
			checkUpgraded(t, dir, before)
			mustRun(t, "audit", "verify", "--data", dir)
		})
	}
}

// restoreDump puts a dumped store, and its key, in the place of the one in dir,
// and returns what is in its audit log.
func restoreDump(t *testing.T, dir, dump string) (audit []string) {
	t.Helper()
	text, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(strings.TrimSuffix(dump, ".sql") + ".key")
	if err != nil {
		t.Fatal(err)
	}
	master, err := hex.DecodeString(string(bytes.TrimSpace(key)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(inDir(dir, masterkey.Name), master, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range storeFiles() {
		if err := os.Remove(inDir(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	db, err := sql.Open("sqlite", inDir(dir, storeName))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(string(text)); err != nil {
		t.Fatal(err)
	}
	rows, err := db.Query("SELECT hex(hash) FROM audit ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var hash string
		if err := rows.Scan(&hash); err != nil {
			t.Fatal(err)
		}
		audit = append(audit, strings.ToLower(hash))
	}
	return audit
}

// checkUpgraded knows what the programs were told that wrote the stores.
func checkUpgraded(t *testing.T, dir string, audit []string) {
	t.Helper()
	master, err := masterkey.Source{Dir: dir}.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := (Config{Data: dir}).openStore(t.Context(), store.Options{MasterKey: master})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	release := func(id string) (string, error) {
		w, err := s.Workload(t.Context(), id)
		if err != nil {
			return "", err
		}
		k, err := s.Release(t.Context(), id, w.Digest, store.Guest{Session: "n"})
		return string(k.Reveal()), err
	}
	if k, err := release("w1"); err != nil || k != "disk key of w1" {
		t.Errorf("w1: %q, %v", k, err)
	}
	if _, err := release("w2"); !errors.Is(err, store.ErrRevoked) {
		t.Errorf("w2, revoked: %v", err)
	}
	if _, err := release("w3"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("w3, removed: %v", err)
	}
	i := 0
	err = s.Audit(t.Context(), 0, func(e kbs.AuditEntry) error {
		if i < len(audit) && e.Hash != audit[i] {
			t.Errorf("audit entry %d is another", e.Sequence)
		}
		i++
		return nil
	})
	if err != nil || i < len(audit) {
		t.Errorf("%d audit entries of %d: %v", i, len(audit), err)
	}
	if strings.HasSuffix(t.Name(), "/v1") {
		return // which knew no tenants
	}
	if there, err := s.HasTenant(t.Context(), "acme"); err != nil || !there {
		t.Errorf("no tenant: %v", err)
	}
	w, err := s.Workload(t.Context(), "acme.w")
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.ReleaseResource(t.Context(), kbs.ResourceID{Repo: "acme", Type: "key", Tag: "db"}, "acme.w", w.Digest, "n")
	if err != nil || string(v.Reveal()) != "resource of acme" {
		t.Errorf("the resource: %q, %v", v.Reveal(), err)
	}
}
