package kbs

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ccrun/ccrun/hint"
)

func (s *scripted) serveMoved(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/moved" {
		problemAnswer(w, http.StatusServiceUnavailable, CodeMoved)
		return
	}
	var q MovedRequest
	if err := DecodeStrict(r.Body, MaxAuthBody, &q); err != nil || q.Version != 1 || len(q.Challenge) != NonceSize {
		s.t.Errorf("moved: %v, %+v", err, q)
	}
	answer(w, s.moved(q))
}

// movesTo has s say that it is at other servers now.
func (s *scripted) movesTo(others ...*scripted) {
	var to Move
	for _, o := range others {
		to.URLs, to.PinnedKeys = append(to.URLs, o.http.URL), append(to.PinnedKeys, PinOf(o.ca.cert))
	}
	s.moved = func(q MovedRequest) MovedAnswer {
		return MovedAnswer{WorkloadID: q.WorkloadID, Challenge: q.Challenge, To: to}
	}
}

func TestMoveIsFollowed(t *testing.T) {
	old, next, gone := newScripted(t), newScripted(t), newScripted(t)
	gone.http.Close()
	old.movesTo(gone, next)
	req := shop()
	var told []string
	req.OnMoved = func(from, to string) { told = append(told, from, to) }
	k, err := old.client().Release(t.Context(), req)
	if err != nil || string(k.Reveal()) != "the key" {
		t.Fatalf("Release = %q, %v", k.Reveal(), err)
	}
	if want := []string{old.http.URL, gone.http.URL, old.http.URL, next.http.URL}; !slices.Equal(told, want) {
		t.Errorf("told %v, expected %v", told, want)
	}
	if len(old.keys) != 0 || slices.Contains(old.calls, "/v1/attest") {
		t.Error("the old server got Evidence")
	}
	// What that server refuses is refused.
	next.change = func(p string, w http.ResponseWriter) bool {
		return p == "/v1/attest" && problemAnswer(w, http.StatusForbidden, CodeAttestationDenied)
	}
	c := old.client()
	c.Wait = Forever
	if _, err := c.Release(t.Context(), shop()); !errors.Is(err, ErrDenied) {
		t.Errorf("denied after a move: %v", err)
	}
}

// TestMoveIsNotFollowed: what does not stand under the pin, answers another
// question, or leads nowhere, gets no Evidence anywhere and yields no key.
func TestMoveIsNotFollowed(t *testing.T) {
	earlier := []byte(strings.Repeat("e", NonceSize))
	for name, twist := range map[string]struct {
		change func(a *MovedAnswer, old, next *scripted)
		want   string
	}{
		"replayed":             {func(a *MovedAnswer, _, _ *scripted) { a.Challenge = earlier }, "replayed"},
		"without a challenge":  {func(a *MovedAnswer, _, _ *scripted) { a.Challenge = nil }, "replayed"},
		"another workload's":   {func(a *MovedAnswer, _, _ *scripted) { a.WorkloadID = "other" }, `for workload "other"`},
		"to itself":            {func(a *MovedAnswer, old, _ *scripted) { a.To.URLs = []string{old.http.URL + "/"} }, "in a circle"},
		"to itself among more": {func(a *MovedAnswer, old, _ *scripted) { a.To.URLs = append(a.To.URLs, old.http.URL) }, "in a circle"},
		"without TLS": {func(a *MovedAnswer, _, next *scripted) {
			a.To.URLs[0] = "http" + strings.TrimPrefix(next.http.URL, "https")
		}, "expected https://"},
		"nowhere":        {func(a *MovedAnswer, _, _ *scripted) { a.To.URLs = nil }, "expected 1 to 8"},
		"without a host": {func(a *MovedAnswer, _, _ *scripted) { a.To.URLs = []string{"https://:8443"} }, "has no host"},
		"to too many":    {func(a *MovedAnswer, _, _ *scripted) { a.To.URLs = slices.Repeat(a.To.URLs, 9) }, "expected 1 to 8"},
		"without a pin":  {func(a *MovedAnswer, _, _ *scripted) { a.To.PinnedKeys = nil }, "no pinned server key"},
		"half a pin":     {func(a *MovedAnswer, _, _ *scripted) { a.To.PinnedKeys[0] = a.To.PinnedKeys[0][:32] }, "64 hex digits"},
		"too many pins":  {func(a *MovedAnswer, _, _ *scripted) { a.To.PinnedKeys = slices.Repeat(a.To.PinnedKeys, 9) }, "expected 1 to 8"},
		"the old pin there": {func(a *MovedAnswer, old, _ *scripted) { a.To.PinnedKeys = []string{PinOf(old.ca.cert)} },
			"server's key is not pinned"},
	} {
		old, next := newScripted(t), newScripted(t)
		old.movesTo(next)
		answer := old.moved
		old.moved = func(q MovedRequest) MovedAnswer {
			a := answer(q)
			a.To.URLs, a.To.PinnedKeys = slices.Clone(a.To.URLs), slices.Clone(a.To.PinnedKeys)
			twist.change(&a, old, next)
			return a
		}
		k, err := old.client().Release(t.Context(), shop())
		if err == nil || k.Len() != 0 || !strings.Contains(err.Error(), twist.want) || isFinal(err) {
			t.Errorf("%s: Release = %q, %v, expected %q, and not for good", name, k.Reveal(), err, twist.want)
		}
		if len(next.calls) != 0 {
			t.Errorf("%s: the other server was asked %v", name, next.calls)
		}
	}
}

// TestMoveOfAnotherServer: one whose key is not pinned is not asked where it
// has moved, and one that is does not lend its word to the other.
func TestMoveOfAnotherServer(t *testing.T) {
	impostor, next := newScripted(t), newScripted(t)
	impostor.movesTo(next)
	c := impostor.client()
	c.PinnedKeys = []string{PinOf(next.ca.cert)}
	if _, err := c.Release(t.Context(), shop()); !errors.Is(err, ErrUnpinned) || len(impostor.calls)+len(next.calls) != 0 {
		t.Errorf("Release = %v, asked %v and %v", err, impostor.calls, next.calls)
	}
}

// TestMoveIsFollowedOnce: a chain of moves is not gone along.
func TestMoveIsFollowedOnce(t *testing.T) {
	first, second, third := newScripted(t), newScripted(t), newScripted(t)
	first.movesTo(second)
	second.movesTo(third)
	_, err := first.client().Release(t.Context(), shop())
	if err == nil || !strings.Contains(err.Error(), "only one move is followed") || hint.Of(err) == "" || len(third.calls) != 0 {
		t.Errorf("a chain: %v, hint %q, third asked %v", err, hint.Of(err), third.calls)
	}
}

// TestMoveInACircle of two ends, and the next URL is asked all the same.
func TestMoveInACircle(t *testing.T) {
	first, second, third := newScripted(t), newScripted(t), newScripted(t)
	first.movesTo(second)
	second.movesTo(first)
	if _, err := first.client().Release(t.Context(), shop()); err == nil || !strings.Contains(err.Error(), "only one move is followed") {
		t.Errorf("a circle: %v", err)
	}
	c := first.client()
	c.URLs, c.PinnedKeys = append(c.URLs, third.http.URL), append(c.PinnedKeys, PinOf(third.ca.cert))
	if k, err := c.Release(t.Context(), shop()); err != nil || string(k.Reveal()) != "the key" {
		t.Errorf("a circle, and another URL: %v", err)
	}
}

// TestMoveReplayedOnTheWire: the bytes of one connection, brought back on
// another by whoever is in between, say nothing there.
func TestMoveReplayedOnTheWire(t *testing.T) {
	old, next := newScripted(t), newScripted(t)
	old.movesTo(next)
	tape := &recorder{}
	c := old.client()
	c.Dial = tape.dial
	if _, err := c.Release(t.Context(), shop()); err != nil {
		t.Fatal(err)
	}
	next.calls = nil
	c.Dial = tape.replay
	if _, err := c.Release(t.Context(), shop()); err == nil || len(next.calls) != 0 {
		t.Errorf("Release = %v, next asked %v", err, next.calls)
	}
}

// recorder is a network that keeps what servers said, by connection.
type recorder struct {
	mu     sync.Mutex // a connection that is given up is still read from
	said   []*bytes.Buffer
	played int
}

func (r *recorder) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &bytes.Buffer{}
	r.said = append(r.said, b)
	return &tapped{conn, r, b}, err
}

type tapped struct {
	net.Conn
	*recorder
	said *bytes.Buffer
}

func (t *tapped) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.said.Write(b[:n])
	return n, err
}

func (r *recorder) replay(context.Context, string, string) (net.Conn, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.played == len(r.said) {
		return nil, errors.New("no more connections recorded")
	}
	b := bytes.Clone(r.said[r.played].Bytes())
	r.played++
	guest, host := net.Pipe()
	go func() {
		defer host.Close()
		go func() { _, _ = host.Write(b) }()
		buf := make([]byte, 4096)
		for {
			if _, err := host.Read(buf); err != nil {
				return
			}
		}
	}()
	return guest, nil
}

// TestPinOfACAToCome: an image is built with the pin of a CA that serves
// nothing yet, besides the one in use, and goes on under it.
func TestPinOfACAToCome(t *testing.T) {
	now, later := newScripted(t), newScripted(t)
	pins := []string{PinOf(now.ca.cert), PinOf(later.ca.cert)}
	for _, s := range []*scripted{now, later} {
		c := &Client{URLs: []string{s.http.URL}, PinnedKeys: pins}
		if k, err := c.Release(t.Context(), shop()); err != nil || string(k.Reveal()) != "the key" {
			t.Errorf("Release = %q, %v", k.Reveal(), err)
		}
	}
}

func TestProbe(t *testing.T) {
	s, other := newScripted(t), newScripted(t)
	for pin, want := range map[string]error{PinOf(s.ca.cert): nil, PinOf(other.ca.cert): ErrUnpinned} {
		pins, err := ParsePins([]string{pin})
		if err != nil {
			t.Fatal(err)
		}
		if err := pins.Probe(t.Context(), s.http.URL); !errors.Is(err, want) {
			t.Errorf("Probe = %v, expected %v", err, want)
		}
	}
}

func FuzzMovedAnswer(f *testing.F) {
	f.Add([]byte(`{"workload_id":"shop","challenge":"AAAA","to":{"urls":["https://a:1"],"pinned_keys":["` + strings.Repeat("ab", 32) + `"]}}`))
	f.Add([]byte(`{"to":{"urls":["https://a"],"pinned_keys":null}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var a MovedAnswer
		if UnmarshalStrict(b, &a) != nil {
			return
		}
		err := a.check(MovedRequest{WorkloadID: "shop", Challenge: []byte{0, 0, 0}}, "https://old.example:8443")
		if err != nil {
			return
		}
		if len(a.To.URLs) == 0 || len(a.To.URLs) > maxMoveEntries || len(a.To.PinnedKeys) == 0 || a.WorkloadID != "shop" {
			t.Errorf("accepted %+v", a)
		}
	})
}
