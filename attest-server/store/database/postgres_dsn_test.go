package database

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ccrun/ccrun/secret"
)

func TestDSN(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	for _, name := range []string{"PGPASSWORD", "PGPASSFILE", "PGHOST", "PGSSLMODE"} {
		t.Setenv(name, "")
	}
	open := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(open, []byte("*:*:*:*:from-file\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(t.TempDir(), "pgpass")
	if err := os.WriteFile(own, []byte("*:*:*:*:from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for dsn, want := range map[string]string{
		"":                                 "empty",
		"postgres://u:hunter2@localhost/d": "holds a password",
		"postgresql://u@localhost/d?password=hunter2": "holds a password",
		"host=/run/p password=hunter2":                "holds a password",
		"host=/run/p PASSWORD = 'hunter2'":            "holds a password",
		"postgres://u:hunter2@local host/d":           "not a URL",
		"host=/run/p passfile=" + open:                "mode 0644",
		"postgres:///d?host=/run/p&passfile=" + open:  "mode 0644",
		"host=/run/p passfile='" + open + "'":         "mode 0644",
		"postgres://u@db.example.com/d":               "sslmode",
		"host=localhost,db.example.com dbname=d":      "sslmode",
		"host=db.example.com":                         "sslmode",
		"host=/run/p passfile=/nonexistent":           "password file",
	} {
		_, err := Postgres{DSN: dsn}.config()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v, expected %q", dsn, err, want)
		}
	}
	for dsn, password := range map[string]string{
		"postgres://u@localhost/d": "", "host=/run/p user=u dbname=d passfile=" + own: "from-file",
		"postgres://u@db.example.com/d?sslmode=verify-full&passfile=" + own: "from-file",
		"host=10.0.0.1 sslmode=disable":                                     "",
	} {
		cfg, err := Postgres{DSN: dsn}.config()
		if err != nil || cfg.Password != password || cfg.ValidateConnect == nil || cfg.ConnectTimeout != connectTime {
			t.Errorf("%q: %v", dsn, err)
		}
	}
	cfg, err := Postgres{DSN: "host=/run/p passfile=" + own, Password: secret.New([]byte("from-credential"))}.config()
	if err != nil || cfg.Password != "from-credential" {
		t.Errorf("credential: %v", err)
	}
	t.Setenv("PGPASSWORD", "hunter2")
	if _, err := (Postgres{DSN: "host=/run/p"}).config(); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("PGPASSWORD: %v", err)
	}
}

func TestNumbered(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT 1":                          "SELECT 1",
		"a = ? AND b = ?":                   "a = $1 AND b = $2",
		"a = ?2 AND b = ?1 OR c = ?2":       "a = $2 AND b = $1 OR c = $2",
		"a = '?' AND b = ?":                 "a = '?' AND b = $1",
		"a = 'it''s ?' AND b = ? AND c='?'": "a = 'it''s ?' AND b = $1 AND c='?'",
		"VALUES(?,?,?,?,?,?,?,?,?,?,?)":     "VALUES($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11)",
	} {
		if got := numbered(query); got != want {
			t.Errorf("numbered(%q) = %q, expected %q", query, got, want)
		}
	}
}

func TestUnavailable(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, x := range []struct {
		ctx  context.Context
		err  error
		want bool
	}{
		{context.Background(), nil, false},
		{context.Background(), &net.OpError{Op: "dial", Err: errors.New("refused")}, true},
		{context.Background(), context.Canceled, true}, // our own timeout
		{ended, context.Canceled, false},               // the caller's
		{context.Background(), &pgconn.PgError{Code: "57P01"}, true},
		{context.Background(), fmt.Errorf("x: %w", &pgconn.PgError{Code: "53100"}), true},
		{context.Background(), &pgconn.PgError{Code: "25006"}, true},
		{context.Background(), &pgconn.PgError{Code: "23505"}, false},
		{context.Background(), &pgconn.PgError{Code: "42601"}, false},
	} {
		if err := unavailable(x.ctx, x.err); errors.Is(err, ErrUnavailable) != x.want || !errors.Is(err, x.err) && x.err != nil {
			t.Errorf("%v: %v", x.err, err)
		}
	}
}

// TestNobodyAnswers: a database that is not there, or takes connections and
// says nothing, costs a bounded time.
func TestNobodyAnswers(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, port := range []int{1, l.Addr().(*net.TCPAddr).Port} {
		start := time.Now()
		_, err := OpenPostgres(t.Context(), Postgres{DSN: fmt.Sprintf("host=127.0.0.1 port=%d user=u dbname=d sslmode=disable connect_timeout=1", port)}, Schema{})
		if !errors.Is(err, ErrUnavailable) || time.Since(start) > statementTimeout {
			t.Errorf("port %d: %v after %v", port, err, time.Since(start))
		}
	}
}
