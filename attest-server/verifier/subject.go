package verifier

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Subject is what Endorsements are fetched for: a chip's key at one TCB, a
// product line (no chip id), or an Intel platform.
type Subject struct {
	Product string // AMD product line
	Signer  string // VCEK or VLEK
	ChipID  Hex    // 64 bytes, Turin 8
	TCB     kbs.SNPTCB
	FMSPC   string // Intel: 12 hex digits
	CA      string // Intel: platform or processor
}

// Subjects is what must be at hand to verify the Evidence; several where a
// report of version 2 does not say of which product line it is. Nothing of it
// is authentic: the Endorsements will tell.
func (p *Parsed) Subjects() ([]Subject, error) {
	if p.Evidence.TEE == kbs.TDX {
		q, err := parseTDQuote(p.Evidence.Report)
		if err != nil {
			return nil, err
		}
		root, err := intelRoot()
		if err != nil {
			return nil, err
		}
		pck, err := checkPCKChain(q.pckChain, root)
		if err != nil {
			return nil, err
		}
		return []Subject{{FMSPC: pck.ext.FMSPC, CA: pck.caName()}}, nil
	}
	r, err := parseSNPReport(p.Evidence.Report)
	if err != nil {
		return nil, err
	}
	v, err := NewSNP(SNPOptions{})
	if err != nil {
		return nil, err
	}
	lines, err := v.linesFor(r)
	if err != nil {
		return nil, err
	}
	var all []Subject
	for _, l := range lines {
		s := Subject{Product: l.Name, Signer: r.signer}
		// Not every TCB can be one of every line's.
		if s.TCB, err = decodeTCB(r.msg.ReportedTcb, l.FMC); err != nil {
			continue
		}
		if !r.chipIDIsZero() {
			s.ChipID = hwid(r.msg.ChipId, l.FMC)
		}
		all = append(all, s)
	}
	return all, nil
}

// Certificates is the VCEK and VLEK certificates that came with the Evidence.
func (p *Parsed) Certificates() ([][]byte, error) {
	var all [][]byte
	for _, guid := range []string{abi.VcekGUID, abi.VlekGUID} {
		if len(p.Evidence.Certificates) == 0 {
			break
		}
		keys, err := certTableKeys(p.Evidence.Certificates, guid)
		if err != nil {
			return nil, err
		}
		all = append(all, keys...)
	}
	return all, nil
}

// Online fetches Endorsements into a Cache.
type Online struct {
	Cache *Cache
	KDS   *KDS
	PCS   *PCS
}

// Fetch gets everything for a Subject anew that can change, and its VCEK if it
// is not there. ErrNoEndorsement if the vendor knows no such chip or platform.
func (o *Online) Fetch(ctx context.Context, s Subject) error {
	if s.FMSPC != "" {
		_, err := o.PCS.Renew(ctx, s.FMSPC, s.CA)
		return err
	}
	if s.Signer != VLEK && len(s.ChipID) > 0 {
		if _, err := o.KDS.VCEK(ctx, s.Product, s.ChipID, s.TCB); err != nil {
			return fmt.Errorf("fetching the VCEK of a %s chip: %w", s.Product, err)
		}
	}
	for _, get := range []func() ([]Outcome, error){
		func() ([]Outcome, error) { return o.KDS.Chain(ctx, s.Product, orVCEK(s.Signer)) },
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

func orVCEK(signer string) string {
	if signer == "" {
		return VCEK
	}
	return signer
}

// Known is the Subjects of which the cache holds something that expires:
// product lines and Intel platforms.
func (c *Cache) Known() []Subject {
	var all []Subject
	lines := map[string]bool{}
	for _, e := range c.List() {
		switch {
		case e.Kind == KindCollateral:
			all = append(all, Subject{FMSPC: e.fmspc, CA: e.ca})
		case !lines[e.Product]:
			lines[e.Product] = true
			all = append(all, Subject{Product: e.Product})
		}
	}
	return all
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

// Refresh fetches CRLs and collateral anew for every Subject known. It goes on
// after an error.
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
