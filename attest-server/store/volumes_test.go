package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

func volumeKey(b byte) secret.Bytes { return secret.New(bytes.Repeat([]byte{b}, kbs.VolumeKeyBytes)) }

// volumeStore is a store with workload "a".
func volumeStore(t *testing.T) (*DB, kbs.Digest) {
	t.Helper()
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("a", 1), "k")
	return s, digestOf(t, s, "a")
}

func openVolume(t *testing.T, s *DB, d kbs.Digest, name string, key byte) (kbs.VolumeGrant, secret.Bytes) {
	t.Helper()
	g, err := s.OpenVolume(t.Context(), "a", name, d, Guest{Session: "n", ReportID: []byte("vm")}, VolumeKey{Key: volumeKey(key)})
	if err != nil {
		t.Fatal(err)
	}
	return g, secret.New([]byte(g.Token))
}

// TestVolumeKey: the first guest's key is the volume's, and stays so.
func TestVolumeKey(t *testing.T) {
	s, d := volumeStore(t)
	for i := byte(1); i < 4; i++ {
		if g, _ := openVolume(t, s, d, "data", i); !bytes.Equal(g.Key, volumeKey(1).Reveal()) || g.Generation != 0 {
			t.Errorf("opened %d times: %x, generation %d", i, g.Key, g.Generation)
		}
	}
	if g, _ := openVolume(t, s, d, "logs", 9); !bytes.Equal(g.Key, volumeKey(9).Reveal()) {
		t.Error("two volumes of one key")
	}
	guest := Guest{Session: "n", ReportID: []byte("vm")}
	for name, try := range map[string]func() error{
		"another registration": func() error {
			_, err := s.OpenVolume(t.Context(), "a", "data", kbs.Digest{1}, guest, VolumeKey{Key: volumeKey(1)})
			return err
		},
		"no workload": func() error {
			_, err := s.OpenVolume(t.Context(), "b", "data", d, guest, VolumeKey{Key: volumeKey(1)})
			return err
		},
		"a short key": func() error {
			_, err := s.OpenVolume(t.Context(), "a", "new", d, guest, VolumeKey{Key: secret.New([]byte("short"))})
			return err
		},
	} {
		if try() == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if err := s.Confirm(t.Context(), "a", guest); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenVolume(t.Context(), "a", "data", d, guest, VolumeKey{Key: volumeKey(1)}); !errors.Is(err, ErrConfirmed) {
		t.Errorf("a confirmed guest: %v", err)
	}
	if _, err := s.Revoke(t.Context(), "a", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.OpenVolume(t.Context(), "a", "data", d, Guest{Session: "m"}, VolumeKey{Key: volumeKey(1)}); !errors.Is(err, ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
}

func TestVolumesAreBounded(t *testing.T) {
	s, d := volumeStore(t)
	for i := range kbs.MaxVolumesKept {
		openVolume(t, s, d, fmt.Sprint("v", i), 1)
	}
	if _, err := s.OpenVolume(t.Context(), "a", "more", d, Guest{Session: "n"}, VolumeKey{Key: volumeKey(1)}); !errors.Is(err, ErrLimit) {
		t.Errorf("one more: %v", err)
	}
}

// found is what a guest says that it found.
func found(generation uint64) kbs.VolumeStageRequest {
	if generation == 0 {
		return kbs.VolumeStageRequest{Found: kbs.VolumeEmpty}
	}
	return kbs.VolumeStageRequest{Found: kbs.VolumeGeneration, Generation: generation}
}

// TestVolumeCuts plays guests whose power goes after every step of opening and
// closing, with the volume as it then is: the next guest always goes on. And of
// all states that the volume ever had, it refuses those that are older than what
// was confirmed.
func TestVolumeCuts(t *testing.T) {
	const steps = 6 // of one guest: stage, write, confirm, and again to close
	s, d := volumeStore(t)
	for cuts := range steps * steps {
		disk, states := uint64(0), map[uint64]bool{}
		for life, cut := range []int{cuts % steps, cuts / steps, steps} {
			_, token := openVolume(t, s, d, "data", 1)
			var next uint64
			var err error
			for step := range cut {
				switch step % 3 {
				case 0:
					next, err = s.StageVolume(t.Context(), "a", "data", token, found(disk))
				case 1:
					disk = next
				case 2:
					err = s.ConfirmVolume(t.Context(), "a", "data", token, kbs.VolumeConfirmRequest{Generation: next, Closed: step == 5})
				}
				if err != nil {
					t.Fatalf("cuts after %d and %d steps, life %d, step %d: %v", cuts%steps, cuts/steps, life, step, err)
				}
			}
			states[disk] = true
		}
		_, token := openVolume(t, s, d, "data", 1)
		for state := range states {
			if state == disk {
				continue
			}
			if _, err := s.StageVolume(t.Context(), "a", "data", token, found(state)); !errors.Is(err, ErrRolledBack) {
				t.Errorf("cuts after %d and %d steps: generation %d in place of %d: %v", cuts%steps, cuts/steps, state, disk, err)
			}
		}
		if _, err := s.StageVolume(t.Context(), "a", "data", token, found(disk+1)); !errors.Is(err, ErrRolledBack) {
			t.Errorf("a newer state: %v", err)
		}
		if _, err := s.StageVolume(t.Context(), "a", "data", token, found(disk)); err != nil {
			t.Errorf("as it was left: %v", err)
		}
		if err := s.ForgetVolume(t.Context(), "a", "data", "x"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestVolumeStates is what a guest can find, and what the record can say.
func TestVolumeStates(t *testing.T) {
	v := volume{generation: 5}
	staged := volume{generation: 5, staged: 6}
	fresh := volume{}
	begun := volume{staged: 1}
	any, lost := volume{generation: 5, accepts: kbs.VolumeGeneration}, volume{generation: 5, accepts: kbs.VolumeEmpty}
	damaged, foreign := kbs.VolumeStageRequest{Found: kbs.VolumeDamaged}, kbs.VolumeStageRequest{Found: kbs.VolumeForeign}
	for _, c := range []struct {
		v    volume
		r    kbs.VolumeStageRequest
		pass bool
	}{
		{v, found(5), true}, {v, found(4), false}, {v, found(6), false}, {v, found(0), false}, {v, damaged, false}, {v, foreign, false}, {v, kbs.VolumeStageRequest{}, false},
		{v, kbs.VolumeStageRequest{Found: kbs.VolumeGeneration}, false},
		{staged, found(5), true}, {staged, found(6), true}, {staged, found(7), false}, {staged, found(4), false}, {staged, found(0), false},
		{fresh, found(0), true}, {fresh, found(1), false}, {fresh, damaged, false}, {fresh, foreign, false}, {fresh, kbs.VolumeStageRequest{Found: kbs.VolumeGeneration}, false},
		{begun, found(0), true}, {begun, found(1), true}, {begun, found(2), false},
		{any, found(1), true}, {any, found(9), true}, {any, found(0), false}, {any, damaged, false}, {any, foreign, false},
		{lost, found(0), true}, {lost, found(5), true}, {lost, found(4), false}, {lost, damaged, true}, {lost, foreign, false},
	} {
		if err := c.v.admits(c.r); (err == nil) != c.pass || err != nil && !errors.Is(err, ErrRolledBack) {
			t.Errorf("%+v, found %+v: %v", c.v, c.r, err)
		}
	}
}

// TestVolumeToken: who opened the volume last changes its generation, nobody else.
func TestVolumeToken(t *testing.T) {
	s, d := volumeStore(t)
	_, first := openVolume(t, s, d, "data", 1)
	if _, err := s.StageVolume(t.Context(), "a", "data", first, found(0)); err != nil {
		t.Fatal(err)
	}
	_, second := openVolume(t, s, d, "data", 1)
	other, _ := openVolume(t, s, d, "logs", 1)
	for name, token := range map[string]secret.Bytes{"an earlier guest's": first, "none": {}, "another volume's": secret.New([]byte(other.Token))} {
		if _, err := s.StageVolume(t.Context(), "a", "data", token, found(0)); !errors.Is(err, ErrVolumeTaken) {
			t.Errorf("%s: StageVolume = %v", name, err)
		}
		if err := s.ConfirmVolume(t.Context(), "a", "data", token, kbs.VolumeConfirmRequest{Generation: 1}); !errors.Is(err, ErrVolumeTaken) {
			t.Errorf("%s: ConfirmVolume = %v", name, err)
		}
	}
	if _, err := s.StageVolume(t.Context(), "a", "none", second, found(0)); !errors.Is(err, ErrVolumeTaken) {
		t.Errorf("no volume: %v", err)
	}
	for _, generation := range []uint64{0, 2, 3} {
		if err := s.ConfirmVolume(t.Context(), "a", "data", second, kbs.VolumeConfirmRequest{Generation: generation}); !errors.Is(err, ErrChanged) {
			t.Errorf("confirming generation %d: %v", generation, err)
		}
	}
	for range 2 { // the answer may be lost
		if err := s.ConfirmVolume(t.Context(), "a", "data", second, kbs.VolumeConfirmRequest{Generation: 1}); err != nil {
			t.Error(err)
		}
	}
}

// TestFullVolume keeps its generation, and what was staged is none any more.
func TestFullVolume(t *testing.T) {
	s, d := volumeStore(t)
	_, token := openVolume(t, s, d, "data", 1)
	for disk := range uint64(2) {
		next, err := s.StageVolume(t.Context(), "a", "data", token, found(disk))
		if err == nil && disk == 0 {
			err = s.ConfirmVolume(t.Context(), "a", "data", token, kbs.VolumeConfirmRequest{Generation: next})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.ConfirmVolume(t.Context(), "a", "data", token, kbs.VolumeConfirmRequest{Generation: 1}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.StageVolume(t.Context(), "a", "data", token, found(2)); !errors.Is(err, ErrRolledBack) {
		t.Errorf("what was given up: %v", err)
	}
	if _, err := s.StageVolume(t.Context(), "a", "data", token, found(1)); err != nil {
		t.Errorf("what it has: %v", err)
	}
}

// TestAcceptRollback: the owner's word holds until a guest went on with it.
func TestAcceptRollback(t *testing.T) {
	s, d := volumeStore(t)
	life := func(disk uint64) (uint64, error) {
		_, token := openVolume(t, s, d, "data", 1)
		next, err := s.StageVolume(t.Context(), "a", "data", token, found(disk))
		if err == nil {
			err = s.ConfirmVolume(t.Context(), "a", "data", token, kbs.VolumeConfirmRequest{Generation: next})
		}
		return next, err
	}
	for disk := range uint64(5) {
		if _, err := life(disk); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.RecordSession(t.Context(), kbs.SessionRecord{Session: "n", WorkloadID: "a", At: start, Granted: true}, true); err != nil {
		t.Fatal(err)
	}
	if _, err := life(2); !errors.Is(err, ErrRolledBack) {
		t.Fatalf("rolled back: %v", err)
	}
	if r, err := s.Session(t.Context(), "n"); err != nil || len(r.Volumes) != 1 || r.Volumes[0].Volume != "data" || !strings.Contains(r.Volumes[0].Why, "generation 2, the record says generation 5") {
		t.Errorf("the session's record: %+v, %v", r, err)
	}
	if all, err := s.Volumes(t.Context(), "a"); err != nil || len(all) != 1 || !strings.Contains(all[0].Refused, "generation 2") {
		t.Errorf("the volume: %+v, %v", all, err)
	}
	if _, err := s.AcceptRollback(t.Context(), "a", "data", "anything", "x"); err == nil {
		t.Error("accepted what there is not")
	}
	if _, err := s.AcceptRollback(t.Context(), "a", "none", kbs.VolumeEmpty, "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no volume: %v", err)
	}
	if _, err := s.AcceptRollback(t.Context(), "a", "data", kbs.VolumeGeneration, "x"); err != nil {
		t.Fatal(err)
	}
	now, err := life(2)
	if err != nil || now != 6 {
		t.Fatalf("accepted: generation %d, %v", now, err)
	}
	for _, old := range []uint64{2, 5, 0} {
		if _, err := life(old); !errors.Is(err, ErrRolledBack) {
			t.Errorf("generation %d, after the accepted one went on: %v", old, err)
		}
	}
	if _, err := s.AcceptRollback(t.Context(), "a", "data", kbs.VolumeEmpty, "x"); err != nil {
		t.Fatal(err)
	}
	if now, err = life(0); err != nil || now != 7 {
		t.Errorf("accepted as lost: generation %d, %v", now, err)
	}
	var told []string
	if err := s.Audit(t.Context(), 0, func(e AuditEntry) error { told = append(told, e.Action); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, action := range []string{"volume.open", "volume.refuse", "volume.accept-rollback"} {
		if !strings.Contains(strings.Join(told, " "), action) {
			t.Errorf("no %s in the audit log: %v", action, told)
		}
	}
}

// TestVolumesFollow: keys of volumes survive what moves secrets: another
// registration of their workload, another MasterKey, a copy of the store; and
// nothing removes them by the way.
func TestVolumesFollow(t *testing.T) {
	s, path, o := newStore(t)
	reg := registration("a", 1)
	mustRegister(t, s, reg, "k")
	openVolume(t, s, digestOf(t, s, "a"), "data", 7)
	for _, name := range []string{"a", "a@1"} { // by the name of its only version, too
		if err := s.Remove(t.Context(), name, "x"); !errors.Is(err, ErrHasVolumes) {
			t.Errorf("Remove(%s) = %v", name, err)
		}
	}
	more := reg
	more.ReferenceValues.Measurements = append(append([]kbs.Measurement{}, reg.ReferenceValues.Measurements...), kbs.Measurement{LaunchDigest: kbs.LaunchDigest{9}})
	if refused, err := s.Amend(t.Context(), []Amendment{{Workload: "a", From: digestOf(t, s, "a"), To: more}}, "x"); err != nil || refused[0] != nil {
		t.Fatal(refused, err)
	}
	if g, _ := openVolume(t, s, digestOf(t, s, "a"), "data", 8); !bytes.Equal(g.Key, volumeKey(7).Reveal()) {
		t.Error("another key after an update")
	}
	again := underAnotherMasterKey(t, s, path, o)
	if g, _ := openVolume(t, again, digestOf(t, again, "a"), "data", 8); !bytes.Equal(g.Key, volumeKey(7).Reveal()) {
		t.Error("another key under another MasterKey")
	}
	if strings.Contains(readAll(t, path), string(volumeKey(7).Reveal())) {
		t.Error("the key is in the store in the clear")
	}
	edit(t, again, "UPDATE workloads SET disk_key = x'00'")
	if _, err := again.OpenVolume(t.Context(), "a", "data", digestOf(t, again, "a"), Guest{Session: "n"}, VolumeKey{Key: volumeKey(1)}); !errors.Is(err, ErrTampered) {
		t.Errorf("a registration whose disk key does not open: %v", err)
	}
	edit(t, again, "DELETE FROM workloads")
	mustRegister(t, again, registration("a", 1), "k")
	edit(t, again, "UPDATE volumes SET name = 'other'")
	if _, err := again.OpenVolume(t.Context(), "a", "other", digestOf(t, again, "a"), Guest{Session: "n"}, VolumeKey{Key: volumeKey(1)}); !errors.Is(err, ErrTampered) {
		t.Errorf("a renamed volume: %v", err)
	}
	if err := again.ForgetVolume(t.Context(), "a", "other", "x"); err != nil {
		t.Error(err)
	}
	if err := again.Remove(t.Context(), "a", "x"); err != nil {
		t.Error(err)
	}
}

// TestAcceptedAsLost: the record stays what it was until a new volume was made, so
// that the owner may think better of it.
func TestAcceptedAsLost(t *testing.T) {
	s, d := volumeStore(t)
	stage := func(r kbs.VolumeStageRequest) (uint64, error) {
		_, token := openVolume(t, s, d, "data", 1)
		next, err := s.StageVolume(t.Context(), "a", "data", token, r)
		if err == nil && r.Found != kbs.VolumeDamaged {
			err = s.ConfirmVolume(t.Context(), "a", "data", token, kbs.VolumeConfirmRequest{Generation: next})
		}
		return next, err
	}
	accept := func(what string) {
		t.Helper()
		if _, err := s.AcceptRollback(t.Context(), "a", "data", what, "x"); err != nil {
			t.Fatal(err)
		}
	}
	for disk := range uint64(5) {
		if _, err := stage(found(disk)); err != nil {
			t.Fatal(err)
		}
	}
	accept(kbs.VolumeEmpty)
	if next, err := stage(kbs.VolumeStageRequest{Found: kbs.VolumeDamaged}); err != nil || next != 6 { // and then its power goes
		t.Fatal(next, err)
	}
	if g, _ := openVolume(t, s, d, "data", 1); g.Generation != 5 || g.Staged != 6 {
		t.Errorf("nothing was made, and the record says %d or %d", g.Generation, g.Staged)
	}
	accept(kbs.VolumeGeneration) // the file was found after all
	for _, r := range []kbs.VolumeStageRequest{{Found: kbs.VolumeEmpty}, {Found: kbs.VolumeDamaged}} {
		if _, err := stage(r); !errors.Is(err, ErrRolledBack) {
			t.Errorf("%s, after the owner had thought better of it: %v", r.Found, err)
		}
	}
	if next, err := stage(found(5)); err != nil || next != 7 {
		t.Errorf("as it was left: %d, %v", next, err)
	}
}

// TestWrongTokenTakesNoTurn: who has no volume's token does not wait for a turn to
// write, and so does not take one from those who attest.
func TestWrongTokenTakesNoTurn(t *testing.T) {
	s, d := volumeStore(t)
	openVolume(t, s, d, "data", 1)
	wrong := secret.New([]byte("wrong"))
	answers := make(chan error, 2)
	err := s.volumes.write(t.Context(), func(*sql.Tx) error { // the turn is ours
		go func() {
			_, err := s.StageVolume(context.Background(), "a", "data", wrong, found(0))
			answers <- err
			answers <- s.ConfirmVolume(context.Background(), "a", "data", wrong, kbs.VolumeConfirmRequest{Generation: 1})
		}()
		for range 2 {
			select {
			case err := <-answers:
				if !errors.Is(err, ErrVolumeTaken) {
					t.Errorf("answered %v", err)
				}
			case <-time.After(20 * time.Second):
				t.Error("it waits for its turn")
				return nil
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// underAnotherMasterKey changes the store's MasterKey, and opens it anew.
func underAnotherMasterKey(t *testing.T, s *DB, path string, o Options) *DB {
	t.Helper()
	next, err := masterkey.New(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RotateMasterKey(t.Context(), secret.New(append([]byte(nil), next.Reveal()...)), "local"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	o.MasterKey = next
	again, err := reopen(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	return again
}
