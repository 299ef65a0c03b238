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
	"github.com/ccrun/ccrun/secret"
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

// createStore makes the store that cfg names, under master.
func (cfg Config) createStore(ctx context.Context, master secret.Bytes) (*store.DB, error) {
	o := store.Options{MasterKey: master, Rand: rand.Reader, Clock: time.Now}
	if cfg.Database == "" {
		return store.Create(ctx, inDir(cfg.Data, storeName), o)
	}
	p, err := cfg.postgres()
	if err != nil {
		return nil, err
	}
	defer p.Password.Wipe()
	return store.CreatePostgres(ctx, p, o)
}

// storeFiles are the names of a store's files in a data directory.
func storeFiles() []string { return []string{storeName, storeName + "-wal", storeName + "-shm"} }

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

// onStore is the action do, for commands with least to most arguments: names.
// The store is open without the master key, as these commands reveal no secret
// and seal none.
func onStore(least, most int, names string, do func(*cli.Context, *store.DB) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if err := face.Args(c, least, most, names); err != nil {
			return err
		}
		return withStore(c, func(s *store.DB) error { return do(c, s) })
	}
}

// withStore is onStore in the middle of an action.
func withStore(c *cli.Context, do func(*store.DB) error) error {
	cfg, err := storeConfig(c)
	if err != nil {
		return err
	}
	return cfg.withStore(c.Context, secret.Bytes{}, do)
}

// withStore opens the store, with its master key unless that is empty.
func (cfg Config) withStore(ctx context.Context, master secret.Bytes, do func(*store.DB) error) error {
	s, err := cfg.openStore(ctx, store.Options{MasterKey: master})
	if err != nil {
		return err
	}
	return errors.Join(do(s), s.Close())
}

// withUnlocked opens the store with its master key.
func (cfg Config) withUnlocked(ctx context.Context, do func(*store.DB) error) error {
	master, err := cfg.loadMasterKey(ctx)
	if err != nil {
		return err
	}
	defer master.Wipe()
	return cfg.withStore(ctx, master, do)
}
