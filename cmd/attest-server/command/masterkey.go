package command

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/secret"
)

func (p Program) masterKeyCommand() *cli.Command {
	in := &cli.StringFlag{Name: "master-key", Usage: "`FILE` with the key in use, or \"-\" for standard input, if it is neither in DIR nor a credential"}
	return &cli.Command{
		Name:        "master-key",
		Usage:       "replace the key that seals the store",
		Description: "Example:\n   " + p.Name + " master-key rotate --data /var/lib/attest-server",
		Subcommands: []*cli.Command{
			{
				Name: "rotate", Usage: "seal every secret under a new master key, also while the server runs",
				Description: "All or nothing, and can be run again if it was killed. A running server follows by itself. Backups and\n" +
					"copies of the store made before still open with the old key: destroy what you can.\n" +
					"The new key goes into DIR; wrapped, if --config has [transit]; or where --master-key-out says. In that\n" +
					"last case put it in the credential's place and restart the server when it suits: until then the old key\n" +
					"leads to the new one by DIR/" + masterkey.NextName + ", which the server removes itself.\n\nExample:\n   " +
					p.Name + " master-key rotate --config /etc/attest-server/attest-server.toml",
				Flags: []cli.Flag{configFlag(), dataFlag(), in, masterKeyOutFlag(),
					&cli.BoolFlag{Name: "prepare", Usage: "only make DIR/" + masterkey.NextName + ", to be copied to all servers on one database; the next rotate takes it"}},
				Action: p.rotateMasterKey,
			},
			{
				Name: "rewrap", Usage: "have transit wrap the master key under the newest version of its own key",
				Description: "The master key stays. Afterwards the transit key's older versions can be retired.\n\nExample:\n   " +
					p.Name + " master-key rewrap --config /etc/attest-server/attest-server.toml",
				Flags:  []cli.Flag{configFlag(), dataFlag()},
				Action: p.rewrapMasterKey,
			},
		},
	}
}

func (p Program) rotateMasterKey(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	cfg, err := storeConfig(c)
	if err != nil {
		return err
	}
	place, err := newMasterKeyPlace(c, cfg)
	if err != nil {
		return err
	}
	from, err := masterKeySource(cfg, c.String("master-key"))
	if err != nil {
		return err
	}
	outside, err := from.Outside()
	if err != nil {
		return err
	}
	prepare := c.Bool("prepare")
	if outside && !prepare && place.inDir() && place.transit == nil {
		return face.Usagef("the key in use comes from outside %s: say with --master-key-out where the new one goes", cfg.Data)
	}
	old, err := from.Load(c.Context)
	if err != nil {
		return err
	}
	defer old.Wipe()
	next, err := resealed(c.Context, cfg, from, old, !prepare)
	if err != nil {
		return err
	}
	defer next.Wipe()
	if prepare {
		p.Note(c, "made %s, sealed under the key in use: copy it to the other servers' data directories, then run this again without --prepare",
			inDir(cfg.Data, masterkey.NextName))
		return nil
	}
	return p.settleMasterKey(c, cfg.Data, place, next)
}

// settleMasterKey puts the key that the store is under now into its place.
func (p Program) settleMasterKey(c *cli.Context, dir string, place *masterKeyPlace, master secret.Bytes) error {
	if !place.inDir() {
		if err := place.hand(master); err != nil {
			return err
		}
		p.Note(c, "the store is sealed under the new master key: put it in place of the old one and restart the server; keep %s until then",
			inDir(dir, masterkey.NextName))
		return nil
	}
	b, err := place.content(c.Context, master)
	if err != nil {
		return err
	}
	defer clear(b)
	info, err := owner(dir)
	if err != nil {
		return fmt.Errorf("replacing master key: %w", err)
	}
	if err := put(inDir(dir, masterkey.Name), b, info, 0o600); err != nil {
		return fmt.Errorf("replacing master key: %w", err)
	}
	if place.transit != nil {
		// A server that was started before [transit] was configured needs it.
		p.Note(c, "%s holds the new master key, wrapped by transit; if the server does not have [transit] yet, restart it with that when it suits",
			inDir(dir, masterkey.Name))
		return nil
	}
	if err := os.Remove(inDir(dir, masterkey.NextName)); err != nil {
		return fmt.Errorf("replacing master key: %w", err)
	}
	return syncDir(dir)
}

// resealed seals the store under another MasterKey and returns that key. It is
// on disk, sealed under the old one, before anything is sealed under it. One
// that an earlier rotation left when it was killed is used: the store may be
// under it already. Without seal the key is only made.
func resealed(ctx context.Context, cfg Config, from masterkey.Source, old secret.Bytes, seal bool) (next secret.Bytes, err error) {
	open := func(master secret.Bytes) (*store.DB, error) {
		return cfg.openStore(ctx, store.Options{MasterKey: master})
	}
	s, err := open(old)
	if errors.Is(err, store.ErrWrongMasterKey) {
		if next, e := from.Next(ctx, old); e == nil {
			if s, e := open(next); e == nil {
				return next, s.Close()
			}
		}
	}
	if err != nil {
		return next, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := from.Settle(ctx, old); err != nil {
		return next, err
	}
	next, err = from.Next(ctx, old)
	if errors.Is(err, fs.ErrNotExist) {
		next, err = makeNext(from.Dir, old)
	}
	if err != nil || !seal {
		return next, err
	}
	return next, s.RotateMasterKey(ctx, next, "local")
}

func makeNext(dir string, old secret.Bytes) (secret.Bytes, error) {
	next, err := masterkey.New(rand.Reader)
	if err != nil {
		return next, err
	}
	b, err := masterkey.SealNext(old, next, rand.Reader)
	if err != nil {
		return next, err
	}
	info, err := owner(dir)
	if err != nil {
		return next, fmt.Errorf("opening store: %w", err)
	}
	if err := put(inDir(dir, masterkey.NextName), b, info, 0o600); err != nil {
		return next, fmt.Errorf("writing the next master key: %w", err)
	}
	return next, nil
}

func (p Program) rewrapMasterKey(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	cfg, err := storeConfig(c)
	if err != nil {
		return err
	}
	t, err := cfg.Transit.open()
	if err != nil {
		return err
	}
	if t == nil {
		return face.Usagef("master-key rewrap: the configuration has no [transit]: name it with --config")
	}
	path := inDir(cfg.Data, masterkey.Name)
	ciphertext, err := masterkey.TransitCiphertext(path)
	if err != nil {
		return err
	}
	if ciphertext == "" {
		return fmt.Errorf("rewrapping: the key in %s is not wrapped: use `%s master-key rotate` to move to a new, wrapped one", path, p.Name)
	}
	master, err := t.Unwrap(c.Context, ciphertext)
	if err != nil {
		return err
	}
	defer master.Wipe()
	fresh, err := t.Rewrap(c.Context, ciphertext)
	if err != nil {
		return err
	}
	b, err := masterkey.Wrapped(c.Context, t, fresh, master)
	if err != nil {
		return err
	}
	return replace(path, b)
}
