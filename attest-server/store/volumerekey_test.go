package store

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// twoHalves is a volume's area as krun/guest has it.
type twoHalves struct {
	half     int // of the header
	rekeying bool
	data     [2]struct {
		key        string
		generation uint64
	}
}

// find is the half that opens with that key.
func (a *twoHalves) find(key []byte) int {
	if a.data[a.half].key == string(key) {
		return a.half
	}
	if a.rekeying && a.data[1-a.half].key == string(key) {
		return 1 - a.half
	}
	return -1
}

// life is a guest's that opens, rekeys and closes its volume, until its power goes
// after so many steps. It says whether it got so far.
func (a *twoHalves) life(t *testing.T, s *DB, d kbs.Digest, key byte, steps int) (done bool) {
	t.Helper()
	g, token := openToRekey(t, s, d, key)
	at := a.find(g.Key)
	if at < 0 {
		t.Fatalf("the volume does not open: %+v", *a)
	}
	var next uint64
	var err error
	stage := func() { next, err = s.StageVolume(t.Context(), "a", "data", token, found(a.data[at].generation)) }
	write := func() { a.data[at].generation = next }
	confirm := func() {
		err = s.ConfirmVolume(t.Context(), "a", "data", token, kbs.VolumeConfirmRequest{Generation: next})
	}
	all := []func(){func() { a.half, a.rekeying = at, false }, stage, write, confirm}
	if g.Next != nil {
		all = append(all,
			func() { a.rekeying = true },
			func() { a.data[1-at].key, a.data[1-at].generation = "half copied", 0 },
			func() { a.data[1-at].key, a.data[1-at].generation = string(g.Next), a.data[at].generation },
			func() { err = s.VolumeRekeyed(t.Context(), "a", "data", token); at = 1 - at },
			func() { a.half, a.rekeying = at, false })
	}
	all = append(all, stage, write, confirm)
	for i, step := range all {
		if i == steps {
			return false
		}
		if step(); err != nil {
			t.Fatalf("step %d of %d: %v", i, steps, err)
		}
	}
	return true
}

func openToRekey(t *testing.T, s *DB, d kbs.Digest, key byte) (kbs.VolumeGrant, secret.Bytes) {
	t.Helper()
	g, err := s.OpenVolume(t.Context(), "a", "data", d, Guest{Session: "n", ReportID: []byte("vm")}, VolumeKey{Key: volumeKey(key), Rekeys: true})
	if err != nil {
		t.Fatal(err)
	}
	return g, secret.New([]byte(g.Token))
}

// TestRekeyCuts: wherever power goes, twice, while a volume is rekeyed, the next
// guest opens it with all that it had; and in the end it has another key.
func TestRekeyCuts(t *testing.T) {
	const most = 13
	s, d := volumeStore(t)
	for cuts := range most * most {
		if cuts%5 != 0 && os.Getenv("CCRUN_LONG") == "" { // with each cut as the first, and as the second
			continue
		}
		g, _ := openToRekey(t, s, d, 1)
		a := &twoHalves{}
		a.data[0].key = string(g.Key)
		if next, err := s.StageVolume(t.Context(), "a", "data", secret.New([]byte(g.Token)), found(0)); err == nil {
			a.data[0].generation = next
		}
		if st, err := s.RekeyVolume(t.Context(), "a", "data", "x"); err != nil || !st.Rekey {
			t.Fatal(st, err)
		}
		for i, steps := range []int{cuts % most, cuts / most, most} {
			a.life(t, s, d, byte(2+i), steps)
		}
		last, token := openToRekey(t, s, d, 9)
		if at := a.find(last.Key); bytes.Equal(last.Key, g.Key) || last.Next != nil || at < 0 {
			t.Fatalf("cuts after %d and %d steps: %+v", cuts%most, cuts/most, *a)
		} else if _, err := s.StageVolume(t.Context(), "a", "data", token, found(a.data[at].generation)); err != nil {
			t.Error(err)
		}
		if err := s.ForgetVolume(t.Context(), "a", "data", "x"); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRekey: until a guest has all under its own key, the volume keeps the one it
// has, whatever guests begin; and who cannot rekey is given nothing to do.
func TestRekey(t *testing.T) {
	s, path, o := newStore(t)
	mustRegister(t, s, registration("a", 1), "k")
	d := digestOf(t, s, "a")
	is := func(s *DB, g kbs.VolumeGrant, key, next byte) {
		t.Helper()
		if !bytes.Equal(g.Key, volumeKey(key).Reveal()) || (next == 0) != (g.Next == nil) || next != 0 && !bytes.Equal(g.Next, volumeKey(next).Reveal()) {
			t.Errorf("keys %x, %x, expected %d, %d", g.Key, g.Next, key, next)
		}
	}
	if _, err := s.RekeyVolume(t.Context(), "a", "data", "x"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no volume: %v", err)
	}
	g, token := openToRekey(t, s, d, 1)
	is(s, g, 1, 0)
	if _, err := s.RekeyVolume(t.Context(), "a", "data", "x"); err != nil {
		t.Fatal(err)
	}
	if err := s.VolumeRekeyed(t.Context(), "a", "data", token); !errors.Is(err, ErrChanged) {
		t.Errorf("a guest that was given no other key: %v", err)
	}
	g, _ = openVolume(t, s, d, "data", 2) // an agent that cannot
	is(s, g, 1, 0)
	g, first := openToRekey(t, s, d, 3)
	is(s, g, 1, 3)
	g, cannot := openVolume(t, s, d, "data", 2)
	is(s, g, 1, 0)
	if err := s.VolumeRekeyed(t.Context(), "a", "data", cannot); !errors.Is(err, ErrChanged) {
		t.Errorf("a guest after the one that was given another key: %v", err)
	}
	g, second := openToRekey(t, s, d, 4)
	is(s, g, 1, 4)
	if err := s.VolumeRekeyed(t.Context(), "a", "data", first); !errors.Is(err, ErrVolumeTaken) {
		t.Errorf("an earlier guest: %v", err)
	}
	again := underAnotherMasterKey(t, s, path, o)
	for range 2 { // the answer may be lost
		if err := again.VolumeRekeyed(t.Context(), "a", "data", second); err != nil {
			t.Error(err)
		}
	}
	g, _ = openToRekey(t, again, d, 5)
	is(again, g, 4, 0)
}
