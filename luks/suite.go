package luks

import "fmt"

// Ciphers that NewGeometry knows.
const (
	// AESXTS is AES-256-XTS, with integrity under HMAC-SHA256 tags.
	AESXTS = "aes-xts"
	// AEGIS128 is AEGIS-128 (Wu and Preneel, version 1.1), which encrypts and
	// authenticates in one pass. No integrity, no AEGIS. Its nonce may not
	// repeat under a key: it is for disks whose sectors are written once, and
	// for ScratchGeometry, which draws one for each write.
	AEGIS128 = "aegis128"
)

// Ciphers are all of them, the default first.
func Ciphers() []string { return []string{AESXTS, AEGIS128} }

// What suites are made of.
const (
	cipherAESXTS     = "aes-xts-plain64"
	cipherAEGIS128   = "aegis128-plain64"
	integrityHMAC256 = "hmac(sha256)"
	integrityAEAD    = "aead" // the cipher's own
	cipherKeyBytes   = 64     // AES-256, two keys (XTS)
	macKeyBytes      = 32
	macTagBytes      = 32
)

// A suite is one way to encrypt and authenticate sectors.
type suite struct {
	name      string // one of Ciphers
	cipher    string // LUKS2's name
	integrity string // LUKS2's name; empty: no tags
	keyBytes  int
	tagBytes  int    // without a stored IV
	aead      string // what the kernel's crypto API calls cipher and tag, if there are tags
}

// suites are the allow-list: whatever is not here is refused, wherever it comes
// from (CVE-2025-59054: a null cipher in a host-written header).
func suites() []suite {
	return []suite{
		{AESXTS, cipherAESXTS, "", cipherKeyBytes, 0, ""},
		{AESXTS, cipherAESXTS, integrityHMAC256, cipherKeyBytes + macKeyBytes, macTagBytes, "authenc(hmac(sha256),xts(aes))"},
		{AEGIS128, cipherAEGIS128, integrityAEAD, aegisKeyBytes, aegisTagBytes, "aegis128"},
	}
}

// findSuite is the suite that a header or an identity names.
func findSuite(cipher, integrity string) (suite, error) {
	cipherKnown := false
	for _, s := range suites() {
		if s.cipher == cipher && s.integrity == integrity {
			return s, nil
		}
		cipherKnown = cipherKnown || s.cipher == cipher
	}
	if !cipherKnown {
		return suite{}, fmt.Errorf("disk cipher %.40q, expected %s or %s", cipher, cipherAESXTS, cipherAEGIS128)
	}
	return suite{}, fmt.Errorf("disk integrity %.40q with cipher %s, expected %s with %s, %s with %s", integrity, cipher,
		integrityHMAC256, cipherAESXTS, integrityAEAD, cipherAEGIS128)
}
