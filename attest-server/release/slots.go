package release

import (
	"context"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
)

// Slots bounds how much is done at once of what costs real time: appraisals,
// and sealing keyslots anew.
type Slots chan struct{}

// NewSlots makes n of them.
func NewSlots(n int) Slots { return make(Slots, n) }

// Enter waits for a slot, which leave gives back.
func (s Slots) Enter(ctx context.Context) (leave func(), err error) {
	select {
	case s <- struct{}{}:
		return func() { <-s }, nil
	case <-ctx.Done():
		return nil, &refusal.Error{Code: kbs.CodeUnavailable, Detail: "the server is busy", Cause: ctx.Err()}
	}
}
