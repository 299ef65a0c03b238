package store

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// archived signs what stands for the entries up to number to.
func archived(t *testing.T, s *DB, to int64) kbs.AuditBase {
	t.Helper()
	var hash string
	if err := s.Audit(t.Context(), to-1, func(e AuditEntry) error {
		if e.Sequence == to {
			hash = e.Hash
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b, err := s.SignArchive(t.Context(), to, hash)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustCut(t *testing.T, s *DB, to int64) kbs.AuditBase {
	t.Helper()
	b := archived(t, s, to)
	if err := s.Cut(t.Context(), b, "in a test"); err != nil {
		t.Fatal(err)
	}
	return b
}

// cutStore has 600 entries and two servers, one of which knows of the first 100
// alone; behind entry 512 it is cut.
func cutStore(t *testing.T) (s, other *DB, at string, o Options, leaves [][]byte) {
	t.Helper()
	s, at, o = newStore(t)
	fill(t, s, 100)
	other, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	fill(t, s, 500)
	if err := s.Audit(t.Context(), 0, func(e AuditEntry) error {
		b, err := hex.DecodeString(e.Hash)
		leaves = append(leaves, b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	mustCut(t, s, 512)
	return s, other, at, o, leaves
}

// TestLogGoesOnBehindItsBase: after a cut the log, its tree and all proofs about
// what comes after are what they would have been, here, at a server that had not
// seen the half of it, and after a restart; and the table is append-only again.
func TestLogGoesOnBehindItsBase(t *testing.T) {
	s, other, at, o, leaves := cutStore(t)
	for _, db := range []*DB{other, s} {
		fill(t, db, 1)
	}
	s.Close()
	again, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	fill(t, again, 300)
	for _, db := range []*DB{other, again} {
		checkTree(t, db, leaves)
	}
	first := int64(0)
	if err := again.Audit(t.Context(), 0, func(e AuditEntry) error {
		if first == 0 {
			first = e.Sequence
		}
		return nil
	}); err != nil || first != 513 {
		t.Errorf("the log begins with entry %d, %v", first, err)
	}
	if err := again.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	for _, q := range []string{"DELETE FROM audit", "UPDATE audit SET actor = 'x'"} {
		if err := again.write(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(q); return err }); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", q, err)
		}
	}
	mustCut(t, other, 768) // again, by the other
	checkTree(t, again, leaves)
	fill(t, again, 1)
	edit(t, again, "DELETE FROM audit_tree WHERE level = 0") // as of 65536 entries ago
	if _, err := again.Consistency(t.Context(), 300, 1000); !errors.Is(err, checkpoint.ErrArchived) {
		t.Errorf("a proof from within what was archived long ago: %v", err)
	}
}

// checkTree compares db's checkpoint with the leaves that were cut and the
// entries that there are.
func checkTree(t *testing.T, db *DB, cut [][]byte) {
	t.Helper()
	base, err := db.Base(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var tree checkpoint.Tree
	for _, x := range cut[:min(base.Sequence, int64(len(cut)))] {
		tree.Append(x)
	}
	c, err := db.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if tree.Size() == base.Sequence {
		if err := db.Audit(t.Context(), 0, func(e AuditEntry) error {
			b, err := hex.DecodeString(e.Hash)
			if tree.Size() < c.Size {
				tree.Append(b)
			}
			return err
		}); err != nil || tree.Root() != c.Root {
			t.Errorf("%d entries have root %s, and the checkpoint of %d says %s: %v", tree.Size(), tree.Root(), c.Size, c.Root, err)
		}
	}
	for _, from := range []int64{base.Sequence, base.Sequence + 1, base.Sequence + 70} {
		root, err := db.RootAt(t.Context(), from)
		if err != nil {
			t.Fatal(err)
		}
		proof, err := db.Consistency(t.Context(), from, c.Size)
		if err == nil {
			err = tlog.CheckTree(proof, c.Size, c.Root, from, root)
		}
		if err != nil {
			t.Errorf("from %d: %v", from, err)
		}
	}
	var archived checkpoint.Tree
	for _, x := range cut[:300] {
		archived.Append(x)
	}
	proof, err := db.Consistency(t.Context(), 300, c.Size)
	if err == nil {
		err = tlog.CheckTree(proof, c.Size, c.Root, 300, archived.Root())
	}
	if err != nil {
		t.Errorf("from within the archive: %v", err)
	}
}

// TestBaseOfAnotherWay: a server whose last entry was archived goes on only behind a
// base of its own log. That of a log which others have led on from an older copy of
// the store is signed by the same key.
func TestBaseOfAnotherWay(t *testing.T) {
	for name, entries := range map[string]int{"a tile and more": 300, "a power of two": 511, "since the last tile": 300} { // and one that the store begins with
		t.Run(name, func(t *testing.T) {
			s, at, o := newStore(t)
			fill(t, s, entries)
			other, err := reopen(t.Context(), at, o)
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			fill(t, s, 300)
			var common []kbs.AuditEntry // of both ways
			if name == "since the last tile" {
				err := s.Audit(t.Context(), 0, func(e kbs.AuditEntry) error { common = append(common, e); return nil })
				if err != nil {
					t.Fatal(err)
				}
				common = common[:entries-10]
			}
			mustCut(t, s, 512)
			var own checkpoint.Tree
			remember := func(tree func(size int64) checkpoint.Tree) error {
				return other.write(t.Context(), func(*sql.Tx) error {
					h := &other.log.head.tree.Tree
					if own.Size() == 0 {
						own = h.Clone()
					}
					*h = tree(h.Size())
					return nil
				})
			}
			add := func() error {
				return other.write(t.Context(), func(tx *sql.Tx) error { return other.log.append(tx, "a", "b", "c", "d") })
			}
			err = remember(func(size int64) (x checkpoint.Tree) {
				for _, e := range common {
					leaf, err := hex.DecodeString(e.Hash)
					if err != nil {
						t.Fatal(err)
					}
					x.Append(leaf)
				}
				for x.Size() < size {
					x.Append([]byte("of another way"))
				}
				return x
			})
			if err == nil {
				if err := add(); !errors.Is(err, ErrTampered) {
					t.Errorf("it goes on: %v", err)
				}
				err = remember(func(int64) checkpoint.Tree { return own })
			}
			if err == nil {
				err = add()
			}
			if err != nil {
				t.Errorf("behind its own base: %v", err)
			}
		})
	}
}

// TestBaseIsHeldTo: who writes the database can put no other base there, none of
// his own, and take none away.
func TestBaseIsHeldTo(t *testing.T) {
	s, _, at, o, _ := cutStore(t)
	fill(t, s, 400)
	base, err := s.Base(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	later := archived(t, s, 768)
	s.Close()
	forge := func(change func(*kbs.AuditBase)) string {
		b := base
		change(&b)
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		return "UPDATE meta SET value = CAST('" + string(text) + "' AS BLOB) WHERE name = 'audit base'; "
	}
	own := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	sign := func(b *kbs.AuditBase) {
		b.PublicKey = own.Public().(ed25519.PublicKey)
		m, err := b.Message()
		if err != nil {
			t.Fatal(err)
		}
		b.Signature = ed25519.Sign(own, m)
	}
	cut := "DROP TRIGGER audit_delete; DELETE FROM audit WHERE seq <= 768; "
	for name, query := range map[string]string{
		"taken away":                    "DELETE FROM meta WHERE name = 'audit base'",
		"another's signature":           forge(func(b *kbs.AuditBase) { b.Signature = bytes.Repeat([]byte{1}, 64) }),
		"another key's":                 forge(sign),
		"another root":                  forge(func(b *kbs.AuditBase) { b.Root = later.Root }),
		"another key's, and a cut":      cut + forge(func(b *kbs.AuditBase) { b.Sequence, b.Hash, b.Root = later.Sequence, later.Hash, later.Root; sign(b) }),
		"a cut behind the base":         cut,
		"the tree of what was archived": "UPDATE audit_tree SET hash = x'0000000000000000000000000000000000000000000000000000000000000000' WHERE n = 0; DELETE FROM meta WHERE name = 'audit checkpoint'",
		"a base for what is there":      forge(func(b *kbs.AuditBase) { *b = later }),
	} {
		t.Run(name, func(t *testing.T) {
			copied := copyStore(t, at, o)
			raw, err := sql.Open("sqlite", copied)
			if err != nil {
				t.Fatal(err)
			}
			_, err = raw.Exec(query)
			if raw.Close(); err != nil {
				t.Fatal(err)
			}
			again, err := Open(t.Context(), copied, o)
			if err == nil {
				again.Close()
			}
			if !errors.Is(err, ErrTampered) {
				t.Errorf("Open = %v", err)
			}
		})
	}
}

// copyStore is a copy, in a file, of the store at at.
func copyStore(t *testing.T, at string, o Options) string {
	t.Helper()
	from, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	copied := t.TempDir() + "/store.db"
	if err := from.Snapshot(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	return copied
}

// TestArchiveRefuses: nothing is cut that witnesses have not seen, that is not
// there, or that is not what was archived.
func TestArchiveRefuses(t *testing.T) {
	s, at, o := newStore(t)
	fill(t, s, 300)
	c := mustCheckpoint(t, s)
	fill(t, s, 300)
	if from, to, err := s.CanArchive(t.Context()); err != nil || from != 0 || to != 512 {
		t.Errorf("without witnesses: %d to %d, %v", from, to, err)
	}
	late := archived(t, s, 512)
	if err := s.SetWitnessed(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if _, to, err := s.CanArchive(t.Context()); err != nil || to != 256 {
		t.Errorf("behind what witnesses have seen: %d, %v", to, err)
	}
	good := archived(t, s, 256)
	for name, b := range map[string]kbs.AuditBase{
		"not witnessed":     late,
		"not a tile's edge": {Sequence: 255, Hash: good.Hash},
		"beyond the end":    {Sequence: 1024, Hash: good.Hash},
		"of another log":    {Sequence: 256, Hash: late.Hash},
		"no hash":           {Sequence: 256, Hash: "x"},
	} {
		if err := s.Cut(t.Context(), b, ""); err == nil {
			t.Errorf("%s: cut", name)
		}
	}
	if _, err := s.Base(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Fatalf("a base after refusals: %v", err)
	}
	edit(t, s, "UPDATE audit_tree SET hash = x'0000000000000000000000000000000000000000000000000000000000000000' WHERE n = 0")
	if err := s.Cut(t.Context(), good, ""); !errors.Is(err, ErrTampered) {
		t.Errorf("with another tree: %v", err)
	}
	keyless := o
	keyless.MasterKey = secret.Bytes{}
	k, err := reopen(t.Context(), at, keyless)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.Cut(t.Context(), good, ""); !errors.Is(err, ErrLocked) {
		t.Errorf("without the master key: %v", err)
	}
}

// TestReadersAfterACut: pages say that there was more, tenants' cursors go on, and
// copies and other MasterKeys change nothing.
func TestReadersAfterACut(t *testing.T) {
	s, at, o := newStore(t)
	if err := s.SetTenant(t.Context(), "acme", 1, 1, "x"); err != nil {
		t.Fatal(err)
	}
	for range 300 {
		if err := s.Note(t.Context(), "test", "acme.w", ""); err != nil {
			t.Fatal(err)
		}
	}
	before, err := s.TenantAuditPage(t.Context(), "acme", "", 10)
	if err != nil || before.Archived != nil {
		t.Fatalf("%+v, %v", before, err)
	}
	base := mustCut(t, s, 256)
	page, err := s.AuditPage(t.Context(), "", 0, 10)
	if err != nil || page.Entries[0].Sequence != 257 || page.Archived == nil || !page.Archived.Equal(base.At) {
		t.Errorf("the first page: %+v, %v", page, err)
	}
	if page, err = s.AuditPage(t.Context(), "", 256, 10); err != nil || page.Archived != nil || page.Entries[0].Sequence != 257 {
		t.Errorf("a page behind the base: %+v, %v", page, err)
	}
	seen := 0
	for cursor := before.Cursor; ; cursor = page.Cursor {
		if page, err = s.TenantAuditPage(t.Context(), "acme", cursor, 10); err != nil {
			t.Fatal(err)
		}
		if seen == 0 && page.Archived == nil {
			t.Error("the tenant is not told that there was more")
		}
		if seen += len(page.Entries); page.Cursor == "" {
			break
		}
	}
	if seen != 301-256 {
		t.Errorf("the tenant read %d entries on", seen)
	}
	if err := s.RotateMasterKey(t.Context(), o.MasterKey, "x"); err != nil {
		t.Error(err)
	}
	if _, err := s.NewLog(t.Context(), "test"); err != nil {
		t.Error(err)
	}
	copied, err := Open(t.Context(), copyStore(t, at, o), o)
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if err := copied.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if again, err := copied.Base(t.Context()); err != nil || again.Root != base.Root {
		t.Errorf("the copy's base: %+v, %v", again, err)
	}
	fill(t, copied, 300)
}

// TestCutInParts: what is cut at once is bounded, and between two
// parts all is well.
func TestCutInParts(t *testing.T) {
	s, _, _ := newStore(t)
	fill(t, s, 2*cutAtOnce)
	to := archived(t, s, 2*cutAtOnce)
	var bases []int64
	for {
		done := false
		err := s.write(t.Context(), func(tx *sql.Tx) error {
			from, err := s.log.head.base(tx, s.log.head.key)
			if done = from.Sequence >= to.Sequence; err != nil || done {
				return err
			}
			return s.cutPart(tx, from, to, "", len(bases) == 0)
		})
		if err != nil {
			t.Fatal(err)
		}
		if done {
			break
		}
		b, err := s.Base(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		bases = append(bases, b.Sequence)
		if err := s.Verify(t.Context()); err != nil {
			t.Errorf("between parts: %v", err)
		}
		fill(t, s, 1)
	}
	if len(bases) != 2 || bases[0] != cutAtOnce {
		t.Errorf("bases %v", bases)
	}
}

// TestCutUnderAnotherMasterKey: the master key is rotated between writing an archive
// and cutting the log, and between two parts: who finds the new one goes on, who
// does not cuts nothing.
func TestCutUnderAnotherMasterKey(t *testing.T) {
	s, at, o := newStore(t)
	fill(t, s, 600)
	to := archived(t, s, 512)
	lost, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	defer lost.Close()
	admin, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	next, err := masterkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s.master.reload = func() ([]secret.Bytes, error) {
		return []secret.Bytes{secret.New(bytes.Clone(next.Reveal()))}, nil
	}
	if err := admin.RotateMasterKey(t.Context(), secret.New(bytes.Clone(next.Reveal())), "local"); err != nil {
		t.Fatal(err)
	}
	if err := lost.Cut(t.Context(), to, ""); !errors.Is(err, ErrWrongMasterKey) {
		t.Errorf("with the old master key: %v", err)
	}
	if _, err := s.Base(t.Context()); !errors.Is(err, ErrNotFound) {
		t.Errorf("it was cut: %v", err)
	}
	if err := s.Cut(t.Context(), to, ""); err != nil {
		t.Fatal(err)
	}
	o.MasterKey = next
	again, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Verify(t.Context()); err != nil {
		t.Error(err)
	}
}
