package attestserver

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
)

// bootRequest is request with what the workload boots.
func bootRequest(id string, digest byte) kbs.RegisterRequest {
	req := request(id, digest)
	req.Boot = &kbs.Boot{Identity: []byte("identity of " + id), Agent: kbs.Sum384([]byte("agent")), Initrd: kbs.Digest{1}}
	return req
}

func (r *rig) registerBoot(id string, digest byte) *kbs.Bootable {
	r.t.Helper()
	if created, err := r.admin.Register(r.t.Context(), bootRequest(id, digest)); err != nil || !created {
		r.t.Fatalf("Register = %v, %v", created, err)
	}
	return r.bootable(id)
}

func (r *rig) bootable(id string) *kbs.Bootable {
	r.t.Helper()
	b, err := r.admin.Bootable(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func adding(b *kbs.Bootable, digests ...byte) kbs.Update {
	u := kbs.Update{WorkloadID: b.Registration.WorkloadID, Expect: b.RegistrationDigest}
	for _, d := range digests {
		u.Add = append(u.Add, kbs.Measurement{LaunchDigest: kbs.LaunchDigest{d}, Profile: "fake", CPUs: 1, MemoryMiB: 512, Firmware: "01"})
	}
	return u
}

func (r *rig) update(c kbs.AdminClient, u kbs.Update) kbs.UpdateResult {
	r.t.Helper()
	res, err := c.Update(r.t.Context(), []kbs.Update{u})
	if err != nil {
		r.t.Fatal(err)
	}
	return res[0]
}

func (r *rig) released(id string, digest byte) error {
	c, req := r.guest(id, digest)
	k, err := c.Release(r.t.Context(), req)
	if err == nil && string(k.Reveal()) != diskKeyText+id {
		return errors.New("another key")
	}
	return err
}

// TestUpdateAddsFirmware: a fleet goes from one firmware to the next with both
// running side by side, the same key, and an end for the old one.
func TestUpdateAddsFirmware(t *testing.T) {
	r := newRig(t)
	b := r.registerBoot("w1", 1)
	if b.Boot == nil || string(b.Boot.Identity) != "identity of w1" {
		t.Fatalf("boot %+v", b.Boot)
	}
	if err := r.released("w1", 2); err == nil {
		t.Fatal("the new firmware is let in before it is registered")
	}
	u := adding(b, 2)
	until := r.clock.Now().Add(time.Hour).UTC().Truncate(time.Second)
	u.OthersNotAfter = &until
	res := r.update(r.admin, u)
	if res.Problem != nil || !res.Changed || res.RegistrationDigest == b.RegistrationDigest {
		t.Fatalf("%+v", res)
	}
	for _, d := range []byte{1, 2} {
		if err := r.released("w1", d); err != nil {
			t.Errorf("firmware %d: %v", d, err)
		}
	}
	u.Expect = res.RegistrationDigest
	if again := r.update(r.admin, u); again.Problem != nil || again.Changed {
		t.Errorf("the same again: %+v", again)
	}
	r.clock.advance(2 * time.Hour)
	if err := r.released("w1", 1); err == nil {
		t.Error("the old firmware after its end")
	}
	if err := r.released("w1", 2); err != nil {
		t.Errorf("the new firmware: %v", err)
	}
	third := r.update(r.admin, adding(r.bootable("w1"), 3))
	if got := r.bootable("w1").Registration.ReferenceValues.Measurements; third.Problem != nil || len(got) != 2 {
		t.Errorf("what is over is kept: %+v, %+v", third, got)
	}
	page, err := r.admin.Audit(t.Context(), 0)
	if err != nil || !strings.Contains(auditOf(page, "workload.update"), "measurements of firmware 01 added, all others until "+until.Format(time.RFC3339)) {
		t.Errorf("audit %+v, %v", page, err)
	}
	if again, err := r.admin.Register(t.Context(), bootRequest("w1", 1)); err == nil || again {
		t.Errorf("an updated workload was registered over: %v", again)
	}
}

func auditOf(page *kbs.AuditPage, action string) (details string) {
	for _, e := range page.Entries {
		if e.Action == action {
			details += e.Detail + "\n"
		}
	}
	return details
}

// TestUpdateRefuses: each leaves the registration as it was.
func TestUpdateRefuses(t *testing.T) {
	r := newRig(t, withSNP(t, session.Native, session.Trustee))
	acme := r.tenant("acme", store.Publisher)
	r.registerBoot("w2", 9)
	r.registerSNP("coco", kbs.TypeTrustee, 8)
	r.registerBoot("gone", 7)
	if _, err := r.admin.Revoke(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	b := r.registerBoot("w1", 1)
	other := r.adminClient(r.token(store.Publisher))
	for name, x := range map[string]struct {
		by     kbs.AdminClient
		change func(*kbs.Update)
		want   string
	}{
		"another's digest":    {r.admin, func(u *kbs.Update) { u.Add[0].LaunchDigest = kbs.LaunchDigest{9} }, kbs.CodeDuplicateDigest},
		"another publisher":   {other, func(*kbs.Update) {}, kbs.CodeForbidden},
		"another tenant":      {acme, func(*kbs.Update) {}, kbs.CodeNotFound},
		"stale":               {r.admin, func(u *kbs.Update) { u.Expect = kbs.Digest{1} }, kbs.CodeConflict},
		"nothing added":       {r.admin, func(u *kbs.Update) { u.Add = []kbs.Measurement{} }, kbs.CodeBadRequest},
		"too many":            {r.admin, func(u *kbs.Update) { *u = adding(b, bytes.Repeat([]byte{5}, 65)...) }, kbs.CodeBadRequest},
		"no such workload":    {r.admin, func(u *kbs.Update) { u.WorkloadID = "none" }, kbs.CodeNotFound},
		"a CoCo guest":        {r.admin, func(u *kbs.Update) { u.WorkloadID, u.Expect = "coco", r.bootable("coco").RegistrationDigest }, kbs.CodeConflict},
		"a revoked workload":  {r.admin, func(u *kbs.Update) { u.WorkloadID, u.Expect = "gone", r.bootable("gone").RegistrationDigest }, kbs.CodeConflict},
		"ACPI without a word": {r.admin, func(u *kbs.Update) { u.Add[0].Profile = "qemu-direct" }, kbs.CodeBadRequest},
	} {
		u := adding(b, 2)
		x.change(&u)
		res := r.update(x.by, u)
		if res.Problem == nil || res.Problem.Code != x.want || res.Changed {
			t.Errorf("%s: %+v %+v", name, res, res.Problem)
		}
		if now := r.bootable("w1"); now.RegistrationDigest != b.RegistrationDigest {
			t.Fatalf("%s: the registration was changed", name)
		}
	}
	for name, list := range map[string][]kbs.Update{"none": {}, "twice": {adding(b, 2), adding(b, 3)}, "many": make([]kbs.Update, kbs.MaxUpdates+1)} {
		if res, err := r.admin.Update(t.Context(), list); err == nil {
			t.Errorf("%s: %+v", name, res)
		}
	}
	auditor := r.adminClient(r.token(store.Auditor))
	if _, err := auditor.Update(t.Context(), []kbs.Update{adding(b, 2)}); err == nil {
		t.Error("an auditor updates")
	}
	if err := r.released("w1", 2); err == nil {
		t.Error("the firmware is let in")
	}
}

// TestUpdateUnderAGuest: a guest that was appraised before an update is not
// denied by it: it attests again, and is judged by what is registered then.
func TestUpdateUnderAGuest(t *testing.T) {
	r := newRig(t)
	b := r.registerBoot("w1", 1)
	c, req := r.guest("w1", 1)
	s, err := c.Attest(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if res := r.update(r.admin, adding(b, 2)); res.Problem != nil {
		t.Fatalf("%+v", res.Problem)
	}
	var p *kbs.ProblemError
	if k, err := s.DiskKey(t.Context()); !errors.As(err, &p) || p.Code != kbs.CodeUnavailable || k.Len() != 0 {
		t.Errorf("its session: %v", err)
	}
	if err := r.released("w1", 1); err != nil {
		t.Errorf("the next: %v", err)
	}
}

// TestTwoUpdatesAtOnce: one wins, the other is told to read again, and both end
// up in the registration. A rotation under way goes on.
func TestTwoUpdatesAtOnce(t *testing.T) {
	r := newRig(t)
	b := r.registerBoot("w1", 1)
	rot, err := r.store.StageRotation(t.Context(), "w1", "local")
	if err != nil {
		t.Fatal(err)
	}
	rot.Wipe()
	results := make(chan kbs.UpdateResult)
	for _, d := range []byte{2, 3} {
		go func() {
			for expect := b; ; expect = r.bootable("w1") {
				res := r.update(r.admin, adding(expect, d))
				if res.Problem == nil || res.Problem.Code != kbs.CodeConflict {
					results <- res
					return
				}
			}
		}()
	}
	for range 2 {
		if res := <-results; res.Problem != nil || !res.Changed {
			t.Errorf("%+v", res)
		}
	}
	for _, d := range []byte{1, 2, 3} {
		if err := r.released("w1", d); err != nil {
			t.Errorf("firmware %d: %v", d, err)
		}
	}
	if err := r.store.CommitRotation(t.Context(), "w1", rot.ID, "", "local"); err != nil {
		t.Errorf("the rotation: %v", err)
	}
}

// TestAgentsAreKept: once for a tenant, for no other, and no more than fit.
func TestAgentsAreKept(t *testing.T) {
	r := newRig(t)
	acme, evil := r.tenant("acme", store.Publisher), r.tenant("evil", store.Publisher)
	segment := []byte("agent")
	for range 2 {
		if err := acme.PutAgent(t.Context(), segment); err != nil {
			t.Fatal(err)
		}
	}
	for name, x := range map[string]struct {
		by kbs.AdminClient
		ok bool
	}{"acme": {acme, true}, "operator": {r.admin, true}, "evil": {evil, false}} {
		got, err := x.by.Agent(t.Context(), kbs.Sum384(segment))
		if (err == nil) != x.ok || x.ok && !bytes.Equal(got, segment) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := acme.Register(t.Context(), bootRequest("acme.w", 1)); err != nil {
		t.Fatal(err)
	}
	for i := range 40 { // those that nobody boots make room
		if err := acme.PutAgent(t.Context(), []byte{byte(i)}); err != nil {
			t.Fatalf("agent %d: %v", i, err)
		}
	}
	if _, err := acme.Agent(t.Context(), kbs.Sum384(segment)); err != nil {
		t.Errorf("the one that is booted is gone: %v", err)
	}
	status, body := r.call("PUT", "/v1/agents/"+kbs.Sum384([]byte("x")).String(), text(acme.Token), kbs.AgentSegment{Segment: []byte("y")})
	if code(t, status, body) != kbs.CodeBadRequest {
		t.Errorf("an agent under another's digest: %d %s", status, body)
	}
	for name, change := range map[string]func(*kbs.RegisterRequest){
		"other identity": func(q *kbs.RegisterRequest) { q.Boot.Identity = []byte("x") },
		"a CoCo guest":   func(q *kbs.RegisterRequest) { q.Registration.Type = kbs.TypeTrustee },
	} {
		req := bootRequest("w9", 90)
		change(&req)
		var p *kbs.ProblemError
		if _, err := r.admin.Register(t.Context(), req); !errors.As(err, &p) || p.Code != kbs.CodeBadRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
}
