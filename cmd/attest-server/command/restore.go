package command

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"filippo.io/age"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
)

func (p Program) restoreCommand() *cli.Command {
	return &cli.Command{
		Name:  "restore",
		Usage: "make a data directory from a backup",
		Description: "DIR must not exist, or be empty. What was registered, revoked or released since the backup is\n" +
			"forgotten: revoke again what was revoked, and see that limits count anew from there. Nothing is kept of a\n" +
			"backup that is damaged, whose store is not whole, or whose secrets the master key does not open. That key is\n" +
			"the backup's own, --master-key, or the credential master-key. With database in --config the store goes there, if it\n" +
			"holds none; the backup may be of a server that had its store in a file, and the other way round.\n\nExample:\n   " +
			p.Name + " restore --data /var/lib/attest-server --identity key.txt attest-server.age",
		ArgsUsage: "[FILE]",
		Flags: []cli.Flag{
			configFlag(), dataFlag(),
			&cli.StringFlag{Name: "identity", Required: true, Usage: "`FILE` with age identities"},
			&cli.StringFlag{Name: "master-key", Usage: "`FILE` with the master key, if the backup is without"},
			&cli.BoolFlag{Name: "without-master-key", Usage: "restore although no master key is at hand, and check no secret"},
		},
		Action: p.restore,
	}
}

func (p Program) restore(c *cli.Context) error {
	if err := face.Args(c, 0, 1, "one FILE, or standard input"); err != nil {
		return err
	}
	identities, err := readIdentities(c.String("identity"))
	if err != nil {
		return err
	}
	from := c.App.Reader
	if c.NArg() == 1 {
		f, err := os.Open(c.Args().First())
		if err != nil {
			return fmt.Errorf("reading backup: %w", err)
		}
		defer f.Close()
		from = f
	}
	cfg, err := storeConfig(c)
	if err != nil {
		return err
	}
	dir, err := makeDir(cfg.Data)
	if err != nil {
		return err
	}
	err = unpack(from, identities, dir)
	if err == nil {
		err = completeRestore(c, cfg, dir)
	}
	if err != nil {
		return dir.undo(fmt.Errorf("restoring: %w", err))
	}
	return p.restored(c, cfg, dir.path)
}

// restored says what can be done with the directory now.
func (p Program) restored(c *cli.Context, cfg Config, path string) error {
	from, err := masterKeySource(cfg, "")
	if err != nil {
		return err
	}
	outside, err := from.Outside()
	switch inside := exists(inDir(path, masterkey.Name)); {
	case err != nil:
		return err
	case inside:
		p.Note(c, "restored %s; start it with `%s serve --data %[1]s`", path, p.Name)
	case outside:
		p.Note(c, "restored %s, whose master key is the credential: start it with `%s serve --data %[1]s` by the unit that has it", path, p.Name)
	default:
		p.Note(c, "restored %s WITHOUT a master key: no secret was checked, and `%s serve` needs the key as the credential master-key or in %s",
			path, p.Name, inDir(path, masterkey.Name))
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func readIdentities(path string) ([]age.Identity, error) {
	b, err := bounded.File(path, maxSmallFile)
	if err != nil {
		return nil, fmt.Errorf("reading identities: %w", err)
	}
	defer clear(b)
	ids, err := age.ParseIdentities(bytes.NewReader(b))
	if err != nil {
		return nil, hint.With(fmt.Errorf("reading identities %s: %w", path, err), "it is to be the file that `age-keygen` wrote, with a line AGE-SECRET-KEY-1...")
	}
	return ids, nil
}

// maxSmallFile bounds every file of a backup but the store, and identities.
const maxSmallFile = 1 << 20

// unpack writes a backup's files into dir, each once and none of another
// name, and reads on to the end, where age proves the last of it.
func unpack(from io.Reader, identities []age.Identity, dir *newDir) error {
	plain, err := age.Decrypt(bufio.NewReader(from), identities...)
	if err != nil {
		return fmt.Errorf("decrypting backup: %w", err)
	}
	r := tar.NewReader(plain)
	h, err := r.Next()
	for _, name := range backupNames {
		if err != nil && err != io.EOF {
			return fmt.Errorf("reading backup: %w", err)
		}
		if (err == io.EOF || h.Name != name) && slices.Contains(optionalNames, name) {
			continue
		}
		if err == io.EOF {
			return fmt.Errorf("reading backup: it ends before %s: %w", name, io.ErrUnexpectedEOF)
		}
		if h.Name != name || h.Typeflag != tar.TypeReg || name != storeName && h.Size > maxSmallFile {
			return fmt.Errorf("backup holds %.40q of %d bytes, expected %s: not made by this program", h.Name, h.Size, name)
		}
		mode := os.FileMode(0o600)
		if name == caName || name == serverName {
			mode = 0o644
		}
		if err := dir.write(name, r, mode); err != nil {
			return fmt.Errorf("writing %s: %w", name, err)
		}
		h, err = r.Next()
	}
	if err != io.EOF {
		return errors.Join(err, errors.New("backup holds more than it should"))
	}
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return fmt.Errorf("reading backup: %w", err)
	}
	return nil
}

// completeRestore adds the master key and sees that the store is whole and
// opens with it.
func completeRestore(c *cli.Context, cfg Config, dir *newDir) error {
	if err := restoreMasterKey(c, cfg, dir); err != nil {
		return err
	}
	dir.files = append(dir.files, storeFiles()[1:]...)
	file := cfg
	file.Database = "" // the backup's store is in a file, whatever it was in
	if err := file.verifyStore(c.Context, c.Bool("without-master-key")); err != nil {
		return err
	}
	if cfg.Database != "" {
		if err := cfg.moveIntoDatabase(c.Context, file); err != nil {
			return err
		}
	}
	return dir.sync()
}

// restoreMasterKey puts the key of --master-key, if given, into dir.
func restoreMasterKey(c *cli.Context, cfg Config, dir *newDir) error {
	given := c.String("master-key")
	if given == "" {
		return nil
	}
	from, err := masterKeySource(cfg, given)
	if err != nil {
		return err
	}
	master, err := from.Load(c.Context)
	if err != nil {
		return err
	}
	defer master.Wipe()
	if err := dir.write(masterkey.Name, bytes.NewReader(master.Reveal()), 0o600); err != nil {
		return fmt.Errorf("writing master key: %w", err)
	}
	return nil
}

// verifyStore checks a store in a file with the master key, which may be
// missing only if unchecked says so.
func (cfg Config) verifyStore(ctx context.Context, unchecked bool) error {
	from, err := masterKeySource(cfg, "")
	if err != nil {
		return err
	}
	if exists(inDir(cfg.Data, masterkey.Name)) {
		from.Credentials = "" // the backup's own, or the one that was given
	}
	master, err := from.Load(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		if !unchecked {
			return hint.With(errors.New("the backup has no master key, and without that nobody can open its secrets"),
				"give --master-key FILE; or, if the key will come later, --without-master-key")
		}
		err = nil
	}
	if err != nil {
		return err
	}
	defer master.Wipe()
	return cfg.withStore(ctx, master, func(s *store.DB) error { return s.Verify(ctx) })
}

// moveIntoDatabase puts what the store in a file holds into the database that
// cfg names, which must hold none, and removes the file.
func (cfg Config) moveIntoDatabase(ctx context.Context, file Config) error {
	p, err := cfg.postgres()
	if err != nil {
		return err
	}
	defer p.Password.Wipe()
	if err := file.withStore(ctx, secret.Bytes{}, func(s *store.DB) error { return s.CopyToPostgres(ctx, p) }); err != nil {
		return err
	}
	for _, name := range storeFiles() {
		if err := os.Remove(inDir(cfg.Data, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the database holds the store now, but its copy could not be removed: %w", err)
		}
	}
	return nil
}
