package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

func setEnv(t *testing.T, s *DB, id, name, value string) kbs.ConfigAnswer {
	t.Helper()
	a, err := s.ChangeConfig(t.Context(), id, kbs.ConfigChange{Set: kbs.WorkloadConfig{Env: map[string]string{name: value}}}, anyone)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestConfigVersions(t *testing.T) {
	s, path, _ := newStore(t)
	mustRegister(t, s, registration("w", 1), "k")
	if raw, err := s.ReleaseConfig(t.Context(), "w", digestOf(t, s, "w"), "n"); err != nil || string(raw.Reveal()) != "{}" {
		t.Fatalf("of none: %q, %v", raw.Reveal(), err)
	}
	for i := 1; i <= 7; i++ {
		for _, created := range []bool{true, false} { // the second is the same again
			if a := setEnv(t, s, "w", "A", fmt.Sprint("very-secret-", i)); a.Version != int64(i) || a.Created != created {
				t.Fatalf("ChangeConfig = %+v", a)
			}
		}
	}
	setEnv(t, s, "w", "B", "very-secret-b")
	raw, err := s.ReleaseConfig(t.Context(), "w", digestOf(t, s, "w"), "n")
	if err != nil || string(raw.Reveal()) != `{"env":{"A":"very-secret-7","B":"very-secret-b"}}` {
		t.Fatalf("ReleaseConfig = %q, %v", raw.Reveal(), err)
	}
	m, err := s.Config(t.Context(), "w")
	if err != nil || len(m.Versions) != versionsKept || m.Versions[0].Version != 8 || m.Versions[0].Releases != 1 || !slices.Equal(m.Versions[0].Env, []string{"A", "B"}) || m.Versions[0].Args != nil {
		t.Fatalf("Config = %+v, %v", m, err)
	}
	if strings.Contains(readAll(t, path), "very-secret") {
		t.Error("the file holds the value")
	}
	for _, want := range []error{nil, ErrNotFound} {
		if err := s.RemoveConfig(t.Context(), "w", anyone); !errors.Is(err, want) {
			t.Errorf("RemoveConfig = %v, expected %v", err, want)
		}
	}
	setEnv(t, s, "w", "A", "1")
	if err := s.Remove(t.Context(), "w", "x"); err != nil {
		t.Fatal(err)
	}
	mustRegister(t, s, registration("w", 1), "k")
	if raw, err := s.ReleaseConfig(t.Context(), "w", digestOf(t, s, "w"), "n"); err != nil || string(raw.Reveal()) != "{}" {
		t.Errorf("of a workload registered anew: %q, %v", raw.Reveal(), err)
	}
}

func TestConfigOwner(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("w", 1), "k") // by token/t
	change := kbs.ConfigChange{Set: kbs.WorkloadConfig{Env: map[string]string{"A": "1"}}}
	for by, want := range map[Caller]error{{Actor: "token/t"}: nil, {Actor: "y"}: ErrNotOwner, {}: ErrNotOwner, {Actor: "y", Any: true}: nil} {
		if _, err := s.ChangeConfig(t.Context(), "w", change, by); !errors.Is(err, want) {
			t.Errorf("ChangeConfig by %+v = %v, expected %v", by, err, want)
		}
	}
	if err := s.RemoveConfig(t.Context(), "w", Caller{Actor: "y"}); !errors.Is(err, ErrNotOwner) {
		t.Errorf("RemoveConfig = %v", err)
	}
	for name, c := range map[string]kbs.ConfigChange{
		"too large": {Set: kbs.WorkloadConfig{Env: map[string]string{"A": strings.Repeat("x", kbs.MaxConfigBytes)}}}, "unset what is not set": {Unset: []string{"B"}},
	} {
		if _, err := s.ChangeConfig(t.Context(), "w", c, anyone); !errors.Is(err, ErrBadConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.ChangeConfig(t.Context(), "none", change, anyone); !errors.Is(err, ErrNotFound) {
		t.Errorf("of no workload: %v", err)
	}
}

// TestConfigThatNobodyTakes: an owner learns at once that no guest of the workload
// would ask for it, and not by a variable that is missing.
func TestConfigThatNobodyTakes(t *testing.T) {
	const none, env, args = `{"policy":{"logs":"host"}}`, `{"policy":{"env_allow":["A"]}}`, `{"policy":{"args_allow":true}}`
	set := kbs.ConfigChange{Set: kbs.WorkloadConfig{Env: map[string]string{"A": "1"}}}
	for identity, want := range map[string]error{none: ErrBadConfig, `{}`: ErrBadConfig, env: nil, args: nil, "": nil, "no JSON": nil} {
		s, _, _ := newStore(t)
		var boot *kbs.Boot
		if identity != "" {
			boot = &kbs.Boot{Identity: []byte(identity)}
		}
		if _, err := s.Register(t.Context(), registration("w", 1), boot, secret.New([]byte("k")), "token/t"); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ChangeConfig(t.Context(), "w", set, anyone); !errors.Is(err, want) {
			t.Errorf("%s: %v, expected %v", identity, err, want)
		}
		if _, err := s.ChangeConfig(t.Context(), "w", kbs.ConfigChange{Replace: true}, anyone); err != nil {
			t.Errorf("%s: taking it back: %v", identity, err)
		}
		if identity != none {
			continue
		}
		// An older version's guests may still ask.
		edit(t, s, `INSERT INTO workloads(id, tee, image, registration, disk_key, registered_at, registered_by) SELECT 'w@1', tee, image, registration, disk_key, 0, '' FROM workloads`)
		if _, err := s.ChangeConfig(t.Context(), "w", set, anyone); err != nil {
			t.Errorf("with a version of which nothing is known: %v", err)
		}
	}
}

// TestReleaseConfigRefuses changes one thing about a release that is right.
func TestReleaseConfigRefuses(t *testing.T) {
	for name, x := range map[string]struct {
		change func(t *testing.T, s *DB, d *kbs.Digest)
		want   error
	}{
		"nothing":             {func(*testing.T, *DB, *kbs.Digest) {}, nil},
		"zero digest":         {func(_ *testing.T, _ *DB, d *kbs.Digest) { *d = kbs.Digest{} }, ErrChanged},
		"another's appraisal": {func(t *testing.T, s *DB, d *kbs.Digest) { *d = digestOf(t, s, "evil") }, ErrChanged},
		"revoked workload":    {func(t *testing.T, s *DB, _ *kbs.Digest) { s.Revoke(t.Context(), "w", "x") }, ErrRevoked},
		"removed workload":    {func(t *testing.T, s *DB, _ *kbs.Digest) { s.Remove(t.Context(), "w", "x") }, ErrNotFound},
		"another's configuration": {func(t *testing.T, s *DB, _ *kbs.Digest) {
			edit(t, s, `UPDATE configs SET value = (SELECT value FROM configs WHERE workload = 'evil') WHERE workload = 'w'`)
		}, ErrTampered},
		"an older version brought back": {func(t *testing.T, s *DB, _ *kbs.Digest) {
			edit(t, s, `UPDATE configs SET version = version + 10`)
		}, ErrTampered},
		"another's registration put in its place": {func(t *testing.T, s *DB, d *kbs.Digest) {
			edit(t, s, `UPDATE workloads SET registration = (SELECT registration FROM workloads WHERE id = 'evil') WHERE id = 'w'`)
			*d = digestOf(t, s, "evil")
		}, ErrTampered},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := newStore(t)
			for i, id := range []string{"w", "evil"} {
				mustRegister(t, s, registration(id, byte(i+1)), "k")
				setEnv(t, s, id, "A", id)
			}
			d := digestOf(t, s, "w")
			x.change(t, s, &d)
			raw, err := s.ReleaseConfig(t.Context(), "w", d, "n")
			if !errors.Is(err, x.want) || (raw.Len() != 0) != (x.want == nil) {
				t.Errorf("ReleaseConfig = %q, %v, expected %v", raw.Reveal(), err, x.want)
			}
		})
	}
}

// TestGuestReport: the first report of a session stays, and is audited.
func TestGuestReport(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("w", 1), "k")
	if err := s.RecordSession(t.Context(), kbs.SessionRecord{Session: "one", WorkloadID: "w", At: start, Granted: true}, true); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"variable A", "another"} {
		if err := s.ReportGuest(t.Context(), "w", "one", text); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := s.Session(t.Context(), "one"); err != nil || r.Refused != "variable A" {
		t.Errorf("%+v, %v", r, err)
	}
	entries := 0
	if err := s.Audit(t.Context(), 0, func(e AuditEntry) error {
		if e.Action == "guest.refuse" && e.Object == "w" {
			entries++
		}
		return nil
	}); err != nil || entries != 1 {
		t.Errorf("%d audit entries, %v", entries, err)
	}
}
