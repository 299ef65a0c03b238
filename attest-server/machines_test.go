package attestserver

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/store"
)

// TestIncident: a machine that is denied gets nothing any more, not for a
// session that it was granted before; what it was granted is listed, and settled
// once it is rotated or revoked.
func TestIncident(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	r.register("w2", 2)
	if failed := r.attested("w1", 1); failed != nil {
		t.Fatal(failed)
	}
	r.clock.advance(time.Second)
	under := r.begin("w2", 2)
	if got := under.doAttest(); got != "" {
		t.Fatal(got)
	}
	chip := strings.Repeat("07", 64)
	all, err := r.admin.Machines(t.Context(), "")
	if err != nil || len(all) != 1 || all[0].ID != chip || all[0].Silicon != "19/11/1" || all[0].DeniedAt != nil || *all[0].TCB != fakeTCB || !all[0].LastSeen.After(all[0].FirstSeen) {
		t.Fatalf("%+v, %v", all, err)
	}
	if some, err := r.admin.Machines(t.Context(), "AMD-SB-3030"); err != nil || len(some) != 0 {
		t.Errorf("%+v, %v", some, err)
	}
	i, err := r.admin.DeclareIncident(t.Context(), chip)
	if err != nil || i.Machine.DeniedAt == nil || len(i.Granted) != 2 || i.Granted[0].WorkloadID != "w2" || i.Granted[1].WorkloadID != "w1" || i.Granted[0].Settled || i.Granted[1].Settled {
		t.Fatalf("%+v, %v", i, err)
	}
	for _, g := range i.Granted {
		if s, err := r.admin.Get(t.Context(), g.WorkloadID); err != nil || g.Rotation == "" || s.Rotation != g.Rotation || g.DrawnBefore {
			t.Errorf("no rotation is planned: %+v, %+v, %v", g, s, err)
		}
	}
	if got := under.doKey(); got != kbs.CodeAttestationDenied {
		t.Errorf("a session under way: %q", got)
	}
	if failed := r.attested("w1", 1); !slices.Equal(failed, []string{"machine_incident"}) {
		t.Errorf("denied by %q", failed)
	}
	r.clock.advance(time.Second)
	if _, err := r.admin.Revoke(t.Context(), "w2"); err != nil {
		t.Fatal(err)
	}
	again, err := r.admin.DeclareIncident(t.Context(), chip)
	if err != nil || !again.Machine.DeniedAt.Equal(*i.Machine.DeniedAt) || !again.Granted[0].Settled || again.Granted[1].Settled {
		t.Errorf("%+v, %v", again, err)
	}
	if err := r.store.CommitRotation(t.Context(), "w1", i.Granted[1].Rotation, "", "token/t"); err != nil {
		t.Fatal(err)
	}
	if done, err := r.admin.DeclareIncident(t.Context(), chip); err != nil || !done.Granted[1].Settled || done.Granted[1].Rotation != "" {
		t.Errorf("%+v, %v", done, err)
	}
	page, err := r.admin.Audit(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if n := slices.IndexFunc(page.Entries, func(e kbs.AuditEntry) bool { return e.Action == "workload.rotate.stage" && e.Object == "w1" }); n < 0 {
		t.Error("what is staged is not audited")
	}
	if n := slices.IndexFunc(page.Entries, func(e kbs.AuditEntry) bool { return e.Action == "machine.incident" }); n < 0 || page.Entries[n].Object != "/machine/"+chip || page.Entries[n].Detail != "it was granted 2 workloads" {
		t.Errorf("audit: %+v", page.Entries)
	}
	if err := r.admin.LiftIncident(t.Context(), chip); err != nil {
		t.Fatal(err)
	}
	if failed := r.attested("w1", 1); failed != nil {
		t.Errorf("after the incident was lifted: %q", failed)
	}
	for name, err := range map[string]error{"lifted twice": r.admin.LiftIncident(t.Context(), chip), "never seen": func() error { _, err := r.admin.DeclareIncident(t.Context(), "00"); return err }()} {
		if err == nil || !strings.Contains(err.Error(), kbs.CodeNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestIncidentDistrustsStagedKeys: a key that was staged, or committed, while the
// machine could fetch staged keys settles nothing.
func TestIncidentDistrustsStagedKeys(t *testing.T) {
	r := newRig(t)
	for i, id := range []string{"done", "half", "old"} {
		r.register(id, byte(i+1))
		if failed := r.attested(id, byte(i+1)); failed != nil {
			t.Fatal(failed)
		}
	}
	r.clock.advance(time.Second)
	rotate := func(id string, commit bool) string {
		rot, err := r.store.StageRotation(t.Context(), id, "token/t")
		if err == nil && commit {
			err = r.store.CommitRotation(t.Context(), id, rot.ID, "", "token/t")
		}
		if err != nil {
			t.Fatal(err)
		}
		rot.Wipe()
		return rot.ID
	}
	first, half := rotate("done", true), rotate("half", false)
	r.clock.advance(4 * time.Hour)
	rotate("old", true)
	i, err := r.admin.DeclareIncident(t.Context(), strings.Repeat("07", 64))
	if err != nil || len(i.Granted) != 3 {
		t.Fatalf("%+v, %v", i, err)
	}
	for _, g := range i.Granted {
		switch g.WorkloadID {
		case "done":
			if g.Settled || g.Rotation == "" || g.Rotation == first || g.DrawnBefore {
				t.Errorf("rotated while a session could fetch the new key: %+v", g)
			}
		case "half":
			if g.Settled || g.Rotation != half || !g.DrawnBefore {
				t.Errorf("under way: %+v", g)
			}
		case "old":
			if !g.Settled || g.Rotation != "" {
				t.Errorf("rotated after every session of the machine's had ended: %+v", g)
			}
		}
	}
}

// TestMachinesAreTheOperators: nobody else sees machines, and only an admin
// denies one.
func TestMachinesAreTheOperators(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	if failed := r.attested("w1", 1); failed != nil {
		t.Fatal(failed)
	}
	incident := "/v1/machines/" + strings.Repeat("07", 64) + "/incident"
	tenant := r.tenant("acme", store.Admin)
	for _, x := range []struct{ method, path, bearer, want string }{
		{"GET", "/v1/machines", text(r.token(store.Auditor)), ""},
		{"GET", "/v1/machines", text(r.token(store.Publisher)), kbs.CodeForbidden},
		{"GET", "/v1/machines", text(tenant.Token), kbs.CodeForbidden},
		{"GET", "/v1/machines", "", kbs.CodeUnauthorized},
		{"POST", incident, text(r.token(store.Auditor)), kbs.CodeForbidden},
		{"POST", incident, text(r.token(store.Publisher)), kbs.CodeForbidden},
		{"POST", incident, text(tenant.Token), kbs.CodeForbidden},
		{"DELETE", incident, text(tenant.Token), kbs.CodeForbidden},
		{"DELETE", incident, text(r.token(store.Auditor)), kbs.CodeForbidden},
	} {
		status, b := r.call(x.method, x.path, x.bearer, nil)
		if got := code(t, status, b); got != x.want {
			t.Errorf("%s %s: %q, expected %q", x.method, x.path, got, x.want)
		}
	}
	if failed := r.attested("w1", 1); failed != nil {
		t.Errorf("somebody denied it: %q", failed)
	}
}
