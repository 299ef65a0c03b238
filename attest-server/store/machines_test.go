package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestMachineHistory: the highest of each component is kept, also where the
// machine goes back; what hides its id is no machine, and neither is what was
// not authentic.
func TestMachineHistory(t *testing.T) {
	s, _, _ := newStore(t)
	id := strings.Repeat("ab", 64)
	n := 0
	see := func(id string, snp, microcode uint8, authentic bool, rules ...kbs.Rule) {
		t.Helper()
		n++
		claims, err := json.Marshal(map[string]any{"snp": map[string]any{"chip_id": id, "product": "Genoa", "reported_tcb": kbs.SNPTCB{SNP: snp, Microcode: microcode}}})
		if err != nil {
			t.Fatal(err)
		}
		err = s.RecordSession(t.Context(), kbs.SessionRecord{Session: fmt.Sprintf("%016d", n), WorkloadID: "w", At: time.UnixMilli(int64(n)).UTC(),
			Result: kbs.AttestationResult{TEE: kbs.SNP, Result: kbs.Contraindicated, Claims: claims, Rules: rules}}, authentic)
		if err != nil {
			t.Fatal(err)
		}
	}
	see(id, 27, 88, false)
	see(strings.Repeat("0", 128), 27, 88, true)
	see("", 27, 88, true)
	if _, err := s.Machine(t.Context(), id); !errors.Is(err, ErrNotFound) {
		t.Errorf("known by forged evidence: %v", err)
	}
	see(id, 27, 80, true, kbs.Rule{Rule: "advisory:AMD-SB-1"})
	see(id, 23, 84, true, kbs.Rule{Rule: "advisory:AMD-SB-2", Pass: true})
	m, err := s.Machine(t.Context(), id)
	if err != nil || *m.TCB != (kbs.SNPTCB{SNP: 23, Microcode: 84}) || *m.Highest != (kbs.SNPTCB{SNP: 27, Microcode: 84}) || !m.WentBack() ||
		strings.Join(m.Advisories, " ") != "AMD-SB-2" || m.FirstSeen.UnixMilli() != 4 || m.LastSeen.UnixMilli() != 5 {
		t.Errorf("%+v, %v", m, err)
	}
	see(id, 28, 90, true)
	if m, err := s.Machine(t.Context(), id); err != nil || m.WentBack() || len(m.Advisories) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	if page, err := s.Machines(t.Context(), "", 10); err != nil || len(page.Machines) != 1 || page.Next != "" {
		t.Errorf("%+v, %v", page, err)
	}
}
