package store

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

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

// TestConfigOfTheDeleted: somebody who can write the database and register an image
// of his own under an id that is not taken any more gets nothing of what the
// workload had that had it before.
func TestConfigOfTheDeleted(t *testing.T) {
	for name, twist := range map[string]string{
		"its own incarnation": "UPDATE workloads SET id = id", "none": "UPDATE workloads SET incarnation = NULL",
		"the other's": "UPDATE workloads SET incarnation = (SELECT value FROM meta WHERE name = 'kept')",
	} {
		s, _, _ := newStore(t)
		mustRegister(t, s, registration("w", 1), "k")
		setEnv(t, s, "w", "A", "the victim's")
		to := Guest{Session: "n"}
		if _, err := s.OpenVolume(t.Context(), "w", "data", digestOf(t, s, "w"), to, VolumeKey{Key: secret.New(make([]byte, kbs.VolumeKeyBytes))}); err != nil {
			t.Fatal(err)
		}
		edit(t, s, "INSERT INTO meta(name, value) SELECT 'kept', incarnation FROM workloads")
		edit(t, s, "CREATE TABLE aside AS SELECT * FROM configs")
		edit(t, s, "DELETE FROM workloads WHERE id = 'w'")
		mustRegister(t, s, registration("w", 2), "evil")
		edit(t, s, "INSERT INTO configs SELECT * FROM aside")
		edit(t, s, twist)
		d := digestOf(t, s, "w")
		if raw, err := s.ReleaseConfig(t.Context(), "w", d, "n"); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: configuration %q, %v", name, raw.Reveal(), err)
		}
		if g, err := s.OpenVolume(t.Context(), "w", "data", d, to, VolumeKey{Key: secret.New(make([]byte, kbs.VolumeKeyBytes))}); !errors.Is(err, ErrTampered) {
			t.Errorf("%s: volume %x, %v", name, g.Key, err)
		}
	}
}

// TestIncarnationOfBefore: what was kept when there were none still opens, and from
// then on by the incarnation alone.
func TestIncarnationOfBefore(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("w", 1), "k")
	edit(t, s, "UPDATE workloads SET incarnation = NULL")
	key := secret.New([]byte(strings.Repeat("v", kbs.VolumeKeyBytes)))
	if err := s.write(t.Context(), func(tx *sql.Tx) error {
		c := config{1, secret.New([]byte(`{"env":{"A":"1"}}`))}
		_, err := s.volumes.insertVolume(tx, "w", "data", "", key)
		return errors.Join(err, s.configs.insertConfig(tx, "w", c, "", "x"))
	}); err != nil {
		t.Fatal(err)
	}
	if m, err := s.Config(t.Context(), "w"); err != nil || len(m.Versions) != 1 {
		t.Errorf("shown: %+v, %v", m, err)
	}
	d := digestOf(t, s, "w")
	for range 2 {
		g, err := s.OpenVolume(t.Context(), "w", "data", d, Guest{Session: "n"}, VolumeKey{Key: secret.New(make([]byte, kbs.VolumeKeyBytes))})
		if err != nil || string(g.Key) != string(key.Reveal()) {
			t.Errorf("volume: %q, %v", g.Key, err)
		}
		if raw, err := s.ReleaseConfig(t.Context(), "w", d, "n"); err != nil || string(raw.Reveal()) != `{"env":{"A":"1"}}` {
			t.Errorf("configuration: %q, %v", raw.Reveal(), err)
		}
	}
	edit(t, s, "UPDATE workloads SET incarnation = NULL")
	if raw, err := s.ReleaseConfig(t.Context(), "w", d, "n"); !errors.Is(err, ErrTampered) {
		t.Errorf("without its incarnation: %q, %v", raw.Reveal(), err)
	}
}

// TestReleaseConfigOfBefore: what no incarnation protects yet goes to the
// registration alone that is the server's own.
func TestReleaseConfigOfBefore(t *testing.T) {
	s, _, _ := newStore(t)
	for i, id := range []string{"w", "evil"} {
		mustRegister(t, s, registration(id, byte(i+1)), "k")
	}
	edit(t, s, "UPDATE workloads SET incarnation = NULL, registration = (SELECT registration FROM workloads WHERE id = 'evil') WHERE id = 'w'")
	if err := s.write(t.Context(), func(tx *sql.Tx) error {
		_, err := s.volumes.insertVolume(tx, "w", "data", "", secret.New(make([]byte, kbs.VolumeKeyBytes)))
		return errors.Join(err, s.configs.insertConfig(tx, "w", config{1, secret.New([]byte(`{"env":{"A":"1"}}`))}, "", "x"))
	}); err != nil {
		t.Fatal(err)
	}
	d := digestOf(t, s, "evil")
	if raw, err := s.ReleaseConfig(t.Context(), "w", d, "n"); !errors.Is(err, ErrTampered) {
		t.Errorf("configuration %q, %v", raw.Reveal(), err)
	}
	if g, err := s.OpenVolume(t.Context(), "w", "data", d, Guest{Session: "n"}, VolumeKey{Key: secret.New(make([]byte, kbs.VolumeKeyBytes))}); !errors.Is(err, ErrTampered) {
		t.Errorf("volume %x, %v", g.Key, err)
	}
}

// TestIncarnationStays while registrations come and go, and goes with the last.
func TestIncarnationStays(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("w", 1), "k")
	setEnv(t, s, "w", "A", "1")
	has := func(what string, d kbs.Digest) {
		t.Helper()
		if raw, err := s.ReleaseConfig(t.Context(), "w", d, "n"); err != nil || string(raw.Reveal()) != `{"env":{"A":"1"}}` {
			t.Errorf("%s: %q, %v", what, raw.Reveal(), err)
		}
	}
	first := digestOf(t, s, "w")
	if _, err := s.Replace(t.Context(), registration("w", 2), nil, secret.New([]byte("k2")), kbs.Replace{Expect: first, NotAfter: start.Add(time.Hour)}, "x"); err != nil {
		t.Fatal(err)
	}
	second := digestOf(t, s, "w")
	has("the version before", first)
	has("the next", second)
	more := registration("w", 2)
	more.ReferenceValues.Measurements = append(more.ReferenceValues.Measurements, registration("w", 3).ReferenceValues.Measurements...)
	if refused, err := s.Amend(t.Context(), []Amendment{{Workload: "w", From: second, To: more}}, "x"); err != nil || refused[0] != nil {
		t.Fatal(refused, err)
	}
	has("with another measurement", digestOf(t, s, "w"))
	if err := s.RotateMasterKey(t.Context(), secret.New([]byte(strings.Repeat("m", 32))), "x"); err != nil {
		t.Fatal(err)
	}
	has("under another MasterKey", digestOf(t, s, "w"))
	if err := s.Remove(t.Context(), "w@2", "x"); err != nil {
		t.Fatal(err)
	}
	has("the version before, again", first)
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
