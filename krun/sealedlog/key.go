package sealedlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/secret"
)

// SigningPurpose names the VolumeKey's subkey that signs keys of boots.
const SigningPurpose = "ccrun log signing v1"

// SigningKey is the key pair that follows from the VolumeKey's subkey for
// SigningPurpose, of which the first 32 bytes are taken.
func SigningKey(subkey secret.Bytes) (ed25519.PrivateKey, error) {
	if subkey.Len() < ed25519.SeedSize {
		return nil, fmt.Errorf("log signing seed of %d bytes, expected at least %d", subkey.Len(), ed25519.SeedSize)
	}
	return ed25519.NewKeyFromSeed(subkey.Reveal()[:ed25519.SeedSize]), nil
}

// signedLabel begins what is signed, so that it is never anything else.
const signedLabel = "ccrun log key v1\x00"

// About says which boot of what a log is of. The recipients read it, the host
// does not.
type About struct {
	WorkloadID     string     `json:"workload_id"`
	IdentityDigest kbs.Digest `json:"identity_digest"`
	// ReportData is the REPORT_DATA of the session in which the DiskKey was
	// released: the server's record of that session has it, and the launch digest.
	ReportData []byte `json:"report_data"`
	// Began is of the guest's clock.
	Began int64 `json:"began"` // Unix seconds
}

// keyText is what is encrypted to the recipients.
type keyText struct {
	About
	Key []byte `json:"key"`
}

// maxKeyText bounds keyText: its longest member is a workload's id.
const maxKeyText = 2 << 10

// Boot is what a guest needs to write the log of one boot.
type Boot struct {
	Key  secret.Bytes
	Line []byte // the line with the key, for the recipients; as often as one likes
}

// NewBoot draws a key and encrypts it to the recipients, signed.
func NewBoot(about About, recipients []age.Recipient, signing ed25519.PrivateKey) (*Boot, error) {
	key := make([]byte, KeyBytes)
	_, _ = rand.Read(key) // which ends the program rather than fail
	text, err := json.Marshal(keyText{about, key})
	if err != nil {
		return nil, err
	}
	defer clear(text)
	var sealed bytes.Buffer
	w, err := age.Encrypt(&sealed, recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypting the log's key: %w", err)
	}
	if _, err := w.Write(text); err != nil {
		return nil, fmt.Errorf("encrypting the log's key: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypting the log's key: %w", err)
	}
	signed := append([]byte(signedLabel), sealed.Bytes()...)
	body := append(ed25519.Sign(signing, signed), sealed.Bytes()...)
	l := line{boot: bootOf(body), isKey: true, body: body}
	b := &Boot{Key: secret.New(key), Line: l.appendTo(nil)}
	if len(b.Line) > MaxLineBytes {
		return nil, fmt.Errorf("line with the log's key of %d bytes, at most %d allowed", len(b.Line), MaxLineBytes)
	}
	return b, nil
}

// bootOf names a boot by the line with its key.
func bootOf(body []byte) string {
	sum := sha512.Sum384(append([]byte("ccrun log boot v1\x00"), body...))
	return encoding.EncodeToString(sum[:bootBytes])
}

// errForgedKey is of a line with a key that no guest of the image wrote.
var errForgedKey = errors.New("not signed by a guest of this image")

// errNotRecipient is of a genuine line that the reader's identities do not open.
var errNotRecipient = errors.New("encrypted to other recipients than the identities given")

// openKey takes the key out of a line, if a guest with the signing key wrote it.
// Nothing is decrypted before that is known.
func (l *line) openKey(signer ed25519.PublicKey, identities []age.Identity) (about About, key secret.Bytes, err error) {
	if len(signer) != ed25519.PublicKeySize || len(l.body) < ed25519.SignatureSize || bootOf(l.body) != l.boot {
		return about, key, errForgedKey
	}
	signature, sealed := l.body[:ed25519.SignatureSize], l.body[ed25519.SignatureSize:]
	if !ed25519.Verify(signer, append([]byte(signedLabel), sealed...), signature) {
		return about, key, errForgedKey
	}
	text, err := l.decryptKey(identities)
	if err != nil {
		return about, key, err
	}
	if len(text.Key) != KeyBytes {
		return about, key, fmt.Errorf("log key of %d bytes, expected %d", len(text.Key), KeyBytes)
	}
	return text.About, secret.New(text.Key), nil
}

// decryptKey reads what a line says, whoever wrote it.
func (l *line) decryptKey(identities []age.Identity) (*keyText, error) {
	if len(l.body) < ed25519.SignatureSize {
		return nil, errForgedKey
	}
	r, err := age.Decrypt(bytes.NewReader(l.body[ed25519.SignatureSize:]), identities...)
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return nil, errNotRecipient
	}
	if err != nil {
		return nil, fmt.Errorf("decrypting the log's key: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(r, maxKeyText+1))
	defer clear(b)
	if err == nil && len(b) > maxKeyText {
		err = fmt.Errorf("more than %d bytes", maxKeyText)
	}
	if err != nil {
		return nil, fmt.Errorf("decrypting the log's key: %w", err)
	}
	text := &keyText{}
	if err := kbs.UnmarshalStrict(b, text); err != nil {
		return nil, fmt.Errorf("decoding the log's key: %w", err)
	}
	return text, nil
}
