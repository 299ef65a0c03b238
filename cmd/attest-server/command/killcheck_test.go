package command

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/keyslot"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// open opens the store of the server killed just now, as a server would.
func (k *killed) open() *store.DB {
	var cfg Config
	if err := cfg.read(k.config); err != nil {
		k.Fatal(err)
	}
	from, err := masterKeySource(cfg, "")
	if err != nil {
		k.Fatal(err)
	}
	master, err := from.Load(k.Context())
	if err != nil {
		k.Fatal(err)
	}
	s, err := cfg.openStore(k.Context(), store.Options{MasterKey: master,
		ReloadMasterKeys: func() ([]secret.Bytes, error) { return from.Reload(k.Context(), master) }})
	if err != nil {
		k.Fatal(err)
	}
	return s
}

// check compares the store of the server killed just now with what it said.
func (k *killed) check(round int) {
	s := k.open()
	defer s.Close()
	for _, id := range k.registered {
		w, err := s.Workload(k.Context(), id)
		if err != nil {
			k.Errorf("lost: %v", err)
			continue
		}
		if id == "rotated" {
			continue
		}
		if key, err := s.Release(k.Context(), id, w.Digest, store.Guest{Session: "n"}); err != nil || string(key.Reveal()) != "disk key of "+id {
			k.Errorf("%s: %v", id, err)
		}
		if err := s.Remove(k.Context(), id, "test"); err != nil { // a thousand rounds' would be many
			k.Error(err)
		}
	}
	k.registered = nil
	for _, a := range k.attempts {
		if a.granted {
			k.count(granted)
		} else {
			k.inFlight++
		}
	}
	k.checkAudit(s)
	if w, err := s.Workload(k.Context(), loadWorkload); err != nil || int(w.Released) < k.sum[fetched] || k.grants < k.sum[granted] {
		k.Errorf("%v, the store knows of %d releases and %d grants: %v", k.sum, w.Released, k.grants, err)
	}
	k.checkOwners(s)
	checkOpens(k.T, s, k.published, round)
}

// checkAudit follows the chain on from where it ended before. Whatever was
// acknowledged since must be in it.
func (k *killed) checkAudit(s *store.DB) {
	var since []kbs.AuditEntry
	err := s.Audit(k.Context(), k.entries, func(e kbs.AuditEntry) error {
		if e.Sequence != k.entries+1 {
			k.Errorf("audit entry %d follows entry %d", e.Sequence, k.entries)
		}
		if k.entries = e.Sequence; e.Action == "attest.grant" {
			k.grants++
		}
		since = append(since, e)
		return nil
	})
	if err != nil {
		k.Errorf("audit: %v", err)
	}
	for _, p := range k.owners.promised {
		if !slices.ContainsFunc(since, p.keeps) {
			k.Errorf("acknowledged, but not in the audit log: %+v", p)
		}
	}
	k.owners.promised = nil
}

func checkOpens(t *testing.T, s *store.DB, slot kbs.Keyslot, round int) {
	t.Helper()
	w, err := s.Workload(t.Context(), "rotated")
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range []func(context.Context, string, kbs.Digest, store.Guest) (secret.Bytes, error){s.Release, s.ReleaseStaged} {
		if k, err := release(t.Context(), "rotated", w.Digest, store.Guest{Session: "n"}); err == nil && keyslot.Opens(slot, k) == nil {
			return
		}
	}
	t.Fatalf("round %d: the published keyslot opens with no key there is", round)
}

// checkOwners compares the store with what owners and the operator were told.
func (k *killed) checkOwners(s *store.DB) {
	k.checkFates(s)
	for _, name := range k.owners.tenants {
		if there, err := s.HasTenant(k.Context(), name); err != nil || !there {
			k.Errorf("lost: tenant %s: %v", name, err)
		}
	}
	k.owners.tenants = nil
	if in, err := s.Configured(k.Context()); err != nil || !slices.Contains(k.owners.policies, in.Configuration) {
		k.Errorf("configuration %s in force, expected one of %v: %v", in.Configuration, k.owners.policies, err)
	}
	k.owners.policies = k.owners.policies[len(k.owners.policies)-1:] // the next server starts with it
	w, err := s.Workload(k.Context(), loadWorkload)
	if err != nil {
		k.Error(err)
		return
	}
	if len(k.owners.values) == 0 {
		return
	}
	v, err := s.ReleaseResource(k.Context(), stormResource(), loadWorkload, w.Digest, "n")
	switch got := string(v.Reveal()); {
	case errors.Is(err, store.ErrNotFound) && !k.owners.set: // none was ever acknowledged
	case err != nil || !slices.Contains(k.owners.values, got):
		k.Errorf("resource %q, expected one of %q: %v", got, k.owners.values, err)
	default:
		k.owners.values = []string{got}
	}
}

func (k *killed) checkFates(s *store.DB) {
	for id, fate := range k.owners.fates {
		w, err := s.Workload(k.Context(), id)
		gone := err != nil
		switch {
		case fate == isRemoved && !gone, fate == isRevoked && gone:
			k.Errorf("%s: %v, expected it %s", id, err, fate)
		case !gone && w.RevokedAt == nil:
			k.Errorf("%s: the revocation is lost", id)
		case !gone:
			if err := s.Remove(k.Context(), id, "test"); err != nil {
				k.Error(err)
			}
		}
	}
}

// witnessed is how many checkpoints the witness was told.
func (k *killed) witnessed() int {
	files, err := filepath.Glob(filepath.Join(k.owners.witness, "*.jsonl"))
	if err != nil || len(files) != 1 {
		k.Fatalf("the witness has %v, expected the file of one log: %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	if err != nil {
		k.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}
