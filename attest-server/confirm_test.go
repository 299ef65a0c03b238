package attestserver

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/sample"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
)

// vm is an honest agent in a VM of its own.
func (r *rig) vm(id string, digest, vm byte) (kbs.Client, kbs.ReleaseRequest) {
	c, req := r.guest(id, digest)
	req.Attest = func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) {
		return fakeReportOf(vm, kbs.Sample, kbs.LaunchDigest{digest}, rd), nil
	}
	return c, req
}

func (h *handshake) doConfirm() string {
	status, b := h.r.call("POST", "/v1/workloads/"+h.id+"/confirm", h.bearer, nil)
	return code(h.r.t, status, b)
}

func problemCode(t *testing.T, err error) string {
	t.Helper()
	var p *kbs.ProblemError
	if !errors.As(err, &p) {
		t.Fatalf("no problem: %v", err)
	}
	return p.Code
}

// TestConfirmedVMGetsNothing: a VM gets its key as often as it asks until it
// has confirmed. Whoever asks in it later, with genuine Evidence, gets nothing,
// in sessions that were granted before, too. That is no denial, is audited, and
// is explained to the owner. Another VM of the same image gets the key.
func TestConfirmedVMGetsNothing(t *testing.T) {
	for name, rig := range map[string]*rig{"one server": newRig(t), "two": pair(t)} {
		t.Run(name, func(t *testing.T) { confirmedVM(t, rig) })
	}
}

func confirmedVM(t *testing.T, r *rig) {
	r.register("w1", 1)
	c, req := r.vm("w1", 1, 9)
	if _, err := c.Release(t.Context(), req); err != nil { // as if its answer had been lost
		t.Fatal(err)
	}
	s, k, err := c.Open(t.Context(), req)
	if err != nil || string(k.Reveal()) != diskKeyText+"w1" {
		t.Fatalf("Open = %v", err)
	}
	defer s.Close()
	early := r.begin("w1", 1)
	if got := early.doAttest(); got != "" {
		t.Fatal(got)
	}
	for range 3 {
		if err := c.Confirm(t.Context(), req, s); err != nil {
			t.Fatal(err)
		}
	}
	_, err = s.DiskKey(t.Context())
	if got := problemCode(t, err); got != kbs.CodeAlreadyReleased {
		t.Errorf("in the session that confirmed: %s", got)
	}
	if got := early.doKey(); got != kbs.CodeAlreadyReleased {
		t.Errorf("in a session granted before: %q", got)
	}
	_, err = c.Release(t.Context(), req)
	var p *kbs.ProblemError
	if !errors.As(err, &p) || p.Code != kbs.CodeAlreadyReleased || p.Status != http.StatusConflict || errors.Is(err, kbs.ErrDenied) {
		t.Fatalf("in a new session: %v", err)
	}
	rec, err := r.admin.Session(t.Context(), p.Session)
	if err != nil || rec.Granted || rec.Result.Result != kbs.Undecided || !rec.Result.Confirmed() {
		t.Errorf("Session = %+v, %v", rec, err)
	}
	late := r.begin("w1", 1)
	if got := late.doAttest(); got != kbs.CodeAlreadyReleased {
		t.Errorf("attest: %q", got)
	}
	if got := late.doKey(); got != kbs.CodeAttestationDenied {
		t.Errorf("key without a grant: %q", got)
	}
	other, otherReq := r.vm("w1", 1, 8)
	if _, err := other.Release(t.Context(), otherReq); err != nil {
		t.Errorf("another VM: %v", err)
	}
	st, err := r.admin.Get(t.Context(), "w1")
	if err != nil || st.Denials != 0 || st.Released != 3 {
		t.Errorf("status %+v, %v", st, err)
	}
	got := audited(t, r)
	if got["key.confirm"] != 1 || got["key.refuse"] != 2 || got["attest.refuse"] != 2 || got["attest.deny"] != 0 {
		t.Errorf("audited: %v", got)
	}
}

func audited(t *testing.T, r *rig) map[string]int {
	t.Helper()
	n := map[string]int{}
	if err := r.store.Audit(t.Context(), 0, func(e store.AuditEntry) error { n[e.Action]++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestConfirmRefuses: only a granted session confirms, and for its own workload
// alone: nobody can lock another guest out.
func TestConfirmRefuses(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	r.register("w2", 2)
	for name, x := range map[string]struct {
		change func(h *handshake)
		attest bool
		want   string
	}{
		"not attested":       {func(*handshake) {}, false, kbs.CodeNotAttested},
		"denied":             {func(h *handshake) { h.digest = 7; h.sign(); h.doAttest() }, false, kbs.CodeAttestationDenied},
		"another workload's": {func(h *handshake) { h.doAttest(); h.id = "w2" }, false, kbs.CodeForbidden},
		"expired":            {func(h *handshake) { h.doAttest(); r.clock.advance(61 * time.Second) }, false, kbs.CodeSessionExpired},
		"no bearer":          {func(h *handshake) { h.bearer = "" }, false, kbs.CodeUnauthorized},
		"admin's token":      {func(h *handshake) { h.bearer = string(r.admin.Token.Reveal()) }, false, kbs.CodeSessionExpired},
	} {
		h := r.begin("w1", 1)
		x.change(h)
		if got := h.doConfirm(); got != x.want {
			t.Errorf("%s: %q, expected %q", name, got, x.want)
		}
	}
	if got := audited(t, r)["key.confirm"]; got != 0 {
		t.Errorf("%d confirmations", got)
	}
	c, req := r.vm("w1", 1, 9)
	if _, err := c.Release(t.Context(), req); err != nil {
		t.Errorf("after what was refused: %v", err)
	}
}

// TestLostConfirmation: the answer to a confirmation is lost, and the session
// ends meanwhile. The agent asks again, and knows by the refusal that its
// server has its word.
func TestLostConfirmation(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	inner, lost := r.http.Config.Handler, 0
	r.http.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if !strings.HasSuffix(q.URL.Path, "/confirm") || lost > 0 {
			inner.ServeHTTP(w, q)
			return
		}
		lost++
		inner.ServeHTTP(httptest.NewRecorder(), q)
		r.clock.advance(2 * time.Minute)
		panic(http.ErrAbortHandler)
	})
	c, req := r.vm("w1", 1, 9)
	retried := 0
	req.OnRetry = func(error, time.Duration) { retried++ }
	s, _, err := c.Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := c.Confirm(t.Context(), req, s); err != nil || retried != 1 {
		t.Errorf("Confirm = %v after %d retries", err, retried)
	}
	if got := audited(t, r)["key.confirm"]; got != 1 {
		t.Errorf("%d confirmations", got)
	}
}

// TestExpiredConfirmation: a disk that takes longer to open than a session
// lives costs a new session, not the boot.
func TestExpiredConfirmation(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	c, req := r.vm("w1", 1, 9)
	s, _, err := c.Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r.clock.advance(2 * time.Minute)
	if err := c.Confirm(t.Context(), req, s); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Release(t.Context(), req); problemCode(t, err) != kbs.CodeAlreadyReleased {
		t.Errorf("Release = %v", err)
	}
}

// TestUnconfirmedIsAnError: a confirmation that no server takes is one.
func TestUnconfirmedIsAnError(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	c, req := r.vm("w1", 1, 9)
	s, _, err := c.Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := r.admin.Revoke(t.Context(), "w1"); err != nil {
		t.Fatal(err)
	}
	r.clock.advance(2 * time.Minute)
	if err := c.Confirm(t.Context(), req, s); !errors.Is(err, kbs.ErrDenied) {
		t.Errorf("revoked meanwhile: %v", err)
	}
}

// TestConfirmedVMGetsNothingForeign: who asks in a confirmed VM gets nothing in
// other dialects either. A guest that speaks one of those never confirms, and
// gets its key as often as it asks.
func TestConfirmedVMGetsNothingForeign(t *testing.T) {
	r := newRig(t, withSNP(t, session.Native, session.Trustee))
	r.registerSNP("w1", kbs.TypeNative, 1)
	a, vcek, _ := platform(t)
	l, err := sample.NewLaunch(kbs.LaunchDigest{1})
	if err != nil {
		t.Fatal(err)
	}
	sign := func(rd kbs.ReportData) kbs.Evidence {
		ev, err := a.Sign(rd, l)
		if err != nil {
			t.Fatal(err)
		}
		ev.TEE = kbs.SNP
		return ev
	}
	foreign := r.coco("P-256", 1)
	foreign.evidence = func(rd [64]byte) any {
		return cocoSNPEvidence(sign(rd), []map[string]any{{"cert_type": "VCEK", "data": ints(vcek)}})
	}
	if _, err := foreign.resource(diskKeyOf + "w1"); err != nil {
		t.Fatalf("before the confirmation: %v", err)
	}
	c, req := r.guest("w1", 1)
	req.TEE = kbs.SNP
	req.Attest = func(_ context.Context, rd kbs.ReportData) (kbs.Evidence, error) { return sign(rd), nil }
	s, _, err := c.Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := c.Confirm(t.Context(), req, s); err != nil {
		t.Fatal(err)
	}
	var e *errorInformation
	if k, err := foreign.resource(diskKeyOf + "w1"); !errors.As(err, &e) || e.status != http.StatusConflict {
		t.Errorf("in the session it had: %q, %v", k, err)
	}
	again := r.coco("P-256", 1)
	again.evidence = foreign.evidence
	if k, err := again.resource(diskKeyOf + "w1"); !errors.As(err, &e) || e.status != http.StatusConflict || !strings.Contains(e.Error(), "PolicyDeny") {
		t.Errorf("in a new one: %q, %v", k, err)
	}
}

// TestNoReportIDNoRelease: Evidence whose REPORT_ID is zero is of no VM.
func TestNoReportIDNoRelease(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	c, req := r.vm("w1", 1, 0)
	_, err := c.Release(t.Context(), req)
	var p *kbs.ProblemError
	if !errors.Is(err, kbs.ErrDenied) || !errors.As(err, &p) {
		t.Fatalf("Release = %v", err)
	}
	rec, err := r.admin.Session(t.Context(), p.Session)
	if b, _ := json.Marshal(rec.Result.Rules); err != nil || !strings.Contains(string(b), `"report_id"`) {
		t.Errorf("%s, %v", b, err)
	}
}
