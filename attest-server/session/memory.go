package session

import (
	"context"
	"sync"
	"time"
)

// memory is the Table of a server that is alone.
type memory struct {
	*Bearers
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
	marks  map[ID]*Grant
	grants int
}

// marksPerGrant is how many more denials than grants are remembered. A mark
// is some 30 bytes, a grant some 2000, and whoever wants to fill the table
// has no genuine Evidence to get grants with.
const marksPerGrant = 16

func newGeneration() generation { return generation{marks: map[ID]*Grant{}} }

func newMemory(b *Bearers, most int) *memory {
	return &memory{Bearers: b, max: most, current: newGeneration(), previous: newGeneration()}
}

// Use implements Table.
func (t *memory) Use(_ context.Context, s *Session) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if now-s.issued >= t.life { // time does not go back here, so it is not negative
		return ErrExpired
	}
	t.turn(now)
	if _, used := t.find(s.ID); used {
		return ErrExpired
	}
	if len(t.current.marks)+len(t.previous.marks) >= marksPerGrant*t.max {
		return ErrFull
	}
	t.current.marks[s.ID] = nil
	return nil
}

// Grant implements Table.
func (t *memory) Grant(_ context.Context, s *Session, g Grant) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.turn(now)
	if t.current.grants+t.previous.grants >= t.max {
		return ErrFull
	}
	g.until, g.resources = now+t.life, maxReleasedResources
	delete(t.previous.marks, s.ID)
	t.current.marks[s.ID] = &g
	t.current.grants++
	return nil
}

// Take implements Table.
func (t *memory) Take(_ context.Context, s *Session, c Claim) (Grant, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, err := t.granted(s, c)
	switch {
	case err != nil:
		return Grant{}, err
	case *g.left(c) <= 0:
		return Grant{}, ErrExpired
	}
	*g.left(c)--
	return *g, nil
}

// Granted implements Table.
func (t *memory) Granted(_ context.Context, s *Session, c Claim) (Grant, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, err := t.granted(s, c)
	if err != nil {
		return Grant{}, err
	}
	return *g, nil
}

func (t *memory) granted(s *Session, c Claim) (*Grant, error) {
	now := t.now()
	t.turn(now)
	g, used := t.find(s.ID)
	switch {
	case !used && now-s.issued >= t.life:
		return nil, ErrExpired
	case !used:
		return nil, ErrNotAttested
	case g == nil:
		return nil, ErrDenied
	case now >= g.until:
		return nil, ErrExpired
	case !g.covers(s, c):
		return nil, ErrOther
	}
	return g, nil
}

func (t *memory) find(id ID) (*Grant, bool) {
	if g, ok := t.current.marks[id]; ok {
		return g, true
	}
	g, ok := t.previous.marks[id]
	return g, ok
}

// turn drops marks that are at least one life old, when nothing they guard
// can still be valid.
func (t *memory) turn(now time.Duration) {
	switch age := now - t.turned; {
	case age >= 2*t.life:
		t.previous, t.current, t.turned = newGeneration(), newGeneration(), now
	case age >= t.life:
		t.previous, t.current, t.turned = t.current, newGeneration(), now
	}
}

// Size implements Table.
func (t *memory) Size() (granted, marks int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.current.grants + t.previous.grants, len(t.current.marks) + len(t.previous.marks)
}
