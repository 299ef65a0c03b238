package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/ccrun/ccrun/attest-server/checkpoint"
	"github.com/ccrun/ccrun/secret"
)

// fill appends n entries.
func fill(t testing.TB, s *DB, n int) {
	t.Helper()
	err := s.write(context.Background(), func(tx *sql.Tx) (err error) {
		for i := 0; i < n && err == nil; i++ {
			err = s.log.append(tx, "x", "test", fmt.Sprint(i), "")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// naive is the tree as RFC 6962 defines it, from the entries alone.
func naive(t *testing.T, s *DB, size int64) checkpoint.Tree {
	t.Helper()
	var tree checkpoint.Tree
	if err := s.Audit(t.Context(), 0, func(e AuditEntry) error {
		if b, err := hex.DecodeString(e.Hash); err != nil {
			return err
		} else if tree.Size() < size {
			tree.Append(b)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return tree
}

func mustCheckpoint(t *testing.T, s *DB) checkpoint.Signed {
	t.Helper()
	c, err := s.Checkpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := naive(t, s, c.Size).Root(); c.Root != want {
		t.Fatalf("checkpoint of %d entries has root %s, and they have %s", c.Size, c.Root, want)
	}
	return c
}

// TestCheckpointsFollowTheChain: over restarts, keyless entries and undone
// writes the tree is that of the entries, and earlier ones lead to later ones.
func TestCheckpointsFollowTheChain(t *testing.T) {
	s, at, o := newStore(t)
	seen := []checkpoint.Signed{mustCheckpoint(t, s)}
	if seen[0].Size != 0 {
		t.Fatalf("a new store's checkpoint: %+v", seen[0])
	}
	again := func() {
		t.Helper()
		s.Close()
		var err error
		if s, err = reopen(t.Context(), at, o); err != nil {
			t.Fatal(err)
		}
	}
	step := func(n int) {
		t.Helper()
		fill(t, s, n)
		seen = append(seen, mustCheckpoint(t, s))
	}
	step(3)
	again()
	step(255) // over the edge of a tile
	undone := errors.New("undone")
	if err := s.write(t.Context(), func(tx *sql.Tx) error {
		return errors.Join(s.log.append(tx, "x", "test", "undone", ""), undone)
	}); !errors.Is(err, undone) {
		t.Fatal(err)
	}
	step(1)
	keyless := o
	keyless.MasterKey = secret.Bytes{}
	other, err := reopen(t.Context(), at, keyless)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, _, err := other.CreateToken(t.Context(), "", Auditor, "", time.Time{}, "local"); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Checkpoint(t.Context()); err != nil || c.Size != 259 {
		t.Fatalf("with an entry that nobody signed: %+v, %v", c, err)
	}
	step(1)
	again()
	step(300)
	last := seen[len(seen)-1]
	if last.Size != 562 {
		t.Fatalf("%d entries in the tree", last.Size)
	}
	for _, c := range seen {
		if root, err := s.RootAt(t.Context(), c.Size); err != nil || root != c.Root {
			t.Errorf("root at %d: %s, %v, expected %s", c.Size, root, err, c.Root)
		}
		proof, err := s.Consistency(t.Context(), c.Size, last.Size)
		if err != nil {
			t.Fatal(err)
		}
		if c.Size > 0 && c.Size < last.Size {
			if err := tlog.CheckTree(proof, last.Size, last.Root, c.Size, c.Root); err != nil {
				t.Errorf("from %d: %v", c.Size, err)
			}
		}
	}
	if _, err := s.Consistency(t.Context(), last.Size+1, last.Size); err == nil {
		t.Error("a proof that a log extends a longer one")
	}
	s.Close()
}

// TestTreeIsCheckedAtStart: what the store keeps of the tree is believed only
// where a checkpoint vouches for it.
func TestTreeIsCheckedAtStart(t *testing.T) {
	for name, x := range map[string]struct {
		edit string
		want error
	}{
		"a hash changed":         {"UPDATE audit_tree SET hash = x'0000000000000000000000000000000000000000000000000000000000000000' WHERE n = 0", ErrTampered},
		"a hash removed":         {"DELETE FROM audit_tree WHERE n = 1", ErrTampered},
		"a hash cut":             {"UPDATE audit_tree SET hash = x'00000000000000000000000000000000000000000000000000000000000000' WHERE n = 0", ErrTampered},
		"a checkpoint of others": {"UPDATE meta SET value = CAST(replace(CAST(value AS TEXT), 'ccrun', 'cCrun') AS BLOB) WHERE name = 'audit checkpoint'", ErrTampered},
		"entries behind it gone": {"DROP TRIGGER audit_delete; DELETE FROM audit WHERE seq > 515; UPDATE meta SET value = (SELECT value FROM meta WHERE name = 'test') WHERE name = 'audit head'", ErrTampered},
		"no checkpoint":          {"DELETE FROM meta WHERE name = 'audit checkpoint'", nil},
		"neither":                {"DELETE FROM meta WHERE name = 'audit checkpoint'; DELETE FROM audit_tree", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, at, o := newStore(t)
			fill(t, s, 515)
			edit(t, s, "INSERT INTO meta(name, value) SELECT 'test', value FROM meta WHERE name = 'audit head'")
			fill(t, s, 5)
			before := mustCheckpoint(t, s)
			edit(t, s, x.edit)
			s.Close()
			again, err := reopen(t.Context(), at, o)
			if !errors.Is(err, x.want) {
				t.Fatalf("Open = %v, expected %v", err, x.want)
			}
			if err == nil {
				defer again.Close()
				if c := mustCheckpoint(t, again); c.Checkpoint != before.Checkpoint {
					t.Errorf("made anew: %+v, expected %+v", c.Checkpoint, before.Checkpoint)
				}
			}
		})
	}
}

// TestNewLog: a log that begins anew has another name and all its entries, here,
// at another process, and after a restart; and an old copy has the old name.
func TestNewLog(t *testing.T) {
	s, at, o := newStore(t)
	fill(t, s, 300)
	first := mustCheckpoint(t, s)
	other, err := reopen(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for i := range 2 {
		want := first.Origin + fmt.Sprintf("/%d", i+1)
		if origin, err := s.NewLog(t.Context(), "because"); err != nil || origin != want {
			t.Fatalf("NewLog = %s, %v, expected %s", origin, err, want)
		}
		for name, db := range map[string]*DB{"here": s, "elsewhere": other} {
			if c := mustCheckpoint(t, db); c.Origin != want || c.Size != int64(301+i) {
				t.Errorf("%s: %+v", name, c)
			}
		}
	}
	fill(t, other, 256)
	s.Close()
	if s, err = reopen(t.Context(), at, o); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if c := mustCheckpoint(t, s); c.Origin != first.Origin+"/2" || c.Size != 558 {
		t.Errorf("after a restart: %+v", c)
	}
	if _, err := s.AuditKey(t.Context(), o.MasterKey); err != nil {
		t.Error(err)
	}
	keyless := o
	keyless.MasterKey = secret.Bytes{}
	k, err := reopen(t.Context(), at, keyless)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.NewLog(t.Context(), "because"); !errors.Is(err, ErrLocked) {
		t.Errorf("without the master key: %v", err)
	}
}

func FuzzLogIdentity(f *testing.F) {
	f.Add([]byte(oldCheckLabel))
	f.Add(append([]byte(checkLabel), make([]byte, 32)...))
	f.Add(append([]byte(logLabel), make([]byte, 68)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, ok := parseIdentity(b)
		if again, _ := parseIdentity(l.text()); ok && l.key != nil && again.origin() != l.origin() {
			t.Fatalf("%q is %+v, and again %+v", b, l, again)
		}
	})
}
