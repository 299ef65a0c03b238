package store

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/attest-server/store/database/databasetest"
)

func readyStore(t *testing.T) (*DB, string, *clock) {
	t.Helper()
	o, c, at := options(t), &clock{now: time.Unix(1.8e9, 0)}, databasetest.Place(t)
	o.Clock = c.Now
	s, err := create(t.Context(), at, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, at, c
}

// TestReadyIsAsGoodAsAWrite: whatever would refuse a guest's attestation makes
// the store not ready, and it is ready again when that is over.
func TestReadyIsAsGoodAsAWrite(t *testing.T) {
	s, at, c := readyStore(t)
	mustRegister(t, s, registration("w", 1), "k")
	ready := func(name string, want bool) {
		t.Helper()
		c.now = c.now.Add(probeEvery)
		if err := s.Ready(t.Context()); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	behind := func(query string) { // past the Writer, as another program would
		t.Helper()
		if _, err := s.db.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	ready("at first", true)
	c.now = c.now.Add(-2*probeEvery - maxClockSkew)
	if err := s.Ready(t.Context()); !errors.Is(err, ErrClock) {
		t.Errorf("clock before the last audit entry: %v", err)
	}
	c.now = c.now.Add(2*probeEvery + maxClockSkew)
	ready("clock right again", true)
	if databasetest.OnPostgres() {
		behind("UPDATE store_version SET version = version + 1")
		ready("a newer schema", false)
		behind("UPDATE store_version SET version = version - 1")
		ready("the schema again", true)
		return
	}
	behind(fmt.Sprintf("PRAGMA user_version = %d", len(migrations)+1))
	ready("a newer schema", false)
	behind(fmt.Sprintf("PRAGMA user_version = %d", len(migrations)))
	ready("the schema again", true)
	edit(t, s, "PRAGMA query_only = 1") // of the Writer's connection, until it has failed
	ready("just written", true)
	ready("read-only", false)
	ready("to write again", true)
	size := fillDisk(t, at)
	if _, err := s.Register(t.Context(), registration("w2", 2), nil, diskKey("k"), "x"); err == nil {
		t.Fatal("the disk is not full: the test shows nothing")
	}
	// Noticed at once, without waiting for the next probe.
	c.now = c.now.Add(retryProbe)
	if err := s.Ready(t.Context()); err == nil {
		t.Error("full: ready")
	}
	ready("full, still", false)
	size(unix.RLIM_INFINITY)
	ready("with room again", true)
}

// fillDisk lets no file of this process grow beyond what the store's has. size
// sets another limit.
func fillDisk(t *testing.T, at string) (size func(uint64)) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	size = func(n uint64) {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: min(n, old.Max), Max: old.Max}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { size(old.Cur); signal.Reset(syscall.SIGXFSZ) })
	log, err := os.Stat(at + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	size(uint64(log.Size()))
	return size
}

// TestReadyCostsLittle: however often it is asked, a healthy store is written
// once in a while.
func TestReadyCostsLittle(t *testing.T) {
	s, _, c := readyStore(t)
	if err := s.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	before, _ := s.writer.Last()
	for range 99 {
		c.now = c.now.Add(probeEvery / 100)
		if err := s.Ready(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n, _ := s.writer.Last(); n != before {
		t.Errorf("%d writes within %s", n-before, probeEvery)
	}
}
