package store

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/tuple"
)

// shownSNP is what an SNP guest shows that was launched with no HOST_DATA.
func shownSNP() tuple.Tuple { return tuple.OfSNP(make([]byte, 32), nil) }

func register48(b byte) string { return strings.Repeat(fmt.Sprintf("%02x", b), 48) }

// tdRegistration is of a TD whose firmware is everybody's.
func tdRegistration(id string, kernel byte) kbs.Registration {
	r := registration(id, 0x91)
	r.ReferenceValues.TEE = kbs.TDX
	r.ReferenceValues.TDX = &kbs.TDXRules{RTMRs: map[string]string{"0": register48(10), "1": register48(kernel), "2": register48(kernel)}}
	return r
}

func shownTD(kernel byte) tuple.Tuple {
	fill := func(b byte) []byte { return bytes.Repeat([]byte{b}, 48) }
	return tuple.OfTDX(fill(0), [4][]byte{fill(10), fill(kernel), fill(kernel), fill(0)}, nil)
}

// azureRegistration is of a guest behind a paravisor that is everybody's.
func azureRegistration(id string, pcrs map[string]byte) kbs.Registration {
	r := registration(id, 0x44)
	r.ReferenceValues.VTPM = &kbs.VTPMRules{PCRs: map[string]string{}}
	for n, b := range pcrs {
		r.ReferenceValues.VTPM.PCRs[n] = register48(b)[:64]
	}
	return r
}

func shownAzure(pcrs map[int]byte) tuple.Tuple {
	bank := make([][]byte, 24)
	for n := range bank {
		bank[n] = bytes.Repeat([]byte{pcrs[n]}, 32)
	}
	return tuple.OfSNP(make([]byte, 32), bank)
}

func TestWorkloadOf(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, registration("a", 1, 2), "key-a")
	legacy := registration("b", 3)
	legacy.Type, legacy.IdentityDigest, legacy.FooterDigest = kbs.TypeLegacy, kbs.Digest{}, kbs.Digest{}
	mustRegister(t, s, legacy, "key-b")
	for digest, want := range map[byte]string{1: "a", 2: "a", 3: "b"} {
		w, err := s.WorkloadOf(t.Context(), kbs.LaunchDigest{digest}, shownSNP())
		if err != nil || !w.Whole || w.Registration.WorkloadID != want || w.Digest.IsZero() {
			t.Errorf("digest %d: %+v, %v", digest, w, err)
		}
	}
	for _, d := range []kbs.LaunchDigest{{}, {9}} {
		if w, err := s.WorkloadOf(t.Context(), d, shownSNP()); !errors.Is(err, ErrNotFound) {
			t.Errorf("digest %s: %+v, %v", d, w, err)
		}
	}
	if w, err := s.WorkloadOf(t.Context(), kbs.LaunchDigest{1}, tuple.Tuple{}); err != nil || w.Whole {
		t.Errorf("nothing shown: %+v, %v", w, err)
	}
	if err := s.Remove(t.Context(), "a", "x"); err != nil {
		t.Fatal(err)
	}
	if w, err := s.WorkloadOf(t.Context(), kbs.LaunchDigest{1}, shownSNP()); !errors.Is(err, ErrNotFound) {
		t.Errorf("removed: %+v, %v", w, err)
	}
}

// TestTuplesTellApart: workloads of one launch digest live beside one another
// where the rest tells them apart, each Evidence is one's alone, and no order of
// registering lets in one that another's Evidence could be.
func TestTuplesTellApart(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, tdRegistration("td1", 1), "key")
	mustRegister(t, s, tdRegistration("td2", 2), "key")
	mustRegister(t, s, azureRegistration("az1", map[string]byte{"4": 4, "8": 1}), "key")
	mustRegister(t, s, azureRegistration("az2", map[string]byte{"4": 4, "8": 2}), "key")
	for want, x := range map[string]struct {
		digest byte
		shown  tuple.Tuple
	}{
		"td1": {0x91, shownTD(1)}, "td2": {0x91, shownTD(2)},
		"az1": {0x44, shownAzure(map[int]byte{4: 4, 8: 1})}, "az2": {0x44, shownAzure(map[int]byte{4: 4, 8: 2, 9: 9})},
	} {
		if w, err := s.WorkloadOf(t.Context(), kbs.LaunchDigest{x.digest}, x.shown); err != nil || !w.Whole || w.Registration.WorkloadID != want {
			t.Errorf("%s: %+v, %v", want, w, err)
		}
	}
	for name, x := range map[string]struct {
		reg   kbs.Registration
		other string
	}{
		"the same TD":          {tdRegistration("x", 2), "td2"},
		"fewer PCRs":           {azureRegistration("x", map[string]byte{"4": 4}), "az1"},
		"more PCRs":            {azureRegistration("x", map[string]byte{"4": 4, "8": 2, "9": 9}), "az2"},
		"some of each":         {azureRegistration("x", map[string]byte{"4": 4, "9": 9}), "az1"},
		"a second measurement": {withMeasurement(azureRegistration("x", map[string]byte{"4": 4, "8": 1}), 0x45), "az1"},
	} {
		var dup *DuplicateIdentityError
		if _, err := s.Register(t.Context(), x.reg, nil, diskKey("k"), "x"); !errors.As(err, &dup) || dup.WorkloadID != x.other {
			t.Errorf("%s: %v, expected to be told of %s", name, err, x.other)
		}
	}
	if created, err := s.Register(t.Context(), tdRegistration("td2", 2), nil, diskKey("key"), "x"); err != nil || created {
		t.Errorf("the same again: %v, %v", created, err)
	}
}

func withMeasurement(r kbs.Registration, digest byte) kbs.Registration {
	r.ReferenceValues.Measurements = append([]kbs.Measurement{{LaunchDigest: kbs.LaunchDigest{digest}}}, r.ReferenceValues.Measurements...)
	return r
}

// TestNearest: Evidence that is nobody's whole is told of the one it misses
// least, and whether what it is told concerns several owners.
func TestNearest(t *testing.T) {
	s, _, _ := newStore(t)
	if err := s.SetTenant(t.Context(), "acme", 5, 5, "x"); err != nil {
		t.Fatal(err)
	}
	mustRegister(t, s, azureRegistration("one", map[string]byte{"4": 1, "8": 1, "9": 1}), "key")
	nearest := func(shown tuple.Tuple, want string, among int, shared bool) {
		t.Helper()
		c, err := s.WorkloadOf(t.Context(), kbs.LaunchDigest{0x44}, shown)
		if err != nil || c.Whole || c.Registration.WorkloadID != want || c.Among != among || c.Shared != shared {
			t.Errorf("nearest %s of %d, shared %v, whole %v, %v; expected %s of %d, %v", c.Registration.WorkloadID, c.Among, c.Shared, c.Whole, err, want, among, shared)
		}
	}
	nearest(shownAzure(map[int]byte{4: 1}), "one", 1, false)
	mustRegister(t, s, azureRegistration("two.of.no.tenant", map[string]byte{"4": 2, "8": 2, "9": 2}), "key")
	nearest(shownAzure(map[int]byte{4: 2, 8: 2, 9: 1}), "two.of.no.tenant", 2, false)
	nearest(shownAzure(map[int]byte{4: 2, 8: 1, 9: 1}), "one", 2, false)
	mustRegister(t, s, azureRegistration("acme.w", map[string]byte{"4": 3, "8": 3, "9": 3}), "key")
	nearest(shownAzure(map[int]byte{4: 2, 8: 1, 9: 1}), "one", 3, true)
}

// TestAmbiguityIsNobody: should two registrations have one identity after all,
// neither is the guest's.
func TestAmbiguityIsNobody(t *testing.T) {
	s, _, _ := newStore(t)
	mustRegister(t, s, tdRegistration("td1", 1), "key")
	mustRegister(t, s, tdRegistration("td2", 2), "key")
	edit(t, s, "UPDATE workloads SET registration = (SELECT registration FROM workloads WHERE id = 'td1') WHERE id = 'td2'")
	edit(t, s, "UPDATE identities SET fixed = NULL")
	if c, err := s.WorkloadOf(t.Context(), kbs.LaunchDigest{0x91}, shownTD(1)); !errors.Is(err, ErrAmbiguous) || c.Whole || c.Registration.WorkloadID != "" {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestMigrateIdentities: what an attest-server registered that knew launch digests
// alone is found, keeps others from its identity, and lets in those it rules out.
func TestMigrateIdentities(t *testing.T) {
	const old = 11 // the last with one workload a launch digest
	reg := tdRegistration("td1", 1)
	canonical, err := kbs.Canonical(reg)
	if err != nil {
		t.Fatal(err)
	}
	s := migrated(t, old, func(exec func(string, ...any)) {
		for _, id := range []string{"td1", "td2"} { // td2 claims its launch digest later
			exec(`INSERT INTO workloads(id, tee, image, registration, disk_key, registered_at, registered_by) VALUES(?,?,?,?,?,?,?)`,
				id, "tdx", "", canonical, []byte("sealed"), unixMilli(start), "x")
		}
		d := kbs.LaunchDigest{0x91}
		exec("INSERT INTO measurements(launch_digest, workload) VALUES(?, ?)", d[:], "td1")
	})
	if w, err := s.WorkloadOf(t.Context(), kbs.LaunchDigest{0x91}, shownTD(1)); err != nil || !w.Whole || w.Registration.WorkloadID != "td1" {
		t.Errorf("%+v, %v", w, err)
	}
	claim := func(id string, kernel byte) error {
		tx, err := s.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		identity, err := tuple.Of(tdRegistration(id, kernel).ReferenceValues)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.claimTuple(t.Context(), tx, kbs.LaunchDigest{0x91}, identity, id); err != nil {
			return err
		}
		return nil
	}
	var dup *DuplicateIdentityError
	if err := claim("td2", 1); !errors.As(err, &dup) || dup.WorkloadID != "td1" {
		t.Errorf("its identity: %v", err)
	}
	if err := claim("td2", 2); err != nil {
		t.Errorf("another kernel: %v", err)
	}
	if err := claim("td1", 1); err != nil {
		t.Errorf("itself: %v", err)
	}
}
