package workload

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

// reproducibleLabel changes whenever the same plaintext would be laid out in
// another way under the keys derived with it.
const reproducibleLabel = "ccrun reproducible build v1"

// checkReproducible refuses what could not come out the same twice, or not
// safely. The volume key must not follow from something that can be guessed:
// its digest is public, and guesses could be tried against that without the
// keyslot's slow derivation.
func (o *Options) checkReproducible() error {
	switch {
	case !o.Reproducible:
		return nil
	case !isRandomKey(o.Passphrase.Reveal()):
		return hint.With(hint.Usagef("a reproducible build needs a disk key of 256 random bits, as 64 hex digits"),
			"make one with `openssl rand -hex 32 >FILE`, keep it secret, and add --passphrase-file FILE")
	case o.WorkloadID == "":
		return hint.With(hint.Usagef("a reproducible build cannot draw a workload id"), "add --workload-id ID")
	}
	return nil
}

// isRandomKey says whether a passphrase has the form of our own DiskKeys.
func isRandomKey(passphrase []byte) bool {
	var raw [32]byte
	defer clear(raw[:])
	if len(passphrase) != hex.EncodedLen(len(raw)) {
		return false
	}
	_, err := hex.Decode(raw[:], passphrase)
	return err == nil
}

// fixTime makes all of a build happen at one moment: the one given, or for a
// reproducible build without one, when the source was made.
func (b *build) fixTime() {
	at := time.Unix(0, 0)
	switch created := b.src.Config.Created; {
	case b.Now != nil:
		at = b.Now()
	case created != nil:
		at = *created
	}
	b.Now = func() time.Time { return at }
}

// contentID names the file system after all it is made from. It is no secret:
// what is written under it is.
func (b *build) contentID(process []byte) ([sha256.Size]byte, error) {
	in := struct {
		Label   string          `json:"label"`
		DiffIDs []digest.Digest `json:"diff_ids"`
		Process kbs.Digest      `json:"process"`
		System  string          `json:"file_system"`
		Size    int64           `json:"size_bytes"`
		Free    int64           `json:"free_bytes"`
		Time    int64           `json:"time"`
	}{"ccrun file system v1", append([]digest.Digest{}, b.src.Config.RootFS.DiffIDs...), kbs.Sum384(process), b.Filesystem, b.SizeBytes, b.FreeBytes, b.Now().Unix()}
	j, err := kbs.Canonical(in)
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("naming file system: %w", err)
	}
	return sha256.Sum256(j), nil
}

// deriveFrom makes every random value of a reproducible build a function of
// DiskKey and plaintext. The whole plaintext is read once more for that: only
// then can no two plaintexts, whatever they come from and whichever version of
// this program laid them out, ever share key and tweak.
func (b *build) deriveFrom(ctx context.Context, fs fileSystem) error {
	b.src.Keep(true)
	h := sha256.New()
	done := b.meter("deriving keys", fs.SizeBytes())
	if err := fs.WriteTo(ctx, &meterWriter{ctx, h, done}); err != nil {
		return err
	}
	b.src.Keep(false)
	prk, err := hkdf.Extract(sha512.New, b.Passphrase.Reveal(), []byte(reproducibleLabel))
	if err != nil {
		return fmt.Errorf("deriving keys: %w", err)
	}
	info := fmt.Sprintf("\x00integrity=%t\x00%s", !b.NoIntegrity, h.Sum(nil))
	b.derive = func(purpose string) (io.Reader, error) {
		key, err := hkdf.Expand(sha512.New, prk, purpose+info, 32)
		if err != nil {
			return nil, fmt.Errorf("deriving %s: %w", purpose, err)
		}
		defer clear(key)
		r, err := expand(key)
		if err != nil {
			return nil, fmt.Errorf("deriving %s: %w", purpose, err)
		}
		return r, nil
	}
	return nil
}

// expand is an endless stream that follows from a key of 32 bytes.
func expand(key []byte) (io.Reader, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return &cipher.StreamReader{S: cipher.NewCTR(block, make([]byte, aes.BlockSize)), R: zeros{}}, nil
}

// keyslotRandom gives the keyslot's random bytes, the same each time it is
// called: a layer that is written again must be the same layer, so that a
// registry's first part of one can be continued with the rest of another.
// This uses no key twice for two things: volume key, plaintext and place are
// the same as before, and so is the ciphertext; the keyslot gets the same
// salts, and with them the same key over the same stripes.
func (b *build) keyslotRandom() (func() (io.Reader, error), error) {
	if b.derive != nil {
		return func() (io.Reader, error) { return b.derive("keyslot") }, nil
	}
	var seed [32]byte
	if _, err := io.ReadFull(b.Rand, seed[:]); err != nil {
		return nil, fmt.Errorf("drawing keyslot: %w", err)
	}
	return func() (io.Reader, error) { return expand(seed[:]) }, nil
}

// zeros is an endless run of zero bytes.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// random gives the bytes for one purpose: names keep a public value and a key
// from ever being the same bytes.
func (o *Options) random(purpose string) (io.Reader, error) {
	if o.derive != nil {
		return o.derive(purpose)
	}
	return o.Rand, nil
}
