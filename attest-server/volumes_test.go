package attestserver

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

func freshKey(b byte) secret.Bytes { return secret.New(bytes.Repeat([]byte{b}, kbs.VolumeKeyBytes)) }

// TestVolumeRoutes: a guest opens its volume and changes its generation; what it
// finds is judged; the owner sees all of it, and has the last word.
func TestVolumeRoutes(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	r.register("w2", 2)
	open := func(id string, digest, vm, key byte) (kbs.VolumeGrant, *kbs.VolumeClient) {
		t.Helper()
		c, req := r.vm(id, digest, vm)
		s, k, err := c.Open(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		k.Wipe()
		g, err := s.OpenVolume(t.Context(), "data", freshKey(key))
		if err != nil {
			t.Fatal(err)
		}
		return g, &kbs.VolumeClient{Client: &c, Workload: id, Volume: "data", Token: g.Token}
	}
	g, v := open("w1", 1, 9, 7)
	if !bytes.Equal(g.Key, freshKey(7).Reveal()) || g.Generation != 0 {
		t.Fatalf("first use: %+v", g)
	}
	next, err := v.Stage(t.Context(), kbs.VolumeEmpty, 0)
	if err != nil || next != 1 {
		t.Fatal(next, err)
	}
	if err := v.Confirm(t.Context(), next, false); err != nil {
		t.Fatal(err)
	}
	if g2, _ := open("w2", 2, 8, 6); bytes.Equal(g2.Key, g.Key) {
		t.Error("two workloads' volumes of one key")
	}
	again, v2 := open("w1", 1, 10, 5)
	if !bytes.Equal(again.Key, g.Key) || again.Generation != 1 || again.Token == g.Token {
		t.Errorf("opened again: generation %d", again.Generation)
	}
	_, err = v.Stage(t.Context(), kbs.VolumeGeneration, 1)
	if got := problemCode(t, err); got != kbs.CodeVolumeTaken {
		t.Errorf("the first guest, after the second: %s", got)
	}
	if err == nil || !strings.Contains(err.Error(), "for volume data: ") || strings.Contains(err.Error(), "disk key") {
		t.Errorf("the error does not say what was asked for: %v", err)
	}
	for _, found := range []string{kbs.VolumeEmpty, kbs.VolumeDamaged, kbs.VolumeForeign} {
		_, err = v2.Stage(t.Context(), found, 0)
		if got := problemCode(t, err); got != kbs.CodeVolumeRolledBack {
			t.Errorf("%s: %s", found, got)
		}
	}
	for _, bad := range []kbs.VolumeStageRequest{{}, {Found: "x"}, {Found: kbs.VolumeGeneration}, {Found: kbs.VolumeEmpty, Generation: 1}, {Found: kbs.VolumeGeneration, Generation: 1<<64 - 1}} {
		_, err = v2.Stage(t.Context(), bad.Found, bad.Generation)
		if got := problemCode(t, err); got != kbs.CodeBadRequest {
			t.Errorf("%+v: %s", bad, got)
		}
	}
	status, b := r.call("GET", "/v1/workloads/w1/volumes", text(r.admin.Token), nil)
	if status != http.StatusOK || !bytes.Contains(b, []byte(`"refused":"another volume is in its place`)) || bytes.Contains(b, []byte("BwcHBwcH")) {
		t.Errorf("volumes: %d %s", status, b)
	}
	if status, b := r.call("DELETE", "/v1/workloads/w1", text(r.admin.Token), nil); status != http.StatusConflict {
		t.Errorf("removing a workload with volumes: %d %s", status, b)
	}
	if status, b := r.call("POST", "/v1/workloads/w1/volumes/data/accept-rollback", text(r.admin.Token), kbs.VolumeAcceptRequest{Empty: true}); status != http.StatusOK {
		t.Errorf("accepting: %d %s", status, b)
	}
	if _, err := v2.Stage(t.Context(), kbs.VolumeEmpty, 0); err != nil {
		t.Errorf("accepted as lost: %v", err)
	}
	if status, err := r.admin.RekeyVolume(t.Context(), "w1", "data"); err != nil || !status.Rekey {
		t.Errorf("rekeying: %+v, %v", status, err)
	}
	if err := v2.Rekeyed(t.Context()); problemCode(t, err) != kbs.CodeConflict {
		t.Errorf("a guest that has no other key: %v", err)
	}
	last, v3 := open("w1", 1, 11, 4)
	if !bytes.Equal(last.Key, g.Key) || !bytes.Equal(last.Next, freshKey(4).Reveal()) {
		t.Errorf("to be rekeyed: %d bytes of a next key", len(last.Next))
	}
	if err := v3.Rekeyed(t.Context()); err != nil {
		t.Error(err)
	}
	if last, _ = open("w1", 1, 12, 3); !bytes.Equal(last.Key, freshKey(4).Reveal()) || last.Next != nil {
		t.Error("rekeyed, it has not the key that the guest drew")
	}
	for _, path := range []string{"/v1/workloads/w1/volumes/data/rekey", "/v1/workloads/w1/volumes/data/rekeyed", "/v1/workloads/w1/volumes/data/accept-rollback", "/v1/workloads/w1/volumes/data/open", "/v1/workloads/w1/volumes/data/stage", "/v1/workloads/w1/volumes/data/confirm"} {
		if status, b := r.call("POST", path, "", struct{}{}); status != http.StatusUnauthorized {
			t.Errorf("%s without a token: %d %s", path, status, b)
		}
	}
	if status, b := r.call("DELETE", "/v1/workloads/w1/volumes/data", text(r.admin.Token), nil); status != http.StatusNoContent {
		t.Errorf("forgetting: %d %s", status, b)
	}
}

// TestVolumeOfAConfirmedVM: what follows from a guest's start gets no volume's key.
func TestVolumeOfAConfirmedVM(t *testing.T) {
	r := newRig(t)
	r.register("w1", 1)
	c, req := r.vm("w1", 1, 9)
	s, k, err := c.Open(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	k.Wipe()
	if err := c.Confirm(t.Context(), req, s); err != nil {
		t.Fatal(err)
	}
	_, err = s.OpenVolume(t.Context(), "data", freshKey(1))
	if got := problemCode(t, err); got != kbs.CodeAlreadyReleased {
		t.Errorf("OpenVolume: %s", got)
	}
}
