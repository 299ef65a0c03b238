package session

import (
	"errors"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/servertest"
)

// TestGrantsEnd: one life after it was given a grant is over, for keys as for
// resources, however many are left; and so many of each it had, not more.
func TestGrantsEnd(t *testing.T) {
	for _, place := range []string{"alone", "shared"} {
		for _, claim := range []Claim{{WorkloadID: "w"}, {WorkloadID: "w", Resource: true}} {
			clock := servertest.NewClock(time.Now())
			var table *Sessions
			if place == "alone" {
				table = newTest(t, clock.Now)
			} else {
				table = newTestSharedAt(t, clock.Now)
			}
			granted := func() *Session {
				s, _, err := table.Open(Native, kbs.SNP, "w")
				if err == nil {
					err = table.Use(t.Context(), s)
				}
				if err == nil {
					err = table.Grant(t.Context(), s, Grant{WorkloadID: "w", Registration: kbs.Digest{1}, Recipient: guest(t), Left: 3})
				}
				if err != nil {
					t.Fatal(err)
				}
				return s
			}
			life := options(clock.Now).Life
			s, spent := granted(), granted()
			of := 3
			if claim.Resource {
				of = maxReleasedResources
			}
			for i := range of + 1 {
				if _, err := table.Take(t.Context(), spent, claim); (err == nil) != (i < of) || err != nil && !errors.Is(err, ErrExpired) {
					t.Errorf("%s, %+v: number %d of %d: %v", place, claim, i+1, of, err)
				}
			}
			clock.Advance(life - time.Millisecond)
			if _, err := table.Take(t.Context(), s, claim); err != nil {
				t.Errorf("%s, %+v: just before the end: %v", place, claim, err)
			}
			clock.Advance(time.Millisecond)
			if _, err := table.Take(t.Context(), s, claim); !errors.Is(err, ErrExpired) {
				t.Errorf("%s, %+v: at the end: %v", place, claim, err)
			}
		}
	}
}
