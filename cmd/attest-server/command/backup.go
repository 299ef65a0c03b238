package command

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"
	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

// optionalNames are the files that a backup may be without: the CA's key and
// the master key may be kept elsewhere.
var optionalNames = []string{caKeyName, masterkey.Name}

// backupNames are the files of a backup, in order.
var backupNames = []string{storeName, caName, caKeyName, serverName, serverKeyName, masterkey.Name}

func (p Program) backupCommand() *cli.Command {
	return &cli.Command{
		Name:  "backup",
		Usage: "write an encrypted copy of the data directory, also while the server runs",
		Description: "The copy is a consistent one of the store, and the TLS identity; without the master key, which it is\n" +
			"worthless without, unless --with-master-key puts that in too: then whoever holds a recipient's identity\n" +
			"holds every secret. A master key wrapped by transit is always in it. Files are encrypted with age.\n\nExample:\n   " +
			p.Name + " backup --recipient age1... --output /backup/attest-server.age",
		Flags: []cli.Flag{
			configFlag(), dataFlag(),
			&cli.StringSliceFlag{Name: "recipient", Required: true, Usage: "age `RECIPIENT`, age1... (repeatable)"},
			&cli.StringFlag{Name: "output", Usage: "new `FILE` (default: standard output)"},
			&cli.BoolFlag{Name: "with-master-key", Usage: "put the master key into the backup"},
		},
		Action: p.backup,
	}
}

func (p Program) backup(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	recipients, err := age.ParseRecipients(strings.NewReader(strings.Join(c.StringSlice("recipient"), "\n")))
	if err != nil {
		return hint.With(face.Usagef("--recipient: %w", err), "`age-keygen -o FILE` makes an identity to keep elsewhere, and prints its recipient, age1...")
	}
	var hasKey bool
	write := func(w io.Writer) (err error) {
		hasKey, err = writeBackup(c, recipients, w)
		return err
	}
	if path := c.String("output"); path == "" {
		err = write(c.App.Writer)
	} else if err = newFile(path, 0o600, write); err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("writing backup: %w", err)
	}
	if hasKey {
		p.Note(c, "this backup has the master key in it: store and key together are every secret")
	} else {
		p.Note(c, "this backup is WITHOUT the master key: keep that too, apart from it, or nothing in it can ever be opened")
	}
	return nil
}

// writeBackup says whether the master key, or what transit makes it of, is in it.
func writeBackup(c *cli.Context, recipients []age.Recipient, to io.Writer) (hasKey bool, err error) {
	cfg, err := storeConfig(c)
	if err != nil {
		return false, err
	}
	enc, err := age.Encrypt(to, recipients...)
	if err != nil {
		return false, err
	}
	w := tar.NewWriter(enc)
	if err := addStore(c, w, cfg.Data); err != nil {
		return false, err
	}
	if hasKey, err = addMasterKey(c, w, cfg); err != nil {
		return false, err
	}
	return hasKey, errors.Join(w.Close(), enc.Close())
}

// addStore puts in a snapshot of the store and the files beside it.
func addStore(c *cli.Context, w *tar.Writer, dir string) error {
	if err := removeStale(dir); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(dir, backupPrefix)
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	mine, err := lockDir(temp)
	if err != nil {
		return err
	}
	defer mine.Close()
	snapshot := filepath.Join(temp, storeName)
	if err := withStore(c, func(s *store.DB) error { return s.Snapshot(c.Context, snapshot) }); err != nil {
		return err
	}
	for _, name := range backupNames[:len(backupNames)-1] {
		path := inDir(dir, name)
		if name == storeName {
			path = snapshot
		}
		if err := addFile(w, name, path); err != nil && !(errors.Is(err, fs.ErrNotExist) && slices.Contains(optionalNames, name)) {
			return err
		}
	}
	return nil
}

// backupPrefix begins the names of directories with a snapshot. Each is locked
// by its process, so that one whose process was killed can be told.
const backupPrefix = ".backup-"

// removeStale removes what killed backups left.
func removeStale(dir string) error {
	all, err := filepath.Glob(filepath.Join(dir, backupPrefix+"*"))
	for _, path := range all {
		f, locked := lockDir(path)
		if locked != nil {
			continue // another backup's, or gone meanwhile
		}
		err = errors.Join(err, os.RemoveAll(path), f.Close())
	}
	return err
}

// lockDir opens a directory that nobody else has locked.
func lockDir(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", path, err), f.Close())
	}
	return f, nil
}

// addMasterKey puts in the master key as its file has it, if that is wrapped,
// and in clear only if it was asked for; and says whether it did.
func addMasterKey(c *cli.Context, w *tar.Writer, cfg Config) (bool, error) {
	path := inDir(cfg.Data, masterkey.Name)
	ciphertext, err := masterkey.TransitCiphertext(path)
	if err == nil && ciphertext != "" {
		return true, addFile(w, masterkey.Name, path)
	}
	if !c.Bool("with-master-key") {
		return false, nil
	}
	k, err := cfg.loadMasterKey(c.Context)
	if err != nil {
		return false, err
	}
	defer k.Wipe()
	return true, addEntry(w, masterkey.Name, int64(k.Len()), bytes.NewReader(k.Reveal()))
}

func addFile(w *tar.Writer, name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return addEntry(w, name, info.Size(), f)
}

func addEntry(w *tar.Writer, name string, size int64, r io.Reader) error {
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: time.Now()}); err != nil {
		return err
	}
	_, err := io.Copy(w, r)
	return err
}
