package command

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	attestserver "github.com/ccrun/ccrun/attest-server"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/cmd/face"
)

// databasePasswordName is the systemd credential with the database's password.
const databasePasswordName = "database-password"

// openStore opens the store that cfg names.
func (cfg Config) openStore(ctx context.Context, o store.Options) (*store.DB, error) {
	if cfg.Database == "" {
		return store.Open(ctx, inDir(cfg.Data, storeName), o)
	}
	p, err := cfg.postgres()
	if err != nil {
		return nil, err
	}
	defer p.Password.Wipe()
	return store.OpenPostgres(ctx, p, o)
}

// databaseWait is how long serve waits for its database: after a power cut
// both machines start at once. A file is there or not: no wait makes it usable.
const databaseWait = time.Minute

// awaitStore is openStore for a server that starts.
func (d *server) awaitStore(c *cli.Context, o store.Options) (*store.DB, error) {
	for end := time.Now().Add(databaseWait); ; {
		s, err := d.cfg.openStore(c.Context, o)
		if d.cfg.Database == "" || !errors.Is(err, store.ErrUnavailable) || c.Bool("check-config") || time.Now().After(end) {
			return s, err
		}
		d.log.Warn("waiting for the database", "error", err)
		select {
		case <-c.Context.Done():
			return nil, err
		case <-time.After(2 * time.Second):
		}
	}
}

// createStore makes it. files are what it may leave in the data directory.
func (cfg Config) createStore(ctx context.Context, o store.Options) (s *store.DB, files []string, err error) {
	if cfg.Database == "" {
		path := inDir(cfg.Data, storeName)
		s, err := store.Create(ctx, path, o)
		return s, storeFiles(path), err
	}
	p, err := cfg.postgres()
	if err != nil {
		return nil, nil, err
	}
	defer p.Password.Wipe()
	s, err = store.CreatePostgres(ctx, p, o)
	return s, nil, err
}

func storeFiles(path string) []string { return []string{path, path + "-wal", path + "-shm"} }

func (cfg Config) postgres() (database.Postgres, error) {
	p := database.Postgres{DSN: cfg.Database}
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return p, nil
	}
	password, err := face.ReadSecretFile(inDir(dir, databasePasswordName))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, fmt.Errorf("reading the database's password: %w", err)
	}
	p.Password = password
	return p, nil
}

// owner is whose the files in the data directory are: the store's, or if that
// is in a database, the directory's.
func owner(dir string) (fs.FileInfo, error) {
	info, err := os.Stat(inDir(dir, storeName))
	if errors.Is(err, fs.ErrNotExist) {
		info, err = os.Stat(dir)
	}
	return info, err
}

// share has sessions shared among the servers on one database.
func (d *server) share(ctx context.Context, sc *attestserver.Config) error {
	if !d.store.Shared() {
		return nil
	}
	s, err := d.store.SessionSecret(ctx)
	if err != nil {
		return err
	}
	sc.Shared = &session.Shared{Secret: s, Store: d.store}
	warnings, err := d.store.Warnings(ctx)
	for _, w := range warnings {
		d.log.Warn("database: " + w)
	}
	return err
}
