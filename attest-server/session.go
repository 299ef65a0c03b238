package attestserver

import (
	"context"
	"encoding/base32"
	"errors"
	"sync"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
)

// A session goes
//
//	fresh --attest--> granted --key, N times--> spent
//	              \-> denied
//
// and leaves fresh exactly once. A fresh session costs the server nothing:
// its state is the bearer, sealed, so a flood of /auth neither grows memory nor
// evicts anyone. Only attest leaves a mark, in a bounded table. Of a server
// that is alone, key and table live as long as the process: a restart voids
// every nonce. Servers that share a database share both (sharedSessions).

const (
	numberSize = 10
	maxBearer  = 1024
)

var (
	errExpired     = errors.New("session is unknown, expired or used")
	errFull        = errors.New("too many sessions have attested lately")
	errNotAttested = errors.New("session has not attested")
	errDenied      = errors.New("session was denied")
	errOther       = errors.New("the session is for another workload")
)

var numberEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// sessionID is a session's public number; String is what people see.
type sessionID [numberSize]byte

func (n sessionID) String() string { return numberEncoding.EncodeToString(n[:]) }

// session is a fresh session's whole state.
type session struct {
	// issued is since the server's start, because the wall clock may jump; or
	// since 1970, if servers share sessions.
	issued     time.Duration
	id         sessionID
	nonce      [kbs.NonceSize]byte
	dialect    Dialect
	tee        kbs.TEE // as the client named it; may be one of CoCo's names
	workloadID string  // of foreign dialects: known once the Evidence is
	named      [16]byte
}

// grant is what an attested session may fetch. nil stands for a denial.
type grant struct {
	workloadID   string
	registration kbs.Digest // as appraised
	reportData   kbs.ReportData
	recipient    recipient.Recipient
	until        time.Duration
	left         int // releases of the DiskKey
	resources    int // releases of resources that are left
}

// claim is what a session asks for: the DiskKey of a workload, or a resource.
type claim struct {
	workloadID string
	resource   bool
}

// of is how much of what c asks for is left.
func (g *grant) of(c claim) *int {
	if c.resource {
		return &g.resources
	}
	return &g.left
}

// covers says whether g was granted in s's dialect, for what c asks.
func (g *grant) covers(s *session, c claim) bool {
	_, native := g.recipient.(recipient.Native)
	if g.recipient == nil || native != (s.dialect == Native) {
		return false
	}
	if c.resource { // only a native session knew its workload from the start
		return !native || g.workloadID == s.workloadID
	}
	return g.workloadID == c.workloadID
}

// sessionTable opens sessions and remembers those that attested. Every method
// but size may fail for reasons of its own too.
type sessionTable interface {
	open(d Dialect, tee kbs.TEE, workloadID string) (s *session, bearer string, err error)
	parse(d Dialect, bearer []byte) (*session, error)
	openShort(workloadID string) (s *session, bearer string, err error)
	parseShort(bearer []byte) (*session, error)

	// use spends the session's nonce: of any number of callers one succeeds,
	// once. The others get errExpired.
	use(ctx context.Context, s *session) error
	// grant lets a used session fetch its key until one more life is over.
	grant(ctx context.Context, s *session, g grant) error
	// take spends one of what the session may fetch of what c asks for. An
	// errOther spends nothing.
	take(ctx context.Context, s *session, c claim) (grant, error)
	// size is how many sessions are remembered, and how many of them granted.
	size() (granted, marks int)
}

// sessions is the table of a server that is alone: in its memory.
type sessions struct {
	*bearers
	max int

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

func newSessions(c Config, secret []byte) (*sessions, error) {
	b, err := newBearers(c, secret, c.Clock())
	if err != nil {
		return nil, err
	}
	b.clock = steady(c.Clock)
	return &sessions{bearers: b, max: c.MaxSessions, current: newGeneration(), previous: newGeneration()}, nil
}

func (t *sessions) use(_ context.Context, s *session) error {
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

func (t *sessions) grant(_ context.Context, s *session, g grant) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.turn(now)
	if t.current.grants+t.previous.grants >= t.max {
		return errFull
	}
	g.until, g.resources = now+t.life, maxResourceReleases
	delete(t.previous.marks, s.id)
	t.current.marks[s.id] = &g
	t.current.grants++
	return nil
}

func (t *sessions) take(_ context.Context, s *session, c claim) (grant, error) {
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
	case now >= g.until || *g.of(c) <= 0:
		return grant{}, errExpired
	case !g.covers(s, c):
		return grant{}, errOther
	}
	*g.of(c)--
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
