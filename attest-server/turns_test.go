package attestserver

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/admin"
	"github.com/ccrun/ccrun/attest-server/budget"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// TestOwnersTakeNoGuestsTurn: while every turn of owners is taken, guests get
// their keys, and the other way round; and no kind of owners' work takes another's.
func TestOwnersTakeNoGuestsTurn(t *testing.T) {
	r := newRig(t, func(c *Config) { c.MaxVerifying = 1 })
	r.register("w1", 1)
	turns := r.server.owners.Turns
	// One slot of each kind, and nobody waits for it.
	*turns = admin.Turns{Reads: budget.NewSlots(1, 0), Changes: budget.NewSlots(1, 0), Resources: budget.NewSlots(1, 0), Rotations: budget.NewSlots(1, 0)}
	h, token := r.server.Handler(), text(r.admin.Token)
	call := func(method, path, body string) int {
		req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Authorization", "Bearer "+token)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		return w.Code
	}
	kinds := map[string]*budget.Slots{"reads": turns.Reads, "changes": turns.Changes, "resources": turns.Resources, "rotations": turns.Rotations}
	calls := map[string]func() int{
		"reads":     func() int { return call("GET", "/v1/audit", "") },
		"changes":   func() int { return call("POST", "/v1/workloads/none/revoke", "") },
		"resources": func() int { return call("DELETE", "/v1/resources/a/b/c", "") },
		"rotations": func() int { return call("POST", "/v1/workloads/none/rotate", `{"abort":{"rotation":"x"}}`) },
	}
	for taken, slots := range kinds {
		leave, err := slots.Enter(t.Context(), "greedy")
		if err != nil {
			t.Fatal(err)
		}
		for kind, call := range calls {
			if got := call(); (got == http.StatusServiceUnavailable) != (kind == taken) {
				t.Errorf("%s while all %s are taken: %d", kind, taken, got)
			}
		}
		c, req := r.guest("w1", 1)
		if _, err := c.Release(t.Context(), req); err != nil {
			t.Errorf("a guest while all %s are taken: %v", taken, err)
		}
		leave()
	}
	leave, err := r.server.engine.Slots.Enter(t.Context(), "greedy")
	if err != nil {
		t.Fatal(err)
	}
	defer leave()
	for kind, call := range calls {
		if got := call(); got == http.StatusServiceUnavailable {
			t.Errorf("%s while all appraisals are taken: %d", kind, got)
		}
	}
}

// TestDearKeyslotsAreRefusedUnopened: a keyslot that costs more than ours takes
// no turn from anybody, and is refused to its owner alone.
func TestDearKeyslotsAreRefusedUnopened(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	dear := kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: kbs.Keyslot{
		KeyBytes: 32, Area: make([]byte, 32*4000/4096*4096+4096), DigestSalt: make([]byte, 32), DigestIterations: 1000, Digest: make([]byte, 32),
		KDF: kbs.KeyslotKDF{Type: "argon2id", Salt: make([]byte, 32), Iterations: 4, MemoryKiB: 64<<10 + 1, Threads: 1},
	}}}
	if status, b := r.call("POST", "/v1/workloads/w1/rotate", text(r.admin.Token), dear); status != http.StatusBadRequest || !strings.Contains(string(b), "at most 4, 65536 and 1") {
		t.Errorf("%d %s", status, b)
	}
	if status, b := r.call("POST", "/v1/workloads/w1/rotate", text(r.token(store.Publisher)), dear); status != http.StatusForbidden {
		t.Errorf("another publisher: %d %s", status, b)
	}
	if w, err := r.store.Workload(t.Context(), "w1"); err != nil || w.Rotation != "" {
		t.Errorf("a rotation is staged: %q, %v", w.Rotation, err)
	}
}
