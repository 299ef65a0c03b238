package luks

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// PassphraseKDF is for passphrases that a person may have made up: argon2id,
// four passes over 64 MiB.
func PassphraseKDF() KDF {
	return KDF{Type: "argon2id", Iterations: 4, MemoryKiB: 64 << 10, Threads: 1}
}

// ownKDFs are those that this package's users write, and what a guest may be
// made to compute.
func ownKDFs() []KDF { return []KDF{FastKDF(), PassphraseKDF()} }

// ReadOwnHeader is ReadHeader for whoever must not be steered by the holder of
// the disk: the header is measured by nobody, and its checksums are without a
// key. All that chooses an algorithm or costs time or memory must be as this
// package writes it: one keyslot in its place, one of two key derivations,
// SHA-256, no tokens. Nothing is allocated for what is refused.
func ReadOwnHeader(r io.ReaderAt, size int64) (*Header, error) {
	return readHeader(r, size, (*metadata).validateOwn)
}

// validateOwn accepts of what validate does only what newMetadata makes.
func (m *metadata) validateOwn(headerBytes int64) error {
	k, d := m.Keyslots["0"], m.Digests["0"]
	switch {
	case headerBytes != minHeaderBytes:
		return fmt.Errorf("LUKS2 header of %d bytes, expected %d", headerBytes, minHeaderBytes)
	case len(m.Keyslots) != 1 || k.Type == "":
		return fmt.Errorf("%d keyslots, expected keyslot 0 alone", len(m.Keyslots))
	case len(m.Tokens) != 0 || m.Config.Flags != nil:
		return errors.New("LUKS2 header with tokens or flags, expected none")
	case k.Priority != nil:
		return errors.New("keyslot with a priority, expected none")
	case int64(k.Area.Offset) != 2*headerBytes || k.Area.KeyBytes != 64:
		return fmt.Errorf("keyslot area at %d with a key of %d bytes, expected %d and 64", k.Area.Offset, k.Area.KeyBytes, 2*headerBytes)
	case k.AF.Hash != "sha256" || d.Hash != "sha256":
		return fmt.Errorf("hashes %.20q and %.20q, expected sha256", k.AF.Hash, d.Hash)
	case d.Iterations != minPBKDF2Iterations:
		return fmt.Errorf("digest with %d iterations, expected %d", d.Iterations, minPBKDF2Iterations)
	case !slices.Equal(d.Keyslots, []string{"0"}):
		return fmt.Errorf("digest for keyslots %.20q, expected 0", d.Keyslots)
	case !slices.Contains(ownKDFs(), k.KDF.kdf()):
		return fmt.Errorf("key derivation %+v, expected one of %+v", k.KDF.kdf(), ownKDFs())
	}
	return nil
}

// UnlockBytes is about how much memory Unlock takes for the dearest keyslot.
func (h *Header) UnlockBytes() int64 {
	var most int64
	for name, k := range h.meta.Keyslots {
		most = max(most, int64(k.KDF.kdf().MemoryKiB)<<10+2*int64(len(h.areas[name])))
	}
	return most
}
