package attestserver

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hpke"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// A session goes
//
//	fresh --attest--> granted --key, N times--> spent
//	              \-> denied
//
// and leaves fresh exactly once. A fresh session costs the server nothing:
// its state is the bearer, sealed under a key that lives as long as the
// process, so a flood of /auth neither grows memory nor evicts anyone, and a
// restart voids every nonce. Only attest leaves a mark, in a bounded table.

const (
	numberSize    = 10
	sessionHeader = 8 + numberSize + kbs.NonceSize
	maxBearer     = 1024
)

var (
	errExpired     = errors.New("session is unknown, expired or used")
	errFull        = errors.New("too many sessions have attested lately")
	errNotAttested = errors.New("session has not attested")
	errDenied      = errors.New("session was denied")
)

var numberEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// sessionID is a session's public number; String is what people see.
type sessionID [numberSize]byte

func (n sessionID) String() string { return numberEncoding.EncodeToString(n[:]) }

// session is a fresh session's whole state.
type session struct {
	issued     time.Duration // since the server's start: the wall clock may jump
	id         sessionID
	nonce      [kbs.NonceSize]byte
	tee        kbs.TEE
	workloadID string
}

// grant is what an attested session may fetch. nil stands for a denial.
type grant struct {
	workloadID   string
	registration kbs.Digest // as appraised
	reportData   kbs.ReportData
	teeKey       hpke.PublicKey
	until        time.Duration
	left         int // releases
}

type sessions struct {
	aead    cipher.AEAD
	counter atomic.Uint64
	rand    io.Reader
	clock   func() time.Time
	start   time.Time
	life    time.Duration
	max     int

	// A session that attested leaves a mark, which must outlive its nonce; two
	// generations, of which the older is dropped whole, do that without a
	// timer or a list.
	mu                sync.Mutex
	current, previous generation
	turned            time.Duration
}

// generation maps sessions that attested to what they were granted: nil for
// those denied, or not yet judged.
type generation struct {
	marks  map[sessionID]*grant
	grants int
}

// marksPerGrant is how many more denials than grants are remembered. A mark
// is some 30 bytes, a grant some 2000, and whoever wants to fill the table
// has no genuine Evidence to get grants with.
const marksPerGrant = 16

func newGeneration() generation { return generation{marks: map[sessionID]*grant{}} }

func newSessions(c Config) (*sessions, error) {
	key := make([]byte, 32)
	if _, err := io.ReadFull(c.Rand, key); err != nil {
		return nil, fmt.Errorf("making the session key: %w", err)
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &sessions{
		aead: aead, rand: c.Rand, clock: c.Clock, start: c.Clock(), life: c.SessionLife, max: c.MaxSessions,
		current: newGeneration(), previous: newGeneration(),
	}, nil
}

func (t *sessions) now() time.Duration { return t.clock().Sub(t.start) }

// open makes a fresh session and its bearer.
func (t *sessions) open(tee kbs.TEE, workloadID string) (*session, string, error) {
	random := make([]byte, numberSize+kbs.NonceSize)
	if _, err := io.ReadFull(t.rand, random); err != nil {
		return nil, "", fmt.Errorf("opening a session: %w", err)
	}
	s := &session{
		issued: t.now(), id: sessionID(random[:numberSize]),
		nonce: [kbs.NonceSize]byte(random[numberSize:]), tee: tee, workloadID: workloadID,
	}
	plain := binary.BigEndian.AppendUint64(nil, uint64(s.issued))
	plain = append(plain, random...)
	plain = append(plain, byte(len(tee)))
	plain = append(plain, tee...)
	plain = append(plain, workloadID...)
	// The key is this process's alone, so a counter makes GCM nonces unique,
	// which random ones would not be after billions of sessions.
	nonce := binary.BigEndian.AppendUint64(make([]byte, 4), t.counter.Add(1))
	return s, base64.RawURLEncoding.EncodeToString(t.aead.Seal(nonce, nonce, plain, nil)), nil
}

// parse authenticates a bearer. It says nothing of the session's age or use.
func (t *sessions) parse(bearer []byte) (*session, error) {
	if len(bearer) == 0 || len(bearer) > maxBearer {
		return nil, errExpired
	}
	sealed := make([]byte, base64.RawURLEncoding.DecodedLen(len(bearer)))
	n, err := base64.RawURLEncoding.Strict().Decode(sealed, bearer)
	if err != nil || n < t.aead.NonceSize() {
		return nil, errExpired
	}
	plain, err := t.aead.Open(nil, sealed[:t.aead.NonceSize()], sealed[t.aead.NonceSize():n], nil)
	if err != nil || len(plain) <= sessionHeader {
		return nil, errExpired
	}
	rest := plain[sessionHeader:]
	teeLen := int(rest[0])
	if len(rest) < 1+teeLen {
		return nil, errExpired
	}
	return &session{
		issued:     time.Duration(binary.BigEndian.Uint64(plain)),
		id:         sessionID(plain[8 : 8+numberSize]),
		nonce:      [kbs.NonceSize]byte(plain[8+numberSize : sessionHeader]),
		tee:        kbs.TEE(rest[1 : 1+teeLen]),
		workloadID: string(rest[1+teeLen:]),
	}, nil
}

// use spends the session's nonce: of any number of callers one succeeds, once.
func (t *sessions) use(s *session) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if now < s.issued || now-s.issued >= t.life {
		return errExpired
	}
	t.turn(now)
	if _, used := t.find(s.id); used {
		return errExpired
	}
	if len(t.current.marks)+len(t.previous.marks) >= marksPerGrant*t.max {
		return errFull
	}
	t.current.marks[s.id] = nil
	return nil
}

// grant lets a used session fetch its key until one more life is over.
func (t *sessions) grant(s *session, g grant) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.turn(now)
	if t.current.grants+t.previous.grants >= t.max {
		return errFull
	}
	g.until = now + t.life
	delete(t.previous.marks, s.id)
	t.current.marks[s.id] = &g
	t.current.grants++
	return nil
}

// take spends one of the session's releases.
func (t *sessions) take(s *session) (grant, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.turn(now)
	g, used := t.find(s.id)
	switch {
	case !used && now-s.issued >= t.life:
		return grant{}, errExpired
	case !used:
		return grant{}, errNotAttested
	case g == nil:
		return grant{}, errDenied
	case now >= g.until || g.left <= 0:
		return grant{}, errExpired
	}
	g.left--
	return *g, nil
}

func (t *sessions) find(id sessionID) (*grant, bool) {
	if g, ok := t.current.marks[id]; ok {
		return g, true
	}
	g, ok := t.previous.marks[id]
	return g, ok
}

// turn drops marks that are at least one life old, when nothing they guard
// can still be valid.
func (t *sessions) turn(now time.Duration) {
	switch age := now - t.turned; {
	case age >= 2*t.life:
		t.previous, t.current, t.turned = newGeneration(), newGeneration(), now
	case age >= t.life:
		t.previous, t.current, t.turned = t.current, newGeneration(), now
	}
}
