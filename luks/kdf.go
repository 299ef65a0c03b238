package luks

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"

	"golang.org/x/crypto/argon2"
)

// KDF is how a keyslot turns a passphrase into its key. The zero value is
// refused; FastKDF is the one for random passphrases.
type KDF struct {
	Type       string // "pbkdf2", "argon2i" or "argon2id"
	Hash       string // pbkdf2: "sha256" or "sha512"
	Iterations int    // pbkdf2: iterations; argon2: passes
	MemoryKiB  int    // argon2
	Threads    int    // argon2
}

// FastKDF is PBKDF2-SHA256 with the least iterations cryptsetup writes. It is
// for passphrases that are themselves 256 random bits: stretching adds
// nothing to them, and a guest under emulation does some 100 000 iterations a
// second.
func FastKDF() KDF { return KDF{Type: "pbkdf2", Hash: "sha256", Iterations: 1000} }

// Limits on what a header may make us compute: a few seconds and 1 GiB, the
// most cryptsetup chooses by itself.
const (
	minPBKDF2Iterations = 1000
	maxPBKDF2Iterations = 1 << 24
	minArgon2Passes     = 1
	maxArgon2Passes     = 64
	minArgon2MemoryKiB  = 32
	maxArgon2MemoryKiB  = 1 << 20
	maxArgon2Threads    = 16
	saltBytes           = 32
)

func hashByName(name string) (func() hash.Hash, error) {
	switch name {
	case "sha256":
		return sha256.New, nil
	case "sha512":
		return sha512.New, nil
	}
	return nil, fmt.Errorf("hash %.20q, expected sha256 or sha512", name)
}

// Validate refuses unknown functions and costs out of bounds.
func (k KDF) Validate() error {
	switch k.Type {
	case "pbkdf2":
		if k.Iterations < minPBKDF2Iterations || k.Iterations > maxPBKDF2Iterations {
			return fmt.Errorf("pbkdf2 with %d iterations, expected %d to %d", k.Iterations, minPBKDF2Iterations, maxPBKDF2Iterations)
		}
		_, err := hashByName(k.Hash)
		return err
	case "argon2i", "argon2id":
		switch {
		case k.Iterations < minArgon2Passes || k.Iterations > maxArgon2Passes:
			return fmt.Errorf("%s with %d passes, expected %d to %d", k.Type, k.Iterations, minArgon2Passes, maxArgon2Passes)
		case k.MemoryKiB < minArgon2MemoryKiB || k.MemoryKiB > maxArgon2MemoryKiB:
			return fmt.Errorf("%s with %d KiB, expected %d to %d", k.Type, k.MemoryKiB, minArgon2MemoryKiB, maxArgon2MemoryKiB)
		case k.Threads < 1 || k.Threads > maxArgon2Threads:
			return fmt.Errorf("%s with %d threads, expected 1 to %d", k.Type, k.Threads, maxArgon2Threads)
		}
		return nil
	}
	return fmt.Errorf("key derivation %.20q, expected pbkdf2, argon2i or argon2id", k.Type)
}

// derive returns n bytes for the passphrase. The caller wipes them.
func (k KDF) derive(passphrase, salt []byte, n int) ([]byte, error) {
	if err := k.Validate(); err != nil {
		return nil, err
	}
	switch k.Type {
	case "argon2i":
		return argon2.Key(passphrase, salt, uint32(k.Iterations), uint32(k.MemoryKiB), uint8(k.Threads), uint32(n)), nil
	case "argon2id":
		return argon2.IDKey(passphrase, salt, uint32(k.Iterations), uint32(k.MemoryKiB), uint8(k.Threads), uint32(n)), nil
	}
	h, err := hashByName(k.Hash)
	if err != nil {
		return nil, err
	}
	return pbkdf2Key(h, passphrase, salt, k.Iterations, n), nil
}
