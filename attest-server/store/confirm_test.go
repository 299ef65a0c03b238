package store

import (
	"errors"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

func reportID(n byte) []byte { return append(make([]byte, 31), n) }

// TestConfirmedGuestGetsNoKey: a VM gets its DiskKey, again if it asks, until
// it has confirmed; then neither that one nor a staged one, whatever its
// session and even if its workload was registered anew. Others still get it.
func TestConfirmedGuestGetsNoKey(t *testing.T) {
	s, path, o := newStore(t)
	reg := registration("w", 1)
	mustRegister(t, s, reg, "k")
	d := digestOf(t, s, "w")
	if _, err := s.StageRotation(t.Context(), "w", "x"); err != nil {
		t.Fatal(err)
	}
	guest := Guest{Session: "n1", ReportID: reportID(1)}
	for range 2 {
		if _, err := s.Release(t.Context(), "w", d, guest); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		if err := s.Confirm(t.Context(), "w", guest); err != nil {
			t.Fatal(err)
		}
	}
	again, err := reopen(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Unconfirmed(t.Context(), guest.ReportID); !errors.Is(err, ErrConfirmed) {
		t.Errorf("Unconfirmed = %v", err)
	}
	guest.Session = "n2"
	refused := func() {
		t.Helper()
		if k, err := again.Release(t.Context(), "w", d, guest); !errors.Is(err, ErrConfirmed) || k.Len() != 0 {
			t.Errorf("Release = %v", err)
		}
	}
	refused()
	if k, err := again.ReleaseStaged(t.Context(), "w", d, guest); !errors.Is(err, ErrConfirmed) || k.Len() != 0 {
		t.Errorf("ReleaseStaged = %v", err)
	}
	for _, other := range []Guest{{"n3", reportID(2)}, {"n4", nil}} {
		if _, err := again.Release(t.Context(), "w", d, other); err != nil {
			t.Errorf("%v: %v", other, err)
		}
	}
	if err := s.Remove(t.Context(), "w", "x"); err != nil {
		t.Fatal(err)
	}
	mustRegister(t, s, reg, "k")
	refused()
	if got := actions(t, s, "key.confirm"); got != 1 {
		t.Errorf("%d confirmations audited", got)
	}
	if got := actions(t, s, "key.refuse"); got != 3 {
		t.Errorf("%d refusals audited", got)
	}
}

func actions(t *testing.T, s *DB, action string) (n int) {
	t.Helper()
	if err := s.Audit(t.Context(), 0, func(e AuditEntry) error {
		if e.Action == action {
			n++
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestConfirmWithoutReportID: of a TD only the session knows, once.
func TestConfirmWithoutReportID(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("w", 1), "k")
	if err := s.RecordSession(t.Context(), kbs.SessionRecord{Session: "n", WorkloadID: "w", At: start}, true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Confirm(t.Context(), "w", Guest{Session: "n"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := actions(t, s, "key.confirm"); got != 1 {
		t.Errorf("%d confirmations audited", got)
	}
	if err := s.Unconfirmed(t.Context(), nil); err != nil {
		t.Errorf("Unconfirmed = %v", err)
	}
}

// TestConfirmationsAreBounded: a workload's first guests are forgotten for new
// ones, but none of the last year; and never another workload's.
func TestConfirmationsAreBounded(t *testing.T) {
	s, _, _ := newStore(t)
	now := &clock{start}
	s.confirmations.most, s.clock = 3, now.Now
	confirm := func(id string, n byte) error {
		return s.Confirm(t.Context(), id, Guest{Session: "n", ReportID: reportID(n)})
	}
	for n, id := range []string{"other", "w", "w", "w"} {
		if err := confirm(id, byte(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := confirm("w", 4); !errors.Is(err, ErrLimit) {
		t.Fatalf("one beyond the bound: %v", err)
	}
	if err := s.Unconfirmed(t.Context(), reportID(4)); err != nil {
		t.Errorf("kept, though refused: %v", err)
	}
	now.now = start.Add(longestGuest + time.Hour)
	for n := byte(4); n < 7; n++ {
		if err := confirm("w", n); err != nil {
			t.Fatal(err)
		}
	}
	if err := confirm("w", 7); !errors.Is(err, ErrLimit) {
		t.Errorf("one beyond the bound: %v", err)
	}
	for n := range byte(7) {
		err := s.Unconfirmed(t.Context(), reportID(n))
		if forgotten := n >= 1 && n <= 3; (err == nil) != forgotten {
			t.Errorf("guest %d: %v", n, err)
		}
	}
}

// TestMigrateConfirmations: the store of an older attest-server takes
// confirmations, of its old sessions too.
func TestMigrateConfirmations(t *testing.T) {
	s := migrated(t, 8, func(exec func(string, ...any)) {
		exec("INSERT INTO sessions(authentic, seq, number, workload, at, releases, record) VALUES(?,?,?,?,?,?,?)", 1, 1, "old", "w", unixMilli(start), 1, []byte(`{}`))
	})
	for _, g := range []Guest{{Session: "old"}, {Session: "n", ReportID: reportID(1)}} {
		if err := s.Confirm(t.Context(), "w", g); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Unconfirmed(t.Context(), reportID(1)); !errors.Is(err, ErrConfirmed) {
		t.Errorf("Unconfirmed = %v", err)
	}
	if got := actions(t, s, "key.confirm"); got != 2 {
		t.Errorf("%d confirmations audited", got)
	}
}
