package command

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/masterkey"
)

func TestAuditVerifySeesSignature(t *testing.T) {
	dir, _ := initDir(t)
	verify := func(args ...string) (string, error) {
		_, log, err := run(t.Context(), append([]string{"audit", "verify", "--data", dir}, args...)...)
		return log, err
	}
	log, err := verify()
	if err != nil || !strings.Contains(log, "signed up to entry 1 by key ") {
		t.Fatalf("verify: %q, %v", log, err)
	}
	key := log[strings.LastIndex(log, " ")+1 : len(log)-1]
	if _, err := verify("--public-key", key); err != nil {
		t.Errorf("--public-key %s: %v", key, err)
	}
	if _, err := verify("--public-key", strings.Repeat("0", 64)); err == nil {
		t.Error("another --public-key is accepted")
	}
	mustRun(t, "token", "create", "--data", dir, "--role", "auditor")
	if log, err := verify(); err != nil || !strings.Contains(log, "signed up to entry 1 ") || !strings.Contains(log, "entries 2 to 2 were written without the master key") {
		t.Errorf("verify with an unsigned entry: %q, %v", log, err)
	}
	master := filepath.Join(dir, masterkey.Name)
	if err := os.Rename(master, master+".away"); err != nil {
		t.Fatal(err)
	}
	if log, err := verify(); err != nil || !strings.Contains(log, "nobody vouches for") {
		t.Errorf("verify without the master key: %q, %v", log, err)
	}
	if err := os.Rename(master+".away", master); err != nil {
		t.Fatal(err)
	}
	for _, edit := range []string{
		"DELETE FROM audit WHERE seq = 2; DELETE FROM audit WHERE seq = 1",
		"DELETE FROM meta WHERE name = 'audit head'",
		"UPDATE audit SET actor = 'token/0f1e2d3c4b5a' WHERE seq = 2",
	} {
		copied := t.TempDir()
		if err := os.CopyFS(copied, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		os.Chmod(filepath.Join(copied, masterkey.Name), 0o600)
		db, err := sql.Open("sqlite", filepath.Join(copied, storeName))
		if err != nil {
			t.Fatal(err)
		}
		_, err = db.Exec("DROP TRIGGER audit_delete; DROP TRIGGER audit_update; " + edit)
		if db.Close(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := run(t.Context(), "audit", "verify", "--data", copied); err == nil {
			t.Errorf("not seen: %s", edit)
		}
	}
}
