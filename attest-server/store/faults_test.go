package store

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
	"github.com/ccrun/ccrun/secret"
)

// TestDiskFull lets the file grow no further in the middle of concurrent
// writes: each is refused or acknowledged, none lost, and with room again the
// store goes on.
func TestDiskFull(t *testing.T) {
	if databasetest.OnPostgres() {
		t.Skip("TestDiskFull limits SQLite's file")
	}
	s, _, _ := newStore(t)
	edit(t, s, "PRAGMA max_page_count = 40") // of the Writer's connection, until it has failed
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	full := 0
	var wg sync.WaitGroup
	for c := range 4 {
		wg.Go(func() {
			for i := range 50 {
				id := fmt.Sprintf("w%d-%d", c, i)
				r := registration(id)
				r.Image = strings.Repeat("x", 400)
				r.ReferenceValues.Measurements = []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{1, byte(c), byte(i)}}}
				created, err := s.Register(t.Context(), r, nil, diskKey("k"+id), "x")
				mu.Lock()
				if err != nil {
					full++
				} else {
					acknowledged[id] = created
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if full == 0 || len(acknowledged) == 0 {
		t.Fatalf("%d refused, %d acknowledged: the test shows nothing", full, len(acknowledged))
	}
	mustRegister(t, s, registration("after", 200), "k")
	for id := range acknowledged {
		w, err := s.Workload(t.Context(), id)
		if err != nil {
			t.Errorf("lost: %v", err)
			continue
		}
		if _, err := s.Release(t.Context(), id, w.Digest, Guest{Session: "n"}); err != nil {
			t.Error(err)
		}
	}
	if err := s.Audit(t.Context(), 0, func(AuditEntry) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestClosedStoreRefuses(t *testing.T) {
	s, _, _ := newStore(t)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Register(t.Context(), registration("a", 1), nil, diskKey("k"), "x"); err == nil {
		t.Error("Register after Close")
	}
}

func FuzzToken(f *testing.F) {
	o := Options{Rand: strings.NewReader(strings.Repeat("r", 1000)), Clock: (&clock{start}).Now, MasterKey: secret.New([]byte(strings.Repeat("k", masterkey.Size)))}
	s, err := Create(f.Context(), f.TempDir()+"/db", o)
	if err != nil {
		f.Fatal(err)
	}
	defer s.Close()
	f.Add("ccrun_000000000000_AAAA")
	f.Add("ccrun__")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := s.Authenticate(t.Context(), secret.New([]byte(text))); !errors.Is(err, ErrBadToken) {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
