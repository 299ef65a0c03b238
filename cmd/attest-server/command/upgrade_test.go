package command

import (
	"bytes"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
)

// TestUpgradeWithKills: servers that start on the store of an earlier
// attest-server are killed while they upgrade it; in the end all is there. The
// stores are what those programs wrote (testdata/stores: `.dump` of SQLite,
// and the master key, which seals nothing else); vN is of schema version N. With a
// database for tests (databasetest) their tables and rows are put into PostgreSQL.
func TestUpgradeWithKills(t *testing.T) {
	t.Parallel()
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
			cfg := restored(t, dump)
			config := filepath.Join(t.TempDir(), "config.toml")
			text := ""
			if cfg.Database != "" {
				text = fmt.Sprintf("database = %q\n", cfg.Database)
			}
			writeConfig(t, config, cfg.Data, text)
			before := restoreDump(t, cfg, dump)
			for range kills {
				killStarting(t, nil, time.Duration(rand.Int64N(int64(80*time.Millisecond))), "--config", config)
			}
			cmd, _ := process(t, nil, "--config", config)
			cmd.Process.Kill()
			_ = cmd.Wait()
			checkUpgraded(t, cfg, before)
			mustRun(t, "audit", "verify", "--config", config)
		})
	}
}

// restored is a data directory with the key of a dumped store, whose place is empty.
func restored(t *testing.T, dump string) (cfg Config) {
	t.Helper()
	cfg.Data, _ = initDir(t)
	key, err := os.ReadFile(strings.TrimSuffix(dump, ".sql") + ".key")
	if err != nil {
		t.Fatal(err)
	}
	master, err := hex.DecodeString(string(bytes.TrimSpace(key)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(inDir(cfg.Data, masterkey.Name), master, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range storeFiles() {
		if err := os.Remove(inDir(cfg.Data, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if databasetest.OnPostgres() {
		cfg.Database = databasetest.Place(t)
	}
	return cfg
}

// restoreDump puts a dumped store into its place, and returns what is in its audit
// log.
func restoreDump(t *testing.T, cfg Config, dump string) (audit []string) {
	t.Helper()
	text, err := os.ReadFile(dump)
	if err != nil {
		t.Fatal(err)
	}
	driver, place, script := "sqlite", inDir(cfg.Data, storeName), string(text)
	if cfg.Database != "" {
		driver, place, script = "pgx", cfg.Database, forPostgres(t, script)
	}
	db, err := sql.Open(driver, place)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec(script); err != nil {
		t.Fatal(err)
	}
	rows, err := db.Query("SELECT hash FROM audit ORDER BY seq")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var hash []byte
		if err := rows.Scan(&hash); err != nil {
			t.Fatal(err)
		}
		audit = append(audit, hex.EncodeToString(hash))
	}
	return audit
}

// forPostgres is a dump of SQLite in PostgreSQL's words, as the earlier program had
// made the tables there.
func forPostgres(t *testing.T, dump string) string {
	t.Helper()
	var version int
	if _, err := fmt.Sscanf(dump, "PRAGMA user_version = %d;", &version); err != nil {
		t.Fatal(err)
	}
	_, dump, _ = strings.Cut(dump, "\n")
	dump = database.Schema{}.ForPostgres(strings.ReplaceAll(dump, "X'", `'\x`))
	var first, last []string // what refers to other tables comes last
	for statement := range strings.SplitAfterSeq(dump, ";\n") {
		switch words, _, _ := strings.Cut(statement, "("); {
		case strings.HasPrefix(statement, "CREATE TRIGGER"), strings.HasPrefix(statement, "BEGIN"), strings.HasPrefix(statement, "COMMIT"):
		case strings.Contains(words, "measurements"):
			last = append(last, statement)
		default:
			first = append(first, statement)
		}
	}
	return strings.Join(first, "") + strings.Join(last, "") + fmt.Sprintf(`
		CREATE FUNCTION audit_append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''audit is append-only''; END';
		CREATE TRIGGER audit_update BEFORE UPDATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
		CREATE TRIGGER audit_delete BEFORE DELETE OR TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_append_only();
		CREATE TABLE store_version(one BIGINT PRIMARY KEY CHECK (one = 1), version BIGINT NOT NULL);
		INSERT INTO store_version(one, version) VALUES(1, %d)`, version)
}

// checkUpgraded knows what the programs were told that wrote the stores.
func checkUpgraded(t *testing.T, cfg Config, audit []string) {
	t.Helper()
	master, err := masterkey.Source{Dir: cfg.Data}.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s, err := cfg.openStore(t.Context(), store.Options{MasterKey: master})
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
