package budget

import (
	"context"
	"net/netip"
	"sync"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
)

// Slots bounds how much of one kind of work is done at once. Who waits is
// served in turn by key (a tenant, an address), so that however much one asks
// for, another waits for no more than one of each. It is safe for concurrent
// use.
type Slots struct {
	most, perKey int

	mu      sync.Mutex
	running int
	turn    []string                   // keys that wait, the next one first
	waiting map[string][]chan struct{} // of each of them, the first come first
}

// NewSlots makes most slots. Of each key at most waiting requests wait; more
// are refused.
func NewSlots(most, waiting int) *Slots {
	return &Slots{most: max(1, most), perKey: waiting, waiting: map[string][]chan struct{}{}}
}

// Running is how many slots are taken.
func (s *Slots) Running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// Enter waits for a slot, which leave gives back.
func (s *Slots) Enter(ctx context.Context, key string) (leave func(), err error) {
	turn, err := s.queue(key)
	if err != nil || turn == nil {
		return s.leave, err
	}
	select {
	case <-turn:
		return s.leave, nil
	case <-ctx.Done():
	}
	if !s.forget(key, turn) {
		s.leave() // its turn came all the same
	}
	return nil, &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the server is busy", Cause: ctx.Err(), RetryAfter: comeBack}
}

// queue takes a slot if one is free, else a place among those who wait.
func (s *Slots) queue(key string) (turn chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running < s.most { // then nobody waits
		s.running++
		return nil, nil
	}
	have := s.waiting[key]
	if len(have) >= s.perKey {
		return nil, Busy("too many requests of this kind wait")
	}
	if len(have) == 0 {
		s.turn = append(s.turn, key)
	}
	turn = make(chan struct{})
	s.waiting[key] = append(have, turn)
	return turn, nil
}

// leave gives the slot to the next key, or frees it.
func (s *Slots) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.turn) == 0 {
		s.running--
		return
	}
	key := s.turn[0]
	s.turn = s.turn[1:]
	next := s.waiting[key]
	close(next[0])
	if len(next) == 1 {
		delete(s.waiting, key)
		return
	}
	s.waiting[key] = next[1:]
	s.turn = append(s.turn, key)
}

// forget takes a request out of those who wait; false if it does not.
func (s *Slots) forget(key string, turn chan struct{}) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, other := range s.waiting[key] {
		if other != turn {
			continue
		}
		s.waiting[key] = append(s.waiting[key][:i:i], s.waiting[key][i+1:]...)
		if len(s.waiting[key]) == 0 {
			delete(s.waiting, key)
			s.turn = without(s.turn, key)
		}
		return true
	}
	return false
}

func without(keys []string, key string) []string {
	var rest []string
	for _, k := range keys {
		if k != key {
			rest = append(rest, k)
		}
	}
	return rest
}

// OfAddress is the key of a peer's address: itself, or its IPv6 /64.
func OfAddress(peer string) string {
	a, err := netip.ParseAddr(peer)
	if err != nil {
		return peer
	}
	a = a.Unmap().WithZone("")
	if a.Is4() {
		return a.String()
	}
	p, err := a.Prefix(64)
	if err != nil {
		return peer
	}
	return p.String()
}
