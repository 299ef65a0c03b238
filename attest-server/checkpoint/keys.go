package checkpoint

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/mod/sumdb/note"
)

// Signature types of signed notes.
const (
	algEd25519     = 0x01
	algCosignature = 0x04 // cosignature/v1, Ed25519 with a time
)

// keyID is how a note names a key: https://c2sp.org/signed-note.
func keyID(name string, alg byte, public ed25519.PublicKey) uint32 {
	sum := sha256.Sum256(append([]byte(name+"\n"+string(rune(alg))), public...))
	return binary.BigEndian.Uint32(sum[:])
}

// key is an Ed25519 key under its name in notes, of a log or a witness.
type key struct {
	name   string
	alg    byte
	public ed25519.PublicKey
}

func (k key) Name() string    { return k.name }
func (k key) KeyHash() uint32 { return keyID(k.name, k.alg, k.public) }

// String is the key as others are told of it: a vkey of the signed-note form.
func (k key) String() string {
	return fmt.Sprintf("%s+%08x+%s", k.name, k.KeyHash(), base64.StdEncoding.EncodeToString(append([]byte{k.alg}, k.public...)))
}

// Verify implements note.Verifier.
func (k key) Verify(msg, sig []byte) bool {
	if k.alg == algEd25519 {
		return len(sig) == ed25519.SignatureSize && ed25519.Verify(k.public, msg, sig)
	}
	if k.alg != algCosignature || len(sig) != 8+ed25519.SignatureSize {
		return false
	}
	at := binary.BigEndian.Uint64(sig)
	return at < 1<<62 && ed25519.Verify(k.public, cosigned(int64(at), msg), sig[8:])
}

// cosigned is what a witness signs: when, and the checkpoint's text.
func cosigned(at int64, text []byte) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", at), text...)
}

// LogKey is the verifier of a log's key. Its name is the log's origin.
func LogKey(origin string, public ed25519.PublicKey) Verifier {
	return key{origin, algEd25519, public}
}

// ParseLogKey reads a log's key in the form of its String.
func ParseLogKey(s string) (Verifier, error) { return parseKey(s, algEd25519) }

// ParseWitnessKey reads a witness's key in the form of its String.
func ParseWitnessKey(s string) (Verifier, error) { return parseKey(s, algCosignature) }

func parseKey(s string, alg byte) (Verifier, error) {
	name, rest, _ := strings.Cut(s, "+")
	id, b64, _ := strings.Cut(rest, "+")
	b, err := base64.StdEncoding.Strict().DecodeString(b64)
	if err != nil || !validName(name) || len(b) != 1+ed25519.PublicKeySize {
		return nil, fmt.Errorf("key %.80q, expected NAME+ID+BASE64", s)
	}
	if b[0] != alg {
		return nil, fmt.Errorf("key %q is of type %#02x, expected %#02x: a log's key is not a witness's", name, b[0], alg)
	}
	k := key{name, alg, b[1:]}
	if want := fmt.Sprintf("%08x", k.KeyHash()); id != want {
		return nil, fmt.Errorf("key %q says it has id %q, expected %s: is it whole?", name, id, want)
	}
	return k, nil
}

// maxName bounds the name of a key.
const maxName = maxOrigin

func validName(s string) bool {
	return s != "" && len(s) <= maxName && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsSpace) < 0 &&
		strings.IndexFunc(s, unicode.IsControl) < 0 && !strings.Contains(s, "+")
}

// Signer signs checkpoints with a log's or a witness's key.
type Signer struct {
	key
	private ed25519.PrivateKey
	now     func() time.Time // nil for a log
}

// LogSigner signs as the log named origin.
func LogSigner(origin string, private ed25519.PrivateKey) (*Signer, error) {
	return newSigner(key{name: origin, alg: algEd25519}, private, nil)
}

// WitnessSigner cosigns as the witness of that name, with the time.
func WitnessSigner(name string, private ed25519.PrivateKey, now func() time.Time) (*Signer, error) {
	if now == nil {
		return nil, errors.New("witness without a clock")
	}
	return newSigner(key{name: name, alg: algCosignature}, private, now)
}

func newSigner(k key, private ed25519.PrivateKey, now func() time.Time) (*Signer, error) {
	if !validName(k.name) || len(private) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("signing checkpoints as %q: no name or no key", k.name)
	}
	k.public = private.Public().(ed25519.PublicKey)
	return &Signer{k, private, now}, nil
}

// Verifier is the signer's public half.
func (s *Signer) Verifier() Verifier { return s.key }

// Sign implements note.Signer.
func (s *Signer) Sign(text []byte) ([]byte, error) {
	if s.now == nil {
		return ed25519.Sign(s.private, text), nil
	}
	at := s.now().Unix()
	if at <= 0 {
		return nil, errors.New("cosigning a checkpoint: the clock is wrong: " + strconv.FormatInt(at, 10))
	}
	return append(binary.BigEndian.AppendUint64(nil, uint64(at)), ed25519.Sign(s.private, cosigned(at, text))...), nil
}

// SignCheckpoint is c as a note signed by signers.
func SignCheckpoint(c Checkpoint, signers ...*Signer) ([]byte, error) {
	if _, err := parseText(c.Text()); err != nil {
		return nil, err
	}
	all := make([]note.Signer, len(signers))
	for i, s := range signers {
		all[i] = s
	}
	if len(all) == 0 {
		return nil, errors.New("signing a checkpoint without a key")
	}
	return note.Sign(&note.Note{Text: c.Text()}, all...)
}

// Cosign is the signature line of the witness s on the note b, which must have
// been opened.
func (s *Signer) Cosign(b Signed) (line []byte, err error) {
	text, _, ok := Split(b.Note)
	if !ok {
		return nil, ErrForm
	}
	signed, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		return nil, err
	}
	_, lines, _ := Split(signed)
	return []byte(lines), nil
}
