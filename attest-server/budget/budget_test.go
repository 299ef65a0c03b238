package budget

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
)

func busy(t *testing.T, err error) {
	t.Helper()
	var e *refusal.Error
	if !errors.As(err, &e) || e.Code != kbs.CodeUnavailable || e.RetryAfter <= 0 {
		t.Errorf("error %v, expected a refusal with the time to come again", err)
	}
}

// TestBytesAreBounded: in all, by key, and so that large requests leave room
// for small ones.
func TestBytesAreBounded(t *testing.T) {
	const mib = 1 << 20
	b := NewBytes[string](8 * mib)
	take := func(key string, n int64) error { return b.Take(key, false, 0, n) }
	for range 2 {
		if err := take("a", mib); err != nil {
			t.Fatal(err)
		}
	}
	busy(t, take("a", 1))                             // a quarter
	if err := b.Take("a", true, 0, mib); err != nil { // a proxy's
		t.Error(err)
	}
	for i := range 3 {
		if err := take(fmt.Sprint("other", i), mib); err != nil {
			t.Fatal(err)
		}
	}
	busy(t, take("large", smallBytes+1))
	busy(t, b.Take("growing", false, smallBytes, 1))
	small := 0
	for ; take(fmt.Sprint("small", small), smallBytes) == nil; small++ {
	}
	if small != 2*mib/smallBytes || b.InUse() != 8*mib {
		t.Errorf("%d small ones, %d bytes in use", small, b.InUse())
	}
	busy(t, b.Take("proxy", true, 0, 1))
	busy(t, take("x", -1))
	b.Give("a", 3*mib)
	if err := take("a", mib); err != nil {
		t.Error(err)
	}
	b.Give("a", mib)
	if _, there := b.by["a"]; there {
		t.Error("a key with nothing is remembered")
	}
}

// TestSlotsTakeTurns: of two keys that wait, each gets every other slot,
// however many of one came first.
func TestSlotsTakeTurns(t *testing.T) {
	s := NewSlots(1, 3)
	leave, err := s.Enter(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan string)
	enter := func(key string) {
		t.Helper()
		turn, err := s.queue(key)
		if err != nil {
			t.Fatal(err)
		}
		go func() { <-turn; served <- key; s.leave() }()
	}
	for _, key := range []string{"greedy", "greedy", "greedy", "b", "c", "b"} {
		enter(key)
	}
	if _, err := s.Enter(t.Context(), "greedy"); true {
		busy(t, err)
	}
	leave()
	var order []string
	for range 6 {
		order = append(order, <-served)
	}
	if got := strings.Join(order, " "); got != "greedy b c greedy b greedy" {
		t.Errorf("served %s", got)
	}
	if leave, err = s.Enter(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	leave()
	if s.Running() != 0 {
		t.Errorf("%d slots are lost", s.Running())
	}
}

// TestSlotsOfThoseGone: whoever gives up waiting costs nobody a slot.
func TestSlotsOfThoseGone(t *testing.T) {
	s := NewSlots(1, 9)
	leave, err := s.Enter(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Enter(gone, "a")
	busy(t, err)
	turn, err := s.queue("b")
	if err != nil {
		t.Fatal(err)
	}
	leave()
	<-turn
	if s.forget("b", turn) {
		t.Error("its turn had come")
	}
	s.leave()
	if s.Running() != 0 || len(s.turn)+len(s.waiting) != 0 {
		t.Errorf("left: %d running, %v, %v", s.Running(), s.turn, s.waiting)
	}
}
