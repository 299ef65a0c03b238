package store

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestEvidenceIsBounded: of each workload the latest is kept, forgeries push out
// forgeries alone, and nothing of what was granted or is too long is there.
func TestEvidenceIsBounded(t *testing.T) {
	s, _, _ := newStore(t)
	record := func(number, workload string, authentic, granted bool, size int) {
		t.Helper()
		r := kbs.SessionRecord{Session: number, WorkloadID: workload, At: start, Granted: granted, Result: kbs.AttestationResult{Result: kbs.Contraindicated}, Evidence: make([]byte, size)}
		if err := s.RecordSession(t.Context(), r, authentic); err != nil {
			t.Fatal(err)
		}
	}
	there := func(number string) bool {
		b, err := s.Evidence(t.Context(), number)
		if err != nil && !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		return err == nil && len(b) > 0
	}
	record("real", "w", true, false, 10)
	record("granted", "w", true, true, 10)
	record("long", "w", true, false, MaxKeptEvidence+1)
	record("other", "v", false, false, 10)
	for i := range evidencePerWorkload + 2 {
		record(fmt.Sprint("forged", i), "w", false, false, 10)
	}
	for number, want := range map[string]bool{"real": true, "granted": false, "long": false, "other": true, "forged0": false, "forged1": false, "forged2": true, "forged17": true, "": false} {
		if there(number) != want {
			t.Errorf("%q is there: %v", number, !want)
		}
	}
	edit(t, s, fmt.Sprintf("UPDATE evidence SET seq = seq + %d WHERE session = 'forged17'", evidenceInAll))
	record("last", "v", false, false, 10)
	if there("other") || there("forged2") || !there("last") || !there("real") {
		t.Error("the whole is not bounded, or not by its class")
	}
}
