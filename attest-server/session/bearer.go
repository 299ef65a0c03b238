package session

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// A bearer is a fresh session's whole state, sealed. Its dialect is associated
// data, so that what one dialect gave out is nothing in another.

const (
	sessionHeader = 8 + numberSize + kbs.NonceSize
	maxBearer     = 1024
)

// Bearers opens sessions and reads their bearers again. What it derives from
// one secret, every server with that secret can read.
type Bearers struct {
	aead   cipher.AEAD
	macKey []byte // makes legacy nonces
	nonces *nonces
	rand   io.Reader
	clock  func() time.Time
	start  time.Time // sessions' times count from here
	life   time.Duration
}

// SecretSize is how long a Shared's secret is, in bytes.
const SecretSize = 32

func newBearers(o Options, secret []byte, start time.Time) (*Bearers, error) {
	bearerKey, err := hkdf.Key(sha256.New, secret, nil, "ccrun session bearer v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the session key: %w", err)
	}
	defer clear(bearerKey)
	macKey, err := hkdf.Key(sha256.New, secret, nil, "ccrun session nonce v1", 32)
	if err != nil {
		return nil, fmt.Errorf("deriving the session key: %w", err)
	}
	block, err := aes.NewCipher(bearerKey)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	n, err := newNonces(o.Rand)
	if err != nil {
		return nil, err
	}
	return &Bearers{aead: aead, macKey: macKey, nonces: n, rand: o.Rand, clock: o.Clock, start: start, life: o.Life}, nil
}

func (t *Bearers) now() time.Duration { return t.clock().Sub(t.start) }

// nonces are those of GCM: a counter from a random 96-bit start. Under one key
// no two of a process are the same, which random ones would be after billions
// of sessions; and that the ranges of two of n processes, each of up to 2^40,
// overlap has a chance of n² × 2^-56.
type nonces struct {
	high    [4]byte
	low     uint64
	counter atomic.Uint64
}

func newNonces(rand io.Reader) (*nonces, error) {
	var b [12]byte
	if _, err := io.ReadFull(rand, b[:]); err != nil {
		return nil, fmt.Errorf("drawing where nonces start: %w", err)
	}
	return &nonces{high: [4]byte(b[:4]), low: binary.BigEndian.Uint64(b[4:])}, nil
}

func (n *nonces) next() []byte {
	return binary.BigEndian.AppendUint64(append(make([]byte, 0, 12), n.high[:]...), n.low+n.counter.Add(1))
}

// Open makes a fresh session and its bearer.
func (t *Bearers) Open(d Dialect, tee kbs.TEE, workloadID string) (*Session, string, error) {
	random := make([]byte, numberSize+kbs.NonceSize)
	if _, err := io.ReadFull(t.rand, random); err != nil {
		return nil, "", fmt.Errorf("opening a session: %w", err)
	}
	s := &Session{
		issued: t.now(), ID: ID(random[:numberSize]),
		Nonce: [kbs.NonceSize]byte(random[numberSize:]), Dialect: d, TEE: tee, WorkloadID: workloadID,
	}
	plain := binary.BigEndian.AppendUint64(nil, uint64(s.issued))
	plain = append(plain, random...)
	plain = append(plain, byte(len(tee)))
	plain = append(plain, tee...)
	plain = append(plain, workloadID...)
	return s, base64.RawURLEncoding.EncodeToString(t.seal(d, plain)), nil
}

func (t *Bearers) seal(d Dialect, plain []byte) []byte {
	nonce := t.nonces.next()
	return t.aead.Seal(nonce, nonce, plain, []byte(d))
}

// unseal also returns what was sealed.
func (t *Bearers) unseal(d Dialect, bearer []byte) (plain, sealed []byte, err error) {
	if len(bearer) == 0 || len(bearer) > maxBearer {
		return nil, nil, ErrExpired
	}
	sealed = make([]byte, base64.RawURLEncoding.DecodedLen(len(bearer)))
	n, err := base64.RawURLEncoding.Strict().Decode(sealed, bearer)
	if err != nil || n < t.aead.NonceSize() {
		return nil, nil, ErrExpired
	}
	sealed = sealed[:n]
	plain, err = t.aead.Open(nil, sealed[:t.aead.NonceSize()], sealed[t.aead.NonceSize():], []byte(d))
	if err != nil {
		return nil, nil, ErrExpired
	}
	return plain, sealed, nil
}

// Parse authenticates a bearer. It says nothing of the session's age or use.
func (t *Bearers) Parse(d Dialect, bearer []byte) (*Session, error) {
	plain, _, err := t.unseal(d, bearer)
	if err != nil || len(plain) <= sessionHeader {
		return nil, ErrExpired
	}
	rest := plain[sessionHeader:]
	teeLen := int(rest[0])
	if len(rest) < 1+teeLen {
		return nil, ErrExpired
	}
	return &Session{
		issued:     time.Duration(binary.BigEndian.Uint64(plain)),
		ID:         ID(plain[8 : 8+numberSize]),
		Nonce:      [kbs.NonceSize]byte(plain[8+numberSize : sessionHeader]),
		Dialect:    d,
		TEE:        kbs.TEE(rest[1 : 1+teeLen]),
		WorkloadID: string(rest[1+teeLen:]),
	}, nil
}

// Fresh says whether a session is young enough to attest: nil or ErrExpired.
// Whether it has attested, its Table knows.
func (t *Bearers) Fresh(s *Session) error {
	if t.now()-s.issued >= t.life {
		return ErrExpired
	}
	return nil
}

// The old C client copies the cookie into 100 bytes, so a legacy bearer has no
// room for nonce and workload id: the one is computed from it, of the other it
// holds half a digest. It comes to 83 characters.
const legacyState = 8 + numberSize + 16

// OpenShort makes a fresh legacy session and its bearer.
func (t *Bearers) OpenShort(workloadID string) (*Session, string, error) {
	s := &Session{issued: t.now(), Dialect: Legacy, TEE: kbs.SNP, named: nameHash(workloadID)}
	if _, err := io.ReadFull(t.rand, s.ID[:]); err != nil {
		return nil, "", fmt.Errorf("opening a session: %w", err)
	}
	plain := binary.BigEndian.AppendUint64(nil, uint64(s.issued))
	plain = append(plain, s.ID[:]...)
	plain = append(plain, s.named[:]...)
	sealed := t.seal(Legacy, plain)
	s.Nonce = t.nonceOf(sealed)
	return s, base64.RawURLEncoding.EncodeToString(sealed), nil
}

// ParseShort is Parse for OpenShort's bearers.
func (t *Bearers) ParseShort(bearer []byte) (*Session, error) {
	plain, sealed, err := t.unseal(Legacy, bearer)
	if err != nil || len(plain) != legacyState {
		return nil, ErrExpired
	}
	return &Session{
		issued:  time.Duration(binary.BigEndian.Uint64(plain)),
		ID:      ID(plain[8 : 8+numberSize]),
		Nonce:   t.nonceOf(sealed),
		Dialect: Legacy,
		TEE:     kbs.SNP,
		named:   [16]byte(plain[8+numberSize:]),
	}, nil
}

// nonceOf is a nonce that nobody can know before the bearer was given out. No
// two bearers share it, because each begins with a GCM nonce of its own.
func (t *Bearers) nonceOf(sealed []byte) [kbs.NonceSize]byte {
	m := hmac.New(sha256.New, t.macKey)
	m.Write(sealed)
	return [kbs.NonceSize]byte(m.Sum(nil))
}
