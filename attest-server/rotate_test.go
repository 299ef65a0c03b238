package attestserver

import (
	"crypto/rand"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/luks/lukstest"
	"github.com/ccrun/ccrun/secret"
)

// keyslotFor is the keyslot of a new disk under diskKey, and its header.
func keyslotFor(t *testing.T, diskKey string) (kbs.Keyslot, *luks.Header, []byte) {
	t.Helper()
	d := lukstest.New(t, diskKey, luks.FastKDF(), true)
	return slotIn(t, d.Header), d.Header, d.Bytes
}

func slotIn(t *testing.T, h *luks.Header) kbs.Keyslot {
	t.Helper()
	s, err := h.SealedSlot()
	if err != nil {
		t.Fatal(err)
	}
	return kbs.Keyslot{KDF: kbs.KeyslotKDF{Type: s.KDF.Type, Salt: s.Salt, Iterations: s.KDF.Iterations},
		Area: s.Area, KeyBytes: s.VolumeKeyBytes, DigestSalt: s.DigestSalt, DigestIterations: s.DigestIterations, Digest: s.Digest}
}

// TestRotation runs guests of the old and of the rotated image side by side.
func TestRotation(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	slot, old, disk := keyslotFor(t, diskKeyText+"w1")
	a, err := r.admin.Rotate(t.Context(), "w1", kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: slot}})
	if err != nil || a.Already || a.KDF == nil {
		t.Fatalf("stage: %+v, %v", a, err)
	}
	front, err := old.ReplaceSlot(luks.KDF{Type: a.KDF.Type, Hash: "sha256", Iterations: a.KDF.Iterations}, a.KDF.Salt, a.Area, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	copy(disk, front)
	rotated := lukstest.Header(t, disk)
	boots := func(h *luks.Header) bool {
		t.Helper()
		c, req := r.guest("w1", 1)
		req.Opens = func(k secret.Bytes) bool { _, err := h.Unlock(k); return err == nil }
		k, err := c.Release(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return req.Opens(k)
	}
	if !boots(old) || !boots(rotated) {
		t.Fatal("while a rotation is under way, old and rotated image must boot")
	}
	again, err := r.admin.Rotate(t.Context(), "w1", kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: slotIn(t, rotated)}})
	if err != nil || !again.Already || again.Rotation != a.Rotation || len(again.Area) != 0 {
		t.Errorf("staging the rotated disk: %+v, %v", again, err)
	}
	for range 2 {
		if _, err := r.admin.Rotate(t.Context(), "w1", kbs.RotateRequest{Commit: &kbs.RotateCommit{Rotation: a.Rotation, Image: "sha256:new"}}); err != nil {
			t.Fatal(err)
		}
	}
	if boots(old) || !boots(rotated) {
		t.Error("after the commit only the rotated image must boot")
	}
	if s, err := r.admin.Get(t.Context(), "w1"); err != nil || s.RotatedAt == nil || s.Rotation != "" || s.Image != "sha256:new" {
		t.Errorf("status: %+v, %v", s, err)
	}
	if strings.Contains(r.log.String(), diskKeyText[:16]) {
		t.Error("log holds the disk key")
	}
}

func TestRotateRefuses(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	r.register("gone", 2)
	if _, err := r.admin.Revoke(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	slot, _, _ := keyslotFor(t, diskKeyText+"w1")
	foreign, _, _ := keyslotFor(t, "another disk's key")
	huge := slot
	huge.KDF.Iterations = 1 << 30
	stage := func(s kbs.Keyslot) kbs.RotateRequest { return kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: s}} }
	for name, x := range map[string]struct {
		id, want string
		body     any
	}{
		"nothing":               {"w1", kbs.CodeBadRequest, kbs.RotateRequest{}},
		"two steps":             {"w1", kbs.CodeBadRequest, kbs.RotateRequest{Commit: &kbs.RotateCommit{}, Abort: &kbs.RotateAbort{}}},
		"no keyslot":            {"w1", kbs.CodeBadRequest, stage(kbs.Keyslot{})},
		"costly keyslot":        {"w1", kbs.CodeBadRequest, stage(huge)},
		"another disk":          {"w1", kbs.CodeConflict, stage(foreign)},
		"unknown workload":      {"w9", kbs.CodeNotFound, stage(slot)},
		"revoked workload":      {"gone", kbs.CodeConflict, stage(slot)},
		"commit of no rotation": {"w1", kbs.CodeConflict, kbs.RotateRequest{Commit: &kbs.RotateCommit{Rotation: "00"}}},
		"commit of empty":       {"w1", kbs.CodeConflict, kbs.RotateRequest{Commit: &kbs.RotateCommit{}}},
		"abort of no rotation":  {"w1", kbs.CodeConflict, kbs.RotateRequest{Abort: &kbs.RotateAbort{Rotation: "00"}}},
		"over the limit":        {"w1", kbs.CodeTooLarge, strings.Repeat(" ", kbs.MaxRotateBody+1)},
	} {
		status, b := r.call("POST", "/v1/workloads/"+x.id+"/rotate", text(r.admin.Token), x.body)
		if got := code(t, status, b); got != x.want {
			t.Errorf("%s: %d %.200s, expected code %q", name, status, b, x.want)
		}
	}
	status, b := r.call("POST", "/v1/workloads/w1/rotate", text(r.token(store.Publisher)), stage(slot))
	if got := code(t, status, b); got != kbs.CodeForbidden {
		t.Errorf("a publisher who did not register it: %d %.200s", status, b)
	}
	h := r.begin("w1", 1)
	if got := h.doStaged(); got != kbs.CodeNotAttested {
		t.Errorf("staged key before attest: %q", got)
	}
	if _, err := r.admin.Rotate(t.Context(), "w1", stage(slot)); err != nil {
		t.Fatal(err)
	}
	other := r.begin("gone", 2)
	other.doAttest()
	if got := other.doStaged(); got != kbs.CodeAttestationDenied {
		t.Errorf("staged key of a revoked workload: %q", got)
	}
	if got := h.doAttest(); got != "" {
		t.Fatal(got)
	}
	r.register("w2", 3)
	thief := r.begin("w2", 3)
	thief.doAttest()
	thief.id = "w1"
	if got := thief.doStaged(); got != kbs.CodeForbidden {
		t.Errorf("another workload's session: %q", got)
	}
	if got := h.doStaged(); got != "" {
		t.Errorf("staged key: %q", got)
	}
}

func (h *handshake) doStaged() string {
	status, b := h.r.call("GET", "/v1/workloads/"+h.id+"/key/staged", h.bearer, nil)
	return code(h.r.t, status, b)
}

func TestReleaseLimitsAreKept(t *testing.T) {
	r := newRig(t)
	req := request("once", 1)
	req.Registration.Release = &kbs.ReleaseLimits{Total: 1}
	if _, err := r.admin.Register(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	first, second := r.begin("once", 1), r.begin("once", 1)
	for _, h := range []*handshake{first, second} { // both granted before either fetches
		if got := h.doAttest(); got != "" {
			t.Fatal(got)
		}
	}
	if a, b := first.doKey(), first.doKey(); a != "" || b != "" {
		t.Errorf("first: %q, %q", a, b)
	}
	if got := second.doKey(); got != kbs.CodeAttestationDenied {
		t.Errorf("second: %q", got)
	}
	third := r.begin("once", 1)
	status, b := r.call("POST", "/v1/attest", third.bearer, third.attest)
	if got := code(t, status, b); got != kbs.CodeAttestationDenied {
		t.Fatalf("third: %d %s", status, b)
	}
	var p kbs.Problem
	if err := kbs.UnmarshalStrict(b, &p); err != nil {
		t.Fatal(err)
	}
	rec, err := r.admin.Session(t.Context(), p.Session)
	if err != nil || !failed(rec, "release_limit") {
		t.Errorf("the owner is not told of the limit: %+v, %v", rec, err)
	}
	expiry := r.clock.Now().Add(time.Hour)
	for name, l := range map[string]kbs.ReleaseLimits{
		"that limit nothing": {}, "negative": {Total: -1}, "negative per day": {PerDay: -1},
		"over already": {NotAfter: ptr(r.clock.Now())}, "approved by nobody's name": {Approvals: []string{"A B"}},
		"approved twice by one": {Approvals: []string{"a", "a"}},
	} {
		req := request("other", 2)
		req.Registration.Release = &l
		_, err := r.admin.Register(t.Context(), req)
		var p *kbs.ProblemError
		if !errors.As(err, &p) || p.Status != http.StatusBadRequest {
			t.Errorf("limits %s: %v", name, err)
		}
	}
	req = request("day", 3)
	req.Registration.Release = &kbs.ReleaseLimits{NotAfter: &expiry}
	if _, err := r.admin.Register(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(59 * time.Minute)
	late := r.begin("day", 3)
	r.clock.advance(50 * time.Second)
	if got := late.doAttest(); got != "" {
		t.Fatal(got)
	}
	r.clock.advance(10 * time.Second) // granted, then over
	if got := late.doKey(); got != kbs.CodeAttestationDenied {
		t.Errorf("expired between attest and key: %q", got)
	}
}

func ptr[T any](v T) *T { return &v }

func failed(r *kbs.SessionRecord, rule string) bool {
	for _, x := range r.Result.Rules {
		if x.Rule == rule && !x.Pass {
			return true
		}
	}
	return false
}

// TestRotateOtherDialects: a workload that is registered natively is rotated
// also for those of its guests that speak trustee; others are refused.
func TestRotateOtherDialects(t *testing.T) {
	r := newRig(t, withSNP(t, session.Native, session.Trustee, session.Legacy))
	r.registerSNP("w1", kbs.TypeNative, 1)
	r.registerSNP("w2", kbs.TypeTrustee, 2)
	r.registerSNP("w3", kbs.TypeLegacy, 3)
	slot, _, _ := keyslotFor(t, diskKeyText+"w1")
	stage := kbs.RotateRequest{Stage: &kbs.RotateStage{Keyslot: slot}}
	for _, id := range []string{"w2", "w3"} {
		status, b := r.call("POST", "/v1/workloads/"+id+"/rotate", text(r.admin.Token), stage)
		if code(t, status, b) != kbs.CodeConflict || !strings.Contains(string(b), "under another id") {
			t.Errorf("%s: %d %s", id, status, b)
		}
		if w, err := r.store.Workload(t.Context(), id); err != nil || w.Rotation != "" {
			t.Errorf("%s: rotation %q staged, %v", id, w.Rotation, err)
		}
	}
	const staged = "ccrun/disk-key.staged/w1"
	if k, err := r.coco("P-256", 1).resource(staged); !errors.Is(err, errNoResource) {
		t.Errorf("before the rotation: %q, %v", k, err)
	}
	answer, err := r.admin.Rotate(t.Context(), "w1", stage)
	if err != nil {
		t.Fatal(err)
	}
	c := r.coco("P-256", 1)
	old, err := c.resource(diskKeyOf + "w1")
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := c.resource(staged)
	if err != nil || string(old) == string(fresh) || len(fresh) != 64 {
		t.Fatalf("staged key of %d bytes, %v", len(fresh), err)
	}
	if k, err := r.coco("P-256", 2).resource(staged); err == nil {
		t.Errorf("another workload's: %q", k)
	}
	if _, err := r.admin.Rotate(t.Context(), "w1", kbs.RotateRequest{Commit: &kbs.RotateCommit{Rotation: answer.Rotation}}); err != nil {
		t.Fatal(err)
	}
	if k, err := r.coco("P-256", 1).resource(diskKeyOf + "w1"); err != nil || string(k) != string(fresh) {
		t.Errorf("after the commit: another key than was staged, %v", err)
	}
}
