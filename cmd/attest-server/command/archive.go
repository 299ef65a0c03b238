package command

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/witness"
	"github.com/ccrun/ccrun/cmd/face"
	"github.com/ccrun/ccrun/hint"
)

func (p Program) archiveCommand() *cli.Command {
	return &cli.Command{
		Name: "archive", Usage: "move old entries into a file, also while the server runs",
		Description: "The entries up to the last checkpoint that all witnesses of --config have seen (of a log without\n" +
			"witnesses: to its end), or up to --up-to, go into a new file, are read back from there, and are then cut off\n" +
			"the store, which keeps a signed base in their place. They are counted by 256. Killed, it can be run again\n" +
			"with the same file. Keep the file: `audit verify --archive FILE` checks it together with the log.\n\nExample:\n   " +
			p.Name + " audit archive --config /etc/attest-server/attest-server.toml --output /archive/audit-2026.jsonl",
		Flags: []cli.Flag{
			configFlag(), dataFlag(),
			&cli.StringFlag{Name: "output", Required: true, Usage: "`FILE` to write; no file is overwritten"},
			&cli.Int64Flag{Name: "up-to", Usage: "archive no entry after `SEQUENCE`"},
			face.FormatFlag(),
		},
		Action: p.archiveAudit,
	}
}

// auditArchive is what `audit archive` has archived, as --format shows it.
type auditArchive struct {
	First  int64  `json:"first"`
	Last   int64  `json:"last"`
	File   string `json:"file"`
	SHA256 string `json:"sha256"`
}

func (p Program) archiveAudit(c *cli.Context) error {
	if err := face.NoArgs(c); err != nil {
		return err
	}
	if c.Int64("up-to") < 0 {
		return face.Usagef("--up-to %d: expected a sequence number", c.Int64("up-to"))
	}
	cfg, err := storeConfig(c)
	if err != nil {
		return err
	}
	witnesses, err := openWitnesses(cfg.Witness, cfg.WitnessOptional)
	if err != nil {
		return err
	}
	return cfg.withUnlocked(c.Context, func(s *store.DB) error {
		// A witness that has seen less could be shown no proof afterwards.
		if len(witnesses) > 0 {
			if err := witness.Agreed(c.Context, s, witnesses); err != nil {
				return hint.With(fmt.Errorf("archiving: %w", err), "all witnesses must have seen what is cut: a witness that is gone for good is taken out of the configuration first")
			}
		}
		from, to, err := p.toArchive(c, s)
		if err != nil {
			return err
		}
		a, err := p.writeOrTake(c, s, from, to)
		if err != nil || a == nil {
			return err
		}
		return face.Print(c, *a, func(w io.Writer, a auditArchive) error {
			_, err := fmt.Fprintf(w, "%d-%d %s\n", a.First, a.Last, a.SHA256)
			return err
		})
	})
}

// toArchive is behind which entry to begin, and the last one to archive.
func (p Program) toArchive(c *cli.Context, s *store.DB) (from, to int64, err error) {
	from, to, err = s.CanArchive(c.Context)
	if err != nil || !c.IsSet("up-to") {
		return from, to, err
	}
	upTo := c.Int64("up-to")
	if upTo -= upTo % 256; upTo > to {
		return 0, 0, hint.With(fmt.Errorf("--up-to %d: only entries up to %d can be archived", c.Int64("up-to"), to), "witnesses must have seen them: is this the server's --config?")
	}
	return from, max(from, upTo), nil
}

// writeOrTake writes the archive, or takes the one that is there if that was killed
// before the log was cut, and cuts the log. nil: there is nothing to archive.
func (p Program) writeOrTake(c *cli.Context, s *store.DB, from, to int64) (*auditArchive, error) {
	path := c.String("output")
	_, err := os.Lstat(path)
	switch {
	case err == nil:
		p.Note(c, "%s is there: going on with it", path)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("writing archive: %w", err)
	case from == to:
		p.Note(c, "nothing to archive: the log begins behind entry %d, and entries go by 256", from)
		return nil, nil
	default:
		if err := writeArchive(c, s, path, from, to); err != nil {
			return nil, fmt.Errorf("writing archive: %w", err)
		}
	}
	f, sum, err := readBack(path)
	if err != nil {
		return nil, err
	}
	end, _ := f.End()
	switch {
	case f.After > from:
		return nil, fmt.Errorf("archive %s begins behind entry %d, and the log behind entry %d: nothing is cut, what is between would be lost", path, f.After, from)
	case end <= from:
		return nil, hint.With(fmt.Errorf("archive %s ends with entry %d, and the log begins behind entry %d already", path, end, from), "name a new file")
	}
	if err := s.Cut(c.Context, f.Base(), fmt.Sprintf("in %.200s, SHA-256 %s", filepath.Base(path), sum)); err != nil {
		return nil, err
	}
	return &auditArchive{First: f.After + 1, Last: end, File: path, SHA256: sum}, nil
}

// writeArchive puts a whole archive at path, in one step that survives a power cut.
func writeArchive(c *cli.Context, s *store.DB, path string, from, to int64) error {
	part, err := openPart(path + ".part")
	if err != nil {
		return err
	}
	defer part.Close()
	err = part.Truncate(0)
	if err == nil {
		err = fillArchive(c, s, part, from, to)
	}
	if err == nil {
		err = part.Sync()
	}
	if err == nil {
		_, err = os.Lstat(path)
		if err == nil {
			err = fmt.Errorf("%s: %w", path, fs.ErrExist)
		} else if errors.Is(err, fs.ErrNotExist) {
			err = os.Rename(part.Name(), path)
		}
	}
	if err != nil {
		return errors.Join(err, os.Remove(part.Name()))
	}
	return syncDir(filepath.Dir(path))
}

// openPart opens a file in the making, which a killed process may have left, for
// this process alone.
func openPart(path string) (*os.File, error) {
	part, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(part.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("another process writes %s: %w", path, err), part.Close())
	}
	// Between opening and locking, that process may have made an archive of it.
	mine, err1 := part.Stat()
	there, err2 := os.Lstat(path)
	if err := errors.Join(err1, err2); err != nil || !os.SameFile(mine, there) {
		return nil, errors.Join(fmt.Errorf("another process has written %s just now", path), err, part.Close())
	}
	return part, nil
}

var errArchived = errors.New("the last entry to archive")

func fillArchive(c *cli.Context, s *store.DB, to io.Writer, from, last int64) error {
	hash, err := hashOf(c, s, last)
	if err != nil {
		return err
	}
	base, err := s.SignArchive(c.Context, last, hash)
	if err != nil {
		return err
	}
	before, err := s.Base(c.Context)
	if err != nil && !errors.Is(err, store.ErrNotFound) || before.Sequence != from {
		return errors.Join(err, fmt.Errorf("the log began behind entry %d just now, and begins behind entry %d: does another process archive it?", from, before.Sequence))
	}
	if from == 0 {
		before.Hash = hex.EncodeToString(make([]byte, sha256.Size))
	}
	w := bufio.NewWriterSize(to, 1<<20)
	err = kbs.WriteArchive(w, from, before.Hash, func(each func(kbs.AuditEntry) error) error {
		err := s.Audit(c.Context, from, func(e kbs.AuditEntry) error {
			if err := each(e); err != nil || e.Sequence < last {
				return err
			}
			return errArchived
		})
		if errors.Is(err, errArchived) {
			err = nil
		}
		return err
	}, base)
	return errors.Join(err, w.Flush())
}

// hashOf is the hash of entry n.
func hashOf(c *cli.Context, s *store.DB, n int64) (string, error) {
	page, err := s.AuditPage(c.Context, "", n-1, 1)
	if err == nil && (len(page.Entries) == 0 || page.Entries[0].Sequence != n) {
		err = fmt.Errorf("audit entry %d: %w", n, store.ErrNotFound)
	}
	if err != nil {
		return "", err
	}
	return page.Entries[0].Hash, nil
}

// readBack reads all of the archive at path, from the disk's point of view: what is
// not there must not be cut.
func readBack(path string) (f *archiveFile, sum string, err error) {
	if f, err = openArchive(path); err != nil {
		return nil, "", err
	}
	defer f.close()
	if err := f.each(func(kbs.AuditEntry) error { return nil }); err != nil {
		return nil, "", fmt.Errorf("reading archive %s: %w", path, err)
	}
	if _, err := f.file.Seek(0, io.SeekStart); err != nil {
		return nil, "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f.file); err != nil {
		return nil, "", fmt.Errorf("reading archive %s: %w", path, err)
	}
	return f, hex.EncodeToString(h.Sum(nil)), errors.Join(f.file.Sync(), syncDir(filepath.Dir(path)))
}
