package command

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/store/database"
	"github.com/ccrun/ccrun/cmd/face"
)

// databasePasswordName is the systemd credential with the database's password.
const databasePasswordName = "database-password"

// openStore opens the store that cfg names.
func (cfg Config) openStore(ctx context.Context, o store.Options) (*store.DB, error) {
	o.Rand, o.Clock = rand.Reader, time.Now
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

// withStore opens the store without its master key, which this needs not.
func withStore(c *cli.Context, do func(context.Context, *store.DB) error) error {
	cfg, err := storeConfig(c)
	if err != nil {
		return err
	}
	return cfg.withStore(c.Context, do)
}

func (cfg Config) withStore(ctx context.Context, do func(context.Context, *store.DB) error) error {
	s, err := cfg.openStore(ctx, store.Options{Rand: rand.Reader, Clock: time.Now})
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, s), s.Close())
}

// withOpenStore opens the store with the master key in its directory.
func (cfg Config) withOpenStore(ctx context.Context, do func(context.Context, *store.DB) error) error {
	keys, err := masterKeySource(cfg, "")
	if err != nil {
		return err
	}
	keys.Credentials = ""
	k, err := keys.Load(ctx)
	if err != nil {
		return err
	}
	defer k.Wipe()
	s, err := cfg.openStore(ctx, store.Options{MasterKey: k, Rand: rand.Reader, Clock: time.Now})
	if err != nil {
		return err
	}
	return errors.Join(do(ctx, s), s.Close())
}
