// Package verifier answers two questions and keeps them apart: is this
// Evidence authentic (Verify: Evidence and Endorsements in, Claims out; how, is
// known to snp and tdx), and is it what was registered (Appraise: Claims and
// Reference Values in, an AttestationResult out). Neither touches network or
// disk: Endorsements come from the caller, who may take package endorsements.
// Appraise is pure.
package verifier

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Verifier decides whether Evidence is authentic as of the given time, and if
// so decodes it. It says nothing of whether the claims are acceptable. An
// error about the Evidence or its Endorsements is an *Error, which names the
// failed check; any other error means that no answer could be had.
type Verifier interface {
	Verify(ctx context.Context, ev kbs.Evidence, at time.Time) (*Claims, error)
}

// ByTEE is a Verifier that hands Evidence to the one for its TEE. A TEE that
// is not in the map is refused.
type ByTEE map[kbs.TEE]Verifier

// Verify implements Verifier.
func (m ByTEE) Verify(ctx context.Context, ev kbs.Evidence, at time.Time) (*Claims, error) {
	v, ok := m[ev.TEE]
	if !ok || v == nil {
		return nil, Refuse("tee", "a TEE this verifier trusts", fmt.Sprintf("%q", ev.TEE),
			"the evidence is of a TEE that this server does not accept", nil)
	}
	return v.Verify(ctx, ev, at)
}

// ErrNoEndorsement reports that a source of Endorsements does not have one.
var ErrNoEndorsement = errors.New("no such endorsement")

// ErrBusy reports that a vendor's service is not asked now, since it lately
// answered with an error or asked for a pause.
var ErrBusy = errors.New("vendor service is not answering")

// Busy is ErrBusy with the reason, and after which time to come back.
type Busy struct {
	After time.Duration
	Err   error
}

func (b *Busy) Error() string { return ErrBusy.Error() + ": " + b.Err.Error() }

func (b *Busy) Unwrap() error { return b.Err }

// Is makes it an ErrBusy.
func (b *Busy) Is(target error) bool { return target == ErrBusy }
