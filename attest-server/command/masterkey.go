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
	"github.com/ccrun/ccrun/secret"
)

func (p Program) masterKeyCommand() *cli.Command {
	return &cli.Command{
		Name:        "master-key",
		Usage:       "replace the key that seals the store",
		Description: "Example:\n   " + p.Name + " master-key rotate --data /var/lib/attest-server",
		Subcommands: []*cli.Command{{
			Name: "rotate", Usage: "seal every secret under a new master key, also while the server runs",
			Description: "All or nothing, and can be run again if it was killed. A running server follows by itself. Backups and\n" +
				"copies of the store made before still open with the old key: destroy what you can. If the key is a\n" +
				"systemd credential, the new one is left in DIR/" + store.NextMasterKeyName + ": put it in the credential's place,\n" +
				"restart the server, then remove that file.\n\nExample:\n   " + p.Name + " master-key rotate",
			Flags: []cli.Flag{
				dataFlag(),
				&cli.StringFlag{Name: "master-key", Usage: "`FILE` with the key in use, if it is not in DIR"},
			},
			Action: p.rotateMasterKey,
		}},
	}
}

func (p Program) rotateMasterKey(c *cli.Context) error {
	if err := noArguments(c); err != nil {
		return err
	}
	dir, file := c.String("data"), c.String("master-key")
	old, err := currentMasterKey(dir, file)
	if err != nil {
		return err
	}
	defer old.Wipe()
	next, err := nextMasterKey(dir)
	if err != nil {
		return err
	}
	defer next.Wipe()
	if err := reseal(c.Context, dir, old, next); err != nil {
		return err
	}
	if file != "" || os.Getenv("CREDENTIALS_DIRECTORY") != "" {
		fmt.Fprintf(c.App.ErrWriter, "%s: the store is sealed under %s: put it in place of the old key, restart the server, then remove it\n",
			p.Name, inDir(dir, store.NextMasterKeyName))
		return nil
	}
	if err := os.Rename(inDir(dir, store.NextMasterKeyName), inDir(dir, store.MasterKeyName)); err != nil {
		return fmt.Errorf("replacing master key: %w", err)
	}
	return syncDir(dir)
}

func currentMasterKey(dir, file string) (secret.Bytes, error) {
	if file != "" {
		return store.ReadMasterKey(file)
	}
	return store.LoadMasterKey(os.Getenv("CREDENTIALS_DIRECTORY"), dir)
}

// nextMasterKey is on disk before anything is sealed under it. One that an
// earlier, killed rotation left is used: the store may be under it already.
func nextMasterKey(dir string) (secret.Bytes, error) {
	path := inDir(dir, store.NextMasterKeyName)
	k, err := store.ReadMasterKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	info, err := os.Stat(inDir(dir, storeName))
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("opening store: %w", err)
	}
	if k, err = store.NewMasterKey(rand.Reader); err != nil {
		return secret.Bytes{}, err
	}
	if err := writeNew(path, k.Reveal(), 0o600); err != nil {
		return secret.Bytes{}, fmt.Errorf("writing new master key: %w", err)
	}
	return k, errors.Join(sameOwner(path, info), syncDir(dir))
}

// reseal does nothing if the store is under next already.
func reseal(ctx context.Context, dir string, old, next secret.Bytes) error {
	open := func(k secret.Bytes) (*store.DB, error) {
		return store.Open(ctx, inDir(dir, storeName), store.Options{MasterKey: k, Rand: rand.Reader, Clock: time.Now})
	}
	s, err := open(old)
	if errors.Is(err, store.ErrWrongMasterKey) {
		if s, err := open(next); err == nil {
			return s.Close()
		}
	}
	if err != nil {
		return err
	}
	return errors.Join(s.RotateMasterKey(ctx, next, "local"), s.Close())
}
