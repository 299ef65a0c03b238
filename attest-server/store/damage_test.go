package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
)

// TestDamagedPages overwrites the file's pages one at a time, as a bad disk
// does: the store says so at start or at use, and never crashes, releases a
// wrong key, or takes a broken audit chain for whole.
func TestDamagedPages(t *testing.T) {
	if databasetest.OnPostgres() {
		t.Skip("PostgreSQL keeps its own pages")
	}
	o := options(t)
	dir := t.TempDir()
	good := filepath.Join(dir, "good")
	fillStore(t, good, o)
	whole, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	random := rand.New(rand.NewPCG(1, 2))
	for name, harm := range map[string]func(b []byte){
		"zero":    func(b []byte) { clear(b) },
		"random":  func(b []byte) { harmRandom(random, b) },
		"header":  func(b []byte) { b[0] ^= 0x0d; b[3] ^= 0x01; b[5] ^= 0x0f },
		"one bit": func(b []byte) { b[random.IntN(len(b))] ^= 1 << random.IntN(8) },
	} {
		seen, tried := 0, 0
		for i := 0; i < len(whole)/page; i += damagedStep() {
			tried++
			b := append([]byte(nil), whole...)
			harm(b[i*page : (i+1)*page])
			place := filepath.Join(dir, fmt.Sprintf("%s %d", name, i))
			if err := os.Mkdir(place, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(place, "store")
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			err := useDamaged(t, path, o)
			os.RemoveAll(place)
			if err == nil {
				continue
			}
			seen++
			if s := err.Error(); errors.Is(err, ErrUnavailable) && !strings.Contains(s, "restore the last backup") && !strings.Contains(s, "look for disk errors") {
				t.Errorf("%s page %d: no next step in %v", name, i, err)
			}
		}
		t.Logf("%s: seen in %d of %d pages", name, seen, tried)
		if seen == 0 || (name == "zero" || name == "random") && seen < tried/3 { // many tables are empty: nobody reads their pages
			t.Errorf("%s: seen in %d of %d pages only", name, seen, tried)
		}
	}
}

// damagedStep is how many pages on the next one is that is damaged.
func damagedStep() int {
	if os.Getenv("CCRUN_LONG") != "" {
		return 1
	}
	return 5
}

func harmRandom(random *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(random.Uint32())
	}
}

func fillStore(t *testing.T, path string, o Options) {
	t.Helper()
	s, err := Create(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		id := fmt.Sprintf("w%d", i)
		r := registration(id, byte(i+1))
		r.Image = strings.Repeat("x", 500)
		mustRegister(t, s, r, "key of "+id)
		if _, err := s.OpenVolume(t.Context(), id, "data", digestOf(t, s, id), Guest{Session: "n"}, VolumeKey{Key: volumeKey(byte(i))}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// useDamaged returns the first complaint.
func useDamaged(t *testing.T, path string, o Options) error {
	t.Helper()
	s, err := Open(t.Context(), path, o)
	if err != nil {
		return err
	}
	defer s.Close()
	var complaint error
	for i := range 12 {
		id := fmt.Sprintf("w%d", i)
		w, err := s.Workload(t.Context(), id)
		if err == nil {
			k, err2 := s.Release(t.Context(), id, w.Digest, Guest{Session: "n"})
			if err = err2; err == nil && string(k.Reveal()) != "key of "+id {
				t.Errorf("%s: %s released as %q", path, id, k.Reveal())
			}
			g, err2 := s.OpenVolume(t.Context(), id, "data", w.Digest, Guest{Session: "n"}, VolumeKey{Key: volumeKey(99)})
			if err = errors.Join(err, err2); err2 == nil && g.Key[0] != byte(i) {
				t.Errorf("%s: %s has a volume of key %x", path, id, g.Key)
			}
		}
		complaint = errors.Join(complaint, err)
	}
	_, err = s.Register(t.Context(), registration("new", 99), nil, diskKey("k"), "x")
	complaint = errors.Join(complaint, err)
	n := 0
	err = s.Audit(t.Context(), 0, func(kbs.AuditEntry) error { n++; return nil })
	if err == nil && n < 12 {
		if _, err = s.AuditHead(t.Context()); err == nil {
			t.Errorf("%s: audit of %d entries is whole", path, n)
		}
	}
	return errors.Join(complaint, err)
}
