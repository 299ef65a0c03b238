package endorsements

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/verifier"
)

// Online fetches Endorsements into a Cache.
type Online struct {
	Cache *Cache
	KDS   *KDS
	PCS   *PCS
}

// Fetch renews what can change of a Subject's Endorsements, and fetches its VCEK
// if it is not there. ErrNoEndorsement if the vendor knows no such chip or platform.
func (o *Online) Fetch(ctx context.Context, s Subject) error {
	if s.FMSPC != "" {
		_, err := o.PCS.Renew(ctx, s.FMSPC, s.CA)
		return err
	}
	if s.Signer != verifier.VLEK && len(s.ChipID) > 0 {
		if _, err := o.KDS.Candidates(ctx, s.EndorsementKey); err != nil {
			return fmt.Errorf("fetching the VCEK of a %s chip: %w", s.Product, err)
		}
	}
	for _, get := range []func() ([]Outcome, error){
		func() ([]Outcome, error) { return o.KDS.Chain(ctx, s.Product, cmp.Or(s.Signer, verifier.VCEK)) },
		func() ([]Outcome, error) { return o.KDS.CRL(ctx, s.Product) },
	} {
		outcomes, err := get()
		if err != nil {
			return err
		}
		for _, x := range outcomes {
			if x.Result == Refused {
				return fmt.Errorf("from %s: %s", x.Name, x.Reason)
			}
		}
	}
	return nil
}

// refreshCRL fetches the CRL of a product line; one that the pinned root did
// not sign is an error, not merely left out.
func (o *Online) refreshCRL(ctx context.Context, product string) error {
	outcomes, err := o.KDS.CRL(ctx, product)
	for _, x := range outcomes {
		if x.Result == Refused {
			err = errors.Join(err, fmt.Errorf("CRL of %s: %s", product, x.Reason))
		}
	}
	return err
}

// Refresh renews CRLs and collateral of every Subject known. It goes on after an
// error.
func (o *Online) Refresh(ctx context.Context) error {
	var errs []error
	for _, s := range o.Cache.Known() {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if s.FMSPC == "" {
			errs = append(errs, o.refreshCRL(ctx, s.Product))
			continue
		}
		_, err := o.PCS.Renew(ctx, s.FMSPC, s.CA)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
