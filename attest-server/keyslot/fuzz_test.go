package keyslot

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/luks"
	"github.com/ccrun/ccrun/luks/lukstest"
	"github.com/ccrun/ccrun/secret"
)

// FuzzReseal: whatever a keyslot claims, it is refused or holds the volume key
// under the new DiskKey, and costs no more than Check allows.
func FuzzReseal(f *testing.F) {
	h := lukstest.New(f, "old", luks.FastKDF(), true).Header
	good := slotOf(f, h)
	area := good.Area
	good.Area = nil
	head, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head, 0, byte(0))
	f.Add(head, 5, byte(1))
	f.Add(bytes.Replace(head, []byte("pbkdf2"), []byte("argon2id"), 1), 0, byte(0))
	f.Add([]byte(`{"key_bytes":-1}`), 0, byte(0))
	old, fresh := secret.New([]byte("old")), secret.New([]byte("new"))
	f.Fuzz(func(t *testing.T, head []byte, at int, flip byte) {
		var s kbs.Keyslot
		if json.Unmarshal(head, &s) != nil {
			return
		}
		if s.Area == nil {
			s.Area = bytes.Clone(area)
		}
		if at >= 0 && at < len(s.Area) {
			s.Area[at] ^= flip
		}
		kdf, out, err := Reseal(s, old, fresh, rand.Reader)
		if err != nil {
			if out != nil {
				t.Fatal("an area with an error")
			}
			return
		}
		s.KDF, s.Area = kdf, out
		if err := Opens(s, fresh); err != nil {
			t.Fatalf("resealed, but: %v", err)
		}
	})
}
