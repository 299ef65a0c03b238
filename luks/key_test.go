package luks

import (
	"bytes"
	"testing"
)

// TestSubkey: one for each purpose and key, none the public digest, and none of
// a wiped key.
func TestSubkey(t *testing.T) {
	k := &VolumeKey{b: bytes.Repeat([]byte{1}, 96)}
	other := &VolumeKey{b: bytes.Repeat([]byte{2}, 96)}
	a, digest := k.Subkey("a"), k.Digest()
	if a.Len() != 48 || !a.Equal(k.Subkey("a")) {
		t.Errorf("%d bytes, or not the same twice", a.Len())
	}
	if a.Equal(k.Subkey("b")) || a.Equal(other.Subkey("a")) {
		t.Error("one subkey for two purposes or keys")
	}
	for _, purpose := range []string{"", volumeKeyDigestLabel} {
		if bytes.Equal(k.Subkey(purpose).Reveal(), digest[:]) {
			t.Errorf("the subkey for %q is public", purpose)
		}
	}
	k.Wipe()
	if n := k.Subkey("a").Len() + (*VolumeKey)(nil).Subkey("a").Len(); n != 0 {
		t.Error("a wiped key has a subkey")
	}
}
