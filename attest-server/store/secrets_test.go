package store

import (
	"errors"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// TestReleaseSecretsRefuses changes one thing about a release that is right.
func TestReleaseSecretsRefuses(t *testing.T) {
	for name, x := range map[string]struct {
		change func(t *testing.T, s *DB, d *kbs.Digest)
		want   error
	}{
		"nothing":             {func(*testing.T, *DB, *kbs.Digest) {}, nil},
		"zero digest":         {func(_ *testing.T, _ *DB, d *kbs.Digest) { *d = kbs.Digest{} }, ErrChanged},
		"another's appraisal": {func(t *testing.T, s *DB, d *kbs.Digest) { *d = digestOf(t, s, "evil") }, ErrChanged},
		"revoked workload":    {func(t *testing.T, s *DB, _ *kbs.Digest) { s.Revoke(t.Context(), "w", "x") }, ErrRevoked},
		"removed workload":    {func(t *testing.T, s *DB, _ *kbs.Digest) { s.Remove(t.Context(), "w", "x") }, ErrNotFound},
		"another's registration put in its place": {func(t *testing.T, s *DB, d *kbs.Digest) {
			edit(t, s, `UPDATE workloads SET registration = (SELECT registration FROM workloads WHERE id = 'evil') WHERE id = 'w'`)
			*d = digestOf(t, s, "evil")
		}, ErrTampered},
		"policy edited": {func(t *testing.T, s *DB, _ *kbs.Digest) {
			edit(t, s, `UPDATE resources SET policy = CAST('{"workloads":["w","x"]}' AS BLOB)`)
		}, ErrTampered},
		"value of another resource": {func(t *testing.T, s *DB, _ *kbs.Digest) {
			edit(t, s, `UPDATE resources SET value = (SELECT value FROM resources WHERE tag = 'one') WHERE tag = 'two'`)
		}, ErrTampered},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := newStore(t)
			for i, id := range []string{"w", "evil"} {
				mustRegister(t, s, registration(id, byte(i+1)), "k")
			}
			ids := []kbs.ResourceID{resourceID(t, "acme/x/one"), resourceID(t, "acme/x/two"), resourceID(t, "acme/x/none")}
			for _, r := range ids[:2] {
				if _, err := s.PutResource(t.Context(), r, kbs.ResourcePolicy{Workloads: []string{"w"}}, diskKey("value of "+r.Tag), anyone); err != nil {
					t.Fatal(err)
				}
			}
			d := digestOf(t, s, "w")
			x.change(t, s, &d)
			all, err := s.ReleaseSecrets(t.Context(), ids, "w", d, "n")
			if !errors.Is(err, x.want) || (len(all) == 3) != (x.want == nil) {
				t.Fatalf("%d secrets, %v, expected %v", len(all), err, x.want)
			}
			if err != nil {
				return
			}
			for i, want := range []string{"value of one", "value of two", ""} {
				if v := all[i]; v.Resource != ids[i] || string(v.Value.Reveal()) != want || errors.Is(v.Refused, ErrNotFound) != (want == "") {
					t.Errorf("%d: %s, %d bytes, %v", i, v.Resource, v.Value.Len(), v.Refused)
				}
			}
		})
	}
}
