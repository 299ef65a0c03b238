package admin

import (
	"bytes"
	"io"
	"net/http"

	"github.com/ccrun/ccrun/attest-server/answer"
	"github.com/ccrun/ccrun/attest-server/budget"
	"github.com/ccrun/ccrun/attest-server/store"
)

// Turns are how much of owners' work is done at once, each kind apart, and in
// turn by tenant. Guests' work is not among it.
type Turns struct {
	Reads     *budget.Slots // lists, records and the audit log
	Changes   *budget.Slots // of workloads, approvals and policies
	Resources *budget.Slots // stored and removed
	Rotations *budget.Slots // which derive keys, in up to 64 MiB each
}

// waitingTurns is how many requests of one tenant may wait for a turn of a kind.
const waitingTurns = 64

// waitingRotations is the same for rotations, which take long.
const waitingRotations = 8

// NewTurns makes Turns for a number of processors.
func NewTurns(processors int) *Turns {
	return &Turns{
		Reads: budget.NewSlots(4, waitingTurns), Changes: budget.NewSlots(4, waitingTurns), Resources: budget.NewSlots(2, waitingTurns),
		Rotations: budget.NewSlots(min(2, processors/2), waitingRotations),
	}
}

// Turn has h wait for a slot. A body, of at most limit bytes, is read before,
// and the answer is sent after: a slow peer holds no slot.
func Turn(slots *budget.Slots, limit int64, h Handler) Handler {
	return func(w http.ResponseWriter, r *http.Request, t store.Token) error {
		if limit > 0 {
			b, err := answer.ReadBody(w, r, limit)
			if err != nil {
				return err
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		}
		held := answer.Hold(w)
		if err := inSlot(slots, held, r, t, h); err != nil {
			return err
		}
		held.Send()
		return nil
	}
}

func inSlot(slots *budget.Slots, w http.ResponseWriter, r *http.Request, t store.Token, h Handler) error {
	leave, err := slots.Enter(r.Context(), t.Tenant)
	if err != nil {
		return err
	}
	defer leave()
	return h(w, r, t)
}

// Pages has those who read the web page wait for a turn, by address: who they
// are is the page's to know.
func (t *Turns) Pages(h http.Handler, answers answer.Responder) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			h.ServeHTTP(w, r)
			return
		}
		held := answer.Hold(w)
		leave, err := t.Reads.Enter(r.Context(), budget.OfAddress(answer.Peer(r)))
		if err != nil {
			answers.Handle(func(http.ResponseWriter, *http.Request) error { return err })(w, r)
			return
		}
		func() {
			defer leave()
			h.ServeHTTP(held, r)
		}()
		held.Send()
	})
}
