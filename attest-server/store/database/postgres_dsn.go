package database

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ccrun/ccrun/secret"
)

// Postgres says where a PostgreSQL database is.
type Postgres struct {
	// DSN is a URL (postgres://USER@HOST/DATABASE?sslmode=verify-full) or
	// keywords (host=/run/postgresql dbname=attest), as libpq has them. It may
	// not hold a password: that is in the file of passfile= or PGPASSFILE.
	DSN string
	// Password, if any, takes precedence over those files.
	Password secret.Bytes
}

const connectTime = 5 * time.Second

var (
	keywordPassword = regexp.MustCompile(`(?i)(^|\s)password\s*=`)
	keywordSSLMode  = regexp.MustCompile(`(?i)(^|\s|[?&])sslmode\s*=`)
	keywordPassfile = regexp.MustCompile(`(?:^|\s)passfile\s*=\s*('(?:[^'\\]|\\.)*'|\S+)`)
)

func (p Postgres) config() (*pgx.ConnConfig, error) {
	if err := p.check(); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	cfg, err := pgx.ParseConfig(p.DSN)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	if p.Password.Len() != 0 {
		cfg.Password = string(p.Password.Reveal())
	}
	if err := checkTransport(cfg, p.DSN); err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	if cfg.ConnectTimeout == 0 || cfg.ConnectTimeout > connectTime {
		cfg.ConnectTimeout = connectTime
	}
	if cfg.ValidateConnect == nil { // of several hosts, the one that takes writes
		cfg.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "attest-server"
	}
	return cfg, nil
}

// check refuses passwords where others can read them.
func (p Postgres) check() error {
	if p.DSN == "" {
		return errors.New("empty, expected postgres://USER@HOST/DATABASE or keywords")
	}
	const instead = "put it into a file of mode 0600 in the form of pgpass and name that with passfile= or PGPASSFILE, or pass the systemd credential database-password"
	passfile := os.Getenv("PGPASSFILE")
	if strings.HasPrefix(p.DSN, "postgres://") || strings.HasPrefix(p.DSN, "postgresql://") {
		u, err := url.Parse(p.DSN)
		if err != nil {
			return errors.New("not a URL that can be read") // err would repeat it
		}
		if _, has := u.User.Password(); has || u.Query().Has("password") {
			return errors.New("holds a password: " + instead)
		}
		if f := u.Query().Get("passfile"); f != "" {
			passfile = f
		}
	} else {
		if keywordPassword.MatchString(p.DSN) {
			return errors.New("holds a password: " + instead)
		}
		if m := keywordPassfile.FindStringSubmatch(p.DSN); m != nil {
			passfile = strings.Trim(m[1], "'")
		}
	}
	if os.Getenv("PGPASSWORD") != "" {
		return errors.New("a password is in the environment variable PGPASSWORD, where other processes can read it: " + instead)
	}
	return checkPassfile(passfile)
}

// checkPassfile wants a password file to be its owner's alone, as libpq does.
func checkPassfile(path string) error {
	named := path != ""
	if !named {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil
		}
		path = filepath.Join(home, ".pgpass")
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if err != nil {
		return fmt.Errorf("password file: %w", err)
	}
	if m := info.Mode().Perm(); m&0o077 != 0 {
		return fmt.Errorf("password file %s has mode %04o, expected 0600: run chmod 0600 on it", path, m)
	}
	return nil
}

// checkTransport refuses to send what is stored over a network in clear, or to
// whoever answers, unless sslmode says so in so many words.
func checkTransport(cfg *pgx.ConnConfig, dsn string) error {
	if keywordSSLMode.MatchString(dsn) {
		return nil
	}
	local := func(host string) bool {
		return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" || host == "127.0.0.1" || host == "::1"
	}
	all := local(cfg.Host)
	for _, f := range cfg.Fallbacks {
		all = all && local(f.Host)
	}
	if !all {
		return errors.New("is on another machine and sslmode is not given: add sslmode=verify-full, and sslrootcert if its CA is not among the system's")
	}
	return nil
}
