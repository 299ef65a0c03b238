package attestserver

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// version is request for the next version of workload id, with what it boots.
func (r *rig) version(id string, digest byte, expect kbs.Digest, until time.Time) kbs.RegisterRequest {
	req := bootRequest(id, digest)
	req.Boot.Identity = append(req.Boot.Identity, digest)
	req.Registration.IdentityDigest = kbs.Sum384(req.Boot.Identity)
	req.DiskKey = append(req.DiskKey, digest)
	req.Replace = &kbs.Replace{Expect: expect, NotAfter: until}
	return req
}

// versionKey is the DiskKey that a guest of that version gets.
func (r *rig) versionKey(req kbs.RegisterRequest, digest byte) (string, error) {
	c, q := r.guest(req.Registration.WorkloadID, digest)
	q.IdentityDigest = req.Registration.IdentityDigest
	k, err := c.Release(r.t.Context(), q)
	return string(k.Reveal()), err
}

// TestReplaceWorkload: old image and new start side by side, each with its own
// key, until the old one's end; firmware is added to both; revoking ends both.
func TestReplaceWorkload(t *testing.T) {
	r := newRig(t)
	one := bootRequest("w1", 1)
	b := r.registerBoot("w1", 1)
	until := r.clock.Now().Add(time.Hour).UTC().Truncate(time.Second)
	two := r.version("w1", 2, b.RegistrationDigest, until)
	if created, err := r.admin.Register(t.Context(), two); err != nil || !created {
		t.Fatalf("%v, %v", created, err)
	}
	for digest, req := range map[byte]kbs.RegisterRequest{1: one, 2: two} {
		if k, err := r.versionKey(req, digest); err != nil || k != string(req.DiskKey) {
			t.Errorf("version %d: %q, %v", digest, k, err)
		}
	}
	// The old one's identity does not get it the new one's key, nor the other way.
	for digest, req := range map[byte]kbs.RegisterRequest{2: one, 1: two} {
		if _, err := r.versionKey(req, digest); err == nil {
			t.Errorf("measurement %d with the other version's identity gets a key", digest)
		}
	}
	s, err := r.admin.Get(t.Context(), "w1")
	if err != nil || s.Version != 2 || len(s.Versions) != 2 || s.Versions[1].Name != "w1@1" || !s.Versions[1].EndsAt.Equal(until) || s.Releases != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	if list, err := r.admin.List(t.Context()); err != nil || len(list) != 2 || list[1].WorkloadID != "w1@1" || list[1].EndsAt == nil {
		t.Errorf("%+v, %v", list, err)
	}
	newest := r.bootable("w1")
	if len(newest.Others) != 1 || newest.Others[0] != "w1@1" {
		t.Fatalf("%+v", newest.Others)
	}
	old := r.bootable("w1@1")
	u := adding(old, 11)
	u.WorkloadID = old.WorkloadID
	if res := r.update(r.admin, u); res.Problem != nil || !res.Changed {
		t.Fatalf("%+v", res)
	}
	if k, err := r.versionKey(one, 11); err != nil || k != string(one.DiskKey) {
		t.Errorf("old version on new firmware: %q, %v", k, err)
	}
	r.clock.advance(time.Hour)
	var p *kbs.ProblemError
	if _, err := r.versionKey(one, 1); !errors.As(err, &p) || p.Code != kbs.CodeAttestationDenied {
		t.Fatalf("after its end: %v", err)
	}
	rec, err := r.admin.Session(t.Context(), p.Session)
	if err != nil || rec.Version != 1 || !ruleFailed(rec, "version") {
		t.Errorf("%+v, %v", rec, err)
	}
	if res := r.update(r.admin, u); res.Problem == nil {
		t.Error("a version that is over is updated")
	}
	if _, err := r.versionKey(two, 2); err != nil {
		t.Error(err)
	}
	if _, err := r.admin.Revoke(t.Context(), "w1"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.versionKey(two, 2); err == nil {
		t.Error("released after revoking")
	}
}

func ruleFailed(rec *kbs.SessionRecord, rule string) bool {
	for _, x := range rec.Result.Rules {
		if x.Rule == rule {
			return !x.Pass
		}
	}
	return false
}

// TestEndDuringSession: who attested before a version's end gets nothing after it.
func TestEndDuringSession(t *testing.T) {
	r := newRig(t)
	b := r.registerBoot("w1", 1)
	if _, err := r.admin.Register(t.Context(), r.version("w1", 2, b.RegistrationDigest, r.clock.Now().Add(time.Minute))); err != nil {
		t.Fatal(err)
	}
	c, q := r.guest("w1", 1)
	s, err := c.Attest(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r.clock.advance(time.Minute)
	if _, err := s.DiskKey(t.Context()); err == nil {
		t.Error("released after the end")
	}
}

// TestReplaceNeedsOwner: replacing ends what another registered.
func TestReplaceNeedsOwner(t *testing.T) {
	r := newRig(t)
	b := r.registerBoot("w1", 1)
	until := r.clock.Now().Add(time.Hour)
	publisher := r.adminClient(r.token(store.Publisher))
	var p *kbs.ProblemError
	if _, err := publisher.Register(t.Context(), r.version("w1", 2, b.RegistrationDigest, until)); !errors.As(err, &p) || p.Code != kbs.CodeForbidden {
		t.Errorf("another's workload: %v", err)
	}
	if _, err := r.admin.Register(t.Context(), r.version("w1", 2, b.RegistrationDigest, time.Time{})); !errors.As(err, &p) || p.Code != kbs.CodeBadRequest {
		t.Errorf("no end: %v", err)
	}
	if _, err := r.admin.Register(t.Context(), r.version("w1", 2, kbs.Digest{1}, until)); !errors.As(err, &p) || p.Code != kbs.CodeConflict || !strings.Contains(p.Detail, "meanwhile") {
		t.Errorf("another newest: %v", err)
	}
	if _, err := r.admin.Register(t.Context(), r.version("w2", 2, b.RegistrationDigest, until)); !errors.As(err, &p) || p.Code != kbs.CodeNotFound {
		t.Errorf("of nothing: %v", err)
	}
	if err := r.released("w1", 1); err != nil {
		t.Error(err)
	}
}

// TestReplaceKeepsWhatIsTheWorkloads: versions have one configuration and the same
// volumes, whoever of them asks; replaced, taken back and replaced again within one
// guest's session, each guest gets its own version's key or nothing.
func TestReplaceKeepsWhatIsTheWorkloads(t *testing.T) {
	r := newRig(t)
	b := r.registerBoot("w1", 1)
	if _, err := r.admin.SetConfig(t.Context(), "w1", kbs.ConfigChange{Set: kbs.WorkloadConfig{Env: map[string]string{"MODE": "blue"}}}); err != nil {
		t.Fatal(err)
	}
	one := bootRequest("w1", 1)
	session := func(req kbs.RegisterRequest, digest, vm byte) *kbs.Session {
		t.Helper()
		c, q := r.vm("w1", digest, vm)
		q.IdentityDigest = req.Registration.IdentityDigest
		s, err := c.Attest(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	gets := func(s *kbs.Session, key byte) (kbs.VolumeGrant, error) {
		t.Helper()
		raw, err := s.Config(t.Context())
		if err == nil && !strings.Contains(string(raw.Reveal()), "blue") {
			t.Errorf("configuration %q", raw.Reveal())
		}
		g, err2 := s.OpenVolume(t.Context(), "data", freshKey(key))
		return g, errors.Join(err, err2)
	}
	early := session(one, 1, 1)
	first, err := gets(early, 7)
	if err != nil {
		t.Fatal(err)
	}
	two := r.version("w1", 2, b.RegistrationDigest, r.clock.Now().Add(time.Minute))
	for range 2 { // replaced, taken back, replaced again
		if created, err := r.admin.Register(t.Context(), two); err != nil || !created {
			t.Fatalf("%v, %v", created, err)
		}
		late := session(two, 2, 2)
		if g, err := gets(late, 8); err != nil || string(g.Key) != string(first.Key) {
			t.Errorf("the next version's volume has another key, %v", err)
		}
		if g, err := gets(early, 9); err != nil || string(g.Key) != string(first.Key) {
			t.Errorf("the version before, until its end: %v", err)
		}
		if k, err := early.DiskKey(t.Context()); err != nil || string(k.Reveal()) != string(one.DiskKey) {
			t.Errorf("the version before gets %q, %v", k.Reveal(), err)
		}
		if err := r.admin.Remove(t.Context(), "w1@2"); err != nil {
			t.Fatal(err)
		}
		if k, err := late.DiskKey(t.Context()); err == nil {
			t.Errorf("a version that is gone gets %q", k.Reveal())
		}
		if _, err := gets(late, 8); err == nil {
			t.Error("a version that is gone gets configuration and volume")
		}
	}
	if created, err := r.admin.Register(t.Context(), two); err != nil || !created {
		t.Fatalf("%v, %v", created, err)
	}
	r.clock.advance(time.Minute)
	if _, err := gets(early, 9); err == nil {
		t.Error("after its end it gets configuration and volume")
	}
}
