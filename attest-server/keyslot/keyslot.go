// Package keyslot seals the volume key in a LUKS2 keyslot under another
// DiskKey. It is the part of LUKS2 that rotating a workload's DiskKey needs
// where both DiskKeys are, so that neither has to leave the server; the header
// around the keyslot is its owner's business.
//
// LUKS2 On-Disk Format Specification 1.1.1, section 3.2 (keyslots) and 3.3
// (digests); LUKS On-Disk Format Specification 1.2.3, section 2.4 (anti-forensic
// splitter).
package keyslot

import (
	"crypto/aes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/xts"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// ErrNotOpened says that the keyslot does not hold its volume key under this
// DiskKey.
var ErrNotOpened = errors.New("the keyslot does not open with the workload's disk key")

const (
	stripes      = 4000
	sectorBytes  = 512
	alignBytes   = 4096
	areaKeyBytes = 64
	saltBytes    = 32

	minKeyBytes = 16
	maxKeyBytes = 128
	// iterations is the least that cryptsetup takes: a DiskKey of ours has 256
	// random bits. It and the rest are what `ccrun build` writes, and no more: a
	// test compares with package luks.
	iterations       = 1000
	maxArgon2Passes  = 4
	maxArgon2KiB     = 64 << 10
	maxArgon2Threads = 1
)

// Check refuses a keyslot that is not of the one form this package knows, or
// whose key would cost too much to derive.
func Check(s kbs.Keyslot) error {
	switch {
	case s.KeyBytes < minKeyBytes || s.KeyBytes > maxKeyBytes:
		return fmt.Errorf("keyslot for a key of %d bytes, expected %d to %d", s.KeyBytes, minKeyBytes, maxKeyBytes)
	case len(s.Area) != areaBytes(s.KeyBytes):
		return fmt.Errorf("keyslot area of %d bytes, expected %d", len(s.Area), areaBytes(s.KeyBytes))
	case len(s.Digest) != sha256.Size || len(s.DigestSalt) != saltBytes || len(s.KDF.Salt) != saltBytes:
		return fmt.Errorf("digest of %d bytes, salts of %d and %d, expected 32 each", len(s.Digest), len(s.DigestSalt), len(s.KDF.Salt))
	case s.DigestIterations != iterations:
		return fmt.Errorf("digest with %d iterations, expected %d", s.DigestIterations, iterations)
	}
	return checkKDF(s.KDF)
}

func checkKDF(k kbs.KeyslotKDF) error {
	switch k.Type {
	case "pbkdf2":
		if k.Iterations != iterations || k.MemoryKiB != 0 || k.Threads != 0 {
			return fmt.Errorf("pbkdf2 with %d iterations, expected %d", k.Iterations, iterations)
		}
	case "argon2id":
		if k.Iterations < 1 || k.Iterations > maxArgon2Passes || k.MemoryKiB < 32 || k.MemoryKiB > maxArgon2KiB || k.Threads < 1 || k.Threads > maxArgon2Threads {
			return fmt.Errorf("argon2id with %d passes over %d KiB by %d threads, at most %d, %d and %d are allowed, as `ccrun build` writes them",
				k.Iterations, k.MemoryKiB, k.Threads, maxArgon2Passes, maxArgon2KiB, maxArgon2Threads)
		}
	default:
		return fmt.Errorf("key derivation %.20q, expected pbkdf2 or argon2id", k.Type)
	}
	return nil
}

func areaBytes(keyBytes int) int {
	return (keyBytes*stripes + alignBytes - 1) / alignBytes * alignBytes
}

// Opens says whether the keyslot holds its volume key under diskKey: nil, or
// ErrNotOpened.
func Opens(s kbs.Keyslot, diskKey secret.Bytes) error {
	plain, err := open(s, diskKey)
	clear(plain)
	return err
}

// Reseal returns the keyslot's area, with its volume key, under another
// DiskKey. It returns ErrNotOpened unless from opens it.
func Reseal(s kbs.Keyslot, from, to secret.Bytes, rand io.Reader) (kbs.KeyslotKDF, []byte, error) {
	area, err := open(s, from)
	if err != nil {
		return kbs.KeyslotKDF{}, nil, err
	}
	kdf := kbs.KeyslotKDF{Type: "pbkdf2", Salt: make([]byte, saltBytes), Iterations: iterations}
	if _, err := io.ReadFull(rand, kdf.Salt); err != nil {
		clear(area)
		return kbs.KeyslotKDF{}, nil, fmt.Errorf("drawing keyslot salt: %w", err)
	}
	if err := crypt(area, kdf, to, (*xts.Cipher).Encrypt); err != nil {
		clear(area)
		return kbs.KeyslotKDF{}, nil, err
	}
	return kdf, area, nil
}

// open decrypts a copy of the area and proves that the stripes in it merge to
// the volume key that the digest is of. The caller wipes it.
func open(s kbs.Keyslot, diskKey secret.Bytes) ([]byte, error) {
	if err := Check(s); err != nil {
		return nil, err
	}
	if diskKey.Len() == 0 {
		return nil, ErrNotOpened
	}
	area := append([]byte(nil), s.Area...)
	if err := crypt(area, s.KDF, diskKey, (*xts.Cipher).Decrypt); err != nil {
		clear(area)
		return nil, err
	}
	volumeKey := merge(area, s.KeyBytes)
	defer clear(volumeKey)
	sum, err := pbkdf2.Key(sha256.New, string(volumeKey), s.DigestSalt, s.DigestIterations, sha256.Size)
	if err == nil && subtle.ConstantTimeCompare(sum, s.Digest) != 1 {
		err = ErrNotOpened
	}
	if err != nil {
		clear(area)
		return nil, err
	}
	return area, nil
}

func crypt(area []byte, k kbs.KeyslotKDF, diskKey secret.Bytes, do func(c *xts.Cipher, dst, src []byte, sector uint64)) error {
	key, err := derive(k, diskKey)
	if err != nil {
		return err
	}
	defer clear(key)
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return err
	}
	for i := 0; i < len(area); i += sectorBytes {
		b := area[i : i+sectorBytes]
		do(c, b, b, uint64(i/sectorBytes))
	}
	return nil
}

func derive(k kbs.KeyslotKDF, diskKey secret.Bytes) ([]byte, error) {
	if k.Type == "argon2id" {
		defer debug.FreeOSMemory() // else two derivations' memory is held until a collection
		return argon2.IDKey(diskKey.Reveal(), k.Salt, uint32(k.Iterations), uint32(k.MemoryKiB), uint8(k.Threads), areaKeyBytes), nil
	}
	return pbkdf2.Key(sha256.New, string(diskKey.Reveal()), k.Salt, k.Iterations, areaKeyBytes)
}

// merge is the anti-forensic splitter's inverse.
func merge(area []byte, n int) []byte {
	volumeKey := make([]byte, n)
	for i := range stripes - 1 {
		subtle.XORBytes(volumeKey, volumeKey, area[i*n:(i+1)*n])
		diffuse(volumeKey)
	}
	subtle.XORBytes(volumeKey, volumeKey, area[n*(stripes-1):n*stripes])
	return volumeKey
}

func diffuse(b []byte) {
	var in [4 + sha256.Size]byte
	for i := 0; len(b) > 0; i++ {
		piece := b[:min(sha256.Size, len(b))]
		binary.BigEndian.PutUint32(in[:], uint32(i))
		sum := sha256.Sum256(append(in[:4], piece...))
		copy(piece, sum[:])
		b = b[len(piece):]
	}
}
