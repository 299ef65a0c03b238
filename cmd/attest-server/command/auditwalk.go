package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// auditWalk goes along the whole log: through archives, then the store.
type auditWalk struct {
	tree   *treeCheck
	signed kbs.AuditHead
	base   kbs.AuditBase // sequence 0: nothing was archived
	expect string
	files  []*archiveFile

	seq            int64 // of the last entry
	hash           string
	head           string // of the chain, so far
	found, covered bool   // what was expected, and what was signed last
}

// newAuditWalk opens the archives, which must be of this log and lack nothing up to
// the base.
func newAuditWalk(c *cli.Context, s *store.DB, tree *treeCheck, signed kbs.AuditHead) (*auditWalk, error) {
	w := &auditWalk{tree: tree, signed: signed, expect: c.String("expect"), head: "0:"}
	var err error
	w.base, err = s.Base(c.Context)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if w.base.Sequence > 0 && string(w.base.PublicKey) != string(signed.PublicKey) {
		return nil, fmt.Errorf("audit base is signed by another key than the head: %w", store.ErrTampered)
	}
	for _, path := range c.StringSlice("archive") {
		f, err := openArchive(path)
		if err != nil {
			return nil, err
		}
		f.close() // opened again in its turn: there may be many
		w.files = append(w.files, f)
	}
	slices.SortFunc(w.files, func(a, b *archiveFile) int { return int(a.After - b.After) })
	w.found = w.expect == "" || w.expect == "0:"
	return w, nil
}

// all goes from the first entry at hand to the last.
func (w *auditWalk) all(c *cli.Context, s *store.DB) error {
	begin := w.base.Sequence
	if len(w.files) > 0 {
		begin, w.hash = w.files[0].After, w.files[0].Hash
	}
	if begin > w.base.Sequence {
		return fmt.Errorf("archive %s begins behind entry %d, and the log behind entry %d: what is between is in none", w.files[0].path, begin, w.base.Sequence)
	}
	if w.seq = begin; begin > 0 {
		if err := w.tree.skip(begin); err != nil {
			return err
		}
	}
	if begin == w.base.Sequence && begin > 0 {
		w.hash = w.base.Hash
		if err := w.atBase(); err != nil {
			return err
		}
	}
	for _, f := range w.files {
		if err := w.archive(f); err != nil {
			return fmt.Errorf("archive %s: %w", f.path, err)
		}
	}
	if w.seq < w.base.Sequence {
		return fmt.Errorf("entries %d to %d are in none of the archives, and were cut off the log: %w", w.seq+1, w.base.Sequence, kbs.ErrArchive)
	}
	return s.Audit(c.Context, 0, w.entry)
}

// archive goes through the entries of one file.
func (w *auditWalk) archive(f *archiveFile) error {
	if err := f.open(); err != nil {
		return err
	}
	defer f.close()
	switch {
	case f.After > w.seq:
		return fmt.Errorf("%w: it begins behind entry %d, and entries from %d on are in no other", kbs.ErrArchive, f.After, w.seq+1)
	case f.After == w.seq && !strings.EqualFold(f.Hash, w.hash) && w.seq > 0:
		return fmt.Errorf("%w: it follows entry %d with hash %s, and that is %s: it is of another log", kbs.ErrArchive, w.seq, f.Hash, w.hash)
	}
	if err := f.each(w.entry); err != nil {
		return err
	}
	if end, _ := f.End(); end < w.seq {
		return fmt.Errorf("%w: it ends with entry %d, and other archives have all of that: leave it out", kbs.ErrArchive, end)
	}
	return nil
}

// entry takes the next entry. Those that were seen already are in two archives, or
// in one and the store: the last of them must be the same.
func (w *auditWalk) entry(e store.AuditEntry) error {
	switch {
	case e.Sequence == w.seq && e.Hash != w.hash:
		return fmt.Errorf("entry %d is %s, and was %s: %w", e.Sequence, e.Hash, w.hash, store.ErrTampered)
	case e.Sequence <= w.seq:
		return nil
	case e.Sequence != w.seq+1:
		return fmt.Errorf("entry %d comes after entry %d: %w", e.Sequence, w.seq, store.ErrTampered)
	}
	w.seq, w.hash = e.Sequence, e.Hash
	w.head = fmt.Sprintf("%d:%s", e.Sequence, e.Hash)
	w.found = w.found || strings.EqualFold(w.head, w.expect)
	if err := w.tree.add(e); err != nil {
		return err
	}
	if e.Sequence == w.base.Sequence {
		return w.atBase()
	}
	w.covered = w.covered || e.Sequence == w.signed.Sequence && e.Hash == w.signed.Hash
	if w.covered && e.Sequence > w.signed.Sequence && !store.WrittenKeyless(e) {
		return fmt.Errorf("audit entry %d (%s by %s) is signed by nobody, and a server would have: %w", e.Sequence, e.Action, e.Actor, store.ErrTampered)
	}
	return nil
}

// atBase compares what was gone through with the base.
func (w *auditWalk) atBase() error {
	root := w.tree.tree.Root().String()
	if w.hash != w.base.Hash || root != w.base.Root {
		return fmt.Errorf("entry %d is %s with root %s, and the log goes on from %s, root %s: %w", w.base.Sequence, w.hash, root, w.base.Hash, w.base.Root, store.ErrTampered)
	}
	w.head = fmt.Sprintf("%d:%s", w.base.Sequence, w.base.Hash)
	w.found = w.found || strings.EqualFold(w.head, w.expect)
	return nil
}

// noteArchived says what was not at hand.
func (p Program) noteArchived(c *cli.Context, w *auditWalk) {
	begin := w.base.Sequence
	if len(w.files) > 0 {
		begin = w.files[0].After
	}
	if begin > 0 {
		p.Note(c, "entries up to %d are in archives, and were not checked: give each with --archive", begin)
	}
	if w.tree.older > 0 {
		p.Note(c, "%d checkpoints are of entries among those", w.tree.older)
	}
}

// archiveFile is an archive, open or not.
type archiveFile struct {
	path string
	file *os.File
	*kbs.ArchiveReader
}

func openArchive(path string) (*archiveFile, error) {
	f := &archiveFile{path: path}
	return f, f.open()
}

func (f *archiveFile) open() (err error) {
	if f.file, err = os.Open(f.path); err != nil {
		return fmt.Errorf("reading archive: %w", err)
	}
	if f.ArchiveReader, err = kbs.NewArchiveReader(f.file); err != nil {
		f.close()
		return fmt.Errorf("reading archive %s: %w", f.path, err)
	}
	return nil
}

func (f *archiveFile) close() { _ = f.file.Close() }

// each calls take with every entry, to the end.
func (f *archiveFile) each(take func(store.AuditEntry) error) error {
	for {
		e, err := f.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = take(e)
		}
		if err != nil {
			return err
		}
	}
}
