package recipient

import (
	"encoding/hex"
	"testing"
)

// The answers are of facts about Trustee, computed by running its own code.
func TestKeyWrapKnownAnswers(t *testing.T) {
	z, cek := make([]byte, 32), make([]byte, 32)
	for i := range z {
		z[i], cek[i] = byte(i), byte(0x20+i)
	}
	kek := concatKDF(z)
	if hex.EncodeToString(kek) != "ead36a3ab953bb6e5a6709471c0fd35fcc62cf920994cede2f3aa2544e9f47ac" {
		t.Errorf("KEK %x", kek)
	}
	wrapped, err := wrapKey(kek, cek)
	if err != nil || hex.EncodeToString(wrapped) != "1a289656c9a62248df8675029e2708e1470d47fe6893e607bd0e6042832b794c3deb503a5a54048f" {
		t.Errorf("wrapped %x, %v", wrapped, err)
	}
}
