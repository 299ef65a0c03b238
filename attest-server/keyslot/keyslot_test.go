package keyslot

import (
	"crypto/rand"
	"errors"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/luks/lukstest"
	"github.com/ccrun/ccrun/secret"
)

// disk is a small disk made by the package that guests open disks with.
func slotOf(t testing.TB, h *luks.Header) kbs.Keyslot {
	t.Helper()
	s, err := h.SealedSlot()
	if err != nil {
		t.Fatal(err)
	}
	return kbs.Keyslot{
		KDF:  kbs.KeyslotKDF{Type: s.KDF.Type, Salt: s.Salt, Iterations: s.KDF.Iterations, MemoryKiB: s.KDF.MemoryKiB, Threads: s.KDF.Threads},
		Area: s.Area, KeyBytes: s.VolumeKeyBytes, DigestSalt: s.DigestSalt, DigestIterations: s.DigestIterations, Digest: s.Digest,
	}
}

// TestResealOpensInLUKS: what this package seals, the guest's LUKS opens, with
// the same volume key, and with the old DiskKey no more.
func TestResealOpensInLUKS(t *testing.T) {
	argon := luks.KDF{Type: "argon2id", Iterations: 1, MemoryKiB: 64, Threads: 1}
	aegis, err := luks.NewGeometry("11111111-2222-4333-8444-555555555555", 64<<10, luks.AEGIS128, true)
	if err != nil {
		t.Fatal(err)
	}
	for name, d := range map[string]lukstest.Disk{
		"random":     lukstest.New(t, "old", luks.FastKDF(), true),
		"passphrase": lukstest.New(t, "old", argon, true),
		"short key":  lukstest.Of(t, "old", luks.FastKDF(), aegis),
	} {
		t.Run(name, func(t *testing.T) {
			h := d.Header
			old, fresh := secret.New([]byte("old")), secret.New([]byte("new"))
			k, area, err := Reseal(slotOf(t, h), old, fresh, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			front, err := h.ReplaceSlot(luks.KDF{Type: k.Type, Hash: "sha256", Iterations: k.Iterations}, k.Salt, area, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			copy(d.Bytes, front)
			h = lukstest.Header(t, d.Bytes)
			got, err := h.Unlock(fresh)
			if err != nil || got.Digest() != d.VolumeKey.Digest() {
				t.Fatalf("new disk key: %v", err)
			}
			if _, err := h.Unlock(old); !errors.Is(err, luks.ErrWrongPassphrase) {
				t.Errorf("old disk key: %v", err)
			}
			if err := Opens(slotOf(t, h), fresh); err != nil {
				t.Errorf("resealed again: %v", err)
			}
		})
	}
}

func TestResealRefuses(t *testing.T) {
	h := lukstest.New(t, "old", luks.FastKDF(), true).Header
	for name, change := range map[string]func(*kbs.Keyslot){
		"area's first byte":       func(s *kbs.Keyslot) { s.Area[0] ^= 1 },
		"area's last stripe":      func(s *kbs.Keyslot) { s.Area[s.KeyBytes*stripes-1] ^= 1 },
		"area cut short":          func(s *kbs.Keyslot) { s.Area = s.Area[1:] },
		"no area":                 func(s *kbs.Keyslot) { s.Area = nil },
		"key of no bytes":         func(s *kbs.Keyslot) { s.KeyBytes, s.Area = 0, nil },
		"negative key":            func(s *kbs.Keyslot) { s.KeyBytes = -96 },
		"key of 15 bytes":         func(s *kbs.Keyslot) { s.KeyBytes, s.Area = 15, make([]byte, areaBytes(15)) },
		"huge key":                func(s *kbs.Keyslot) { s.KeyBytes = 1 << 30 },
		"digest":                  func(s *kbs.Keyslot) { s.Digest[31] ^= 1 },
		"no digest":               func(s *kbs.Keyslot) { s.Digest = nil },
		"digest salt":             func(s *kbs.Keyslot) { s.DigestSalt[0] ^= 1 },
		"one digest iteration":    func(s *kbs.Keyslot) { s.DigestIterations = 1 },
		"endless digest":          func(s *kbs.Keyslot) { s.DigestIterations = 1 << 30 },
		"salt":                    func(s *kbs.Keyslot) { s.KDF.Salt[0] ^= 1 },
		"no salt":                 func(s *kbs.Keyslot) { s.KDF.Salt = nil },
		"other iterations":        func(s *kbs.Keyslot) { s.KDF.Iterations++ },
		"endless iterations":      func(s *kbs.Keyslot) { s.KDF.Iterations = 1 << 30 },
		"unknown key derivation":  func(s *kbs.Keyslot) { s.KDF.Type = "scrypt" },
		"argon2id without memory": func(s *kbs.Keyslot) { s.KDF.Type, s.KDF.Iterations, s.KDF.Threads = "argon2id", 1, 1 },
		"argon2id with 4 GiB": func(s *kbs.Keyslot) {
			s.KDF.Type, s.KDF.Iterations, s.KDF.Threads, s.KDF.MemoryKiB = "argon2id", 1, 1, 4<<20
		},
	} {
		s := slotOf(t, h)
		change(&s)
		if _, area, err := Reseal(s, secret.New([]byte("old")), secret.New([]byte("new")), rand.Reader); err == nil || area != nil {
			t.Errorf("%s: resealed", name)
		}
	}
	for name, k := range map[string]string{"other disk key": "other", "empty disk key": ""} {
		if _, _, err := Reseal(slotOf(t, h), secret.New([]byte(k)), secret.New([]byte("new")), rand.Reader); !errors.Is(err, ErrNotOpened) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestTakesWhatIsWritten: the dearest keyslot that `ccrun build` writes is taken,
// and none that costs more.
func TestTakesWhatIsWritten(t *testing.T) {
	salt := make([]byte, saltBytes)
	of := func(k luks.KDF) kbs.KeyslotKDF {
		return kbs.KeyslotKDF{Type: k.Type, Salt: salt, Iterations: k.Iterations, MemoryKiB: k.MemoryKiB, Threads: k.Threads}
	}
	own := []kbs.KeyslotKDF{of(luks.FastKDF()), of(luks.PassphraseKDF())}
	for _, k := range own {
		if err := checkKDF(k); err != nil {
			t.Errorf("%+v: %v", k, err)
		}
		k.Iterations++
		if checkKDF(k) == nil {
			t.Errorf("%+v was taken", k)
		}
	}
	dearer := own[1]
	dearer.MemoryKiB++
	if checkKDF(dearer) == nil {
		t.Errorf("%+v was taken", dearer)
	}
	dearer = own[1]
	dearer.Threads++
	if checkKDF(dearer) == nil {
		t.Errorf("%+v was taken", dearer)
	}
}
