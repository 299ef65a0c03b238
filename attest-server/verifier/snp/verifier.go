// Package snp says whether an SEV-SNP report is authentic: signed by a key that
// AMD's pinned roots vouch for, of the chip and at the TCB that it names. What
// the report says of the guest is for verifier.Appraise to judge.
package snp

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/go-sev-guest/verify"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/chain"
)

// Endorsements is where a Verifier looks for the certificate of the key
// that signed a report which came without a good one.
type Endorsements interface {
	// Candidates is the certificates, in DER, that may be the key's, the likely
	// first, or ErrNoEndorsement. None is trusted: of several that say the same
	// of themselves only the vendor's own is good, which the verifier finds out.
	// If none is for this very key, one for another TCB or chip gives the
	// refusal a better reason.
	Candidates(ctx context.Context, k EndorsementKey) ([][]byte, error)
}

// Options configures a Verifier. The zero value trusts AMD's roots,
// takes certificates from the Evidence alone and knows of no revocations.
type Options struct {
	TEE          kbs.TEE       // of the Evidence accepted; empty: snp
	Roots        []ProductLine // nil: those of Roots; must be given for any TEE but snp
	Endorsements Endorsements  // nil: only what comes with the Evidence
	CRLs         []*x509.RevocationList
	RequireCRL   bool // refuse where no current CRL of the ARK is at hand
}

// Verifier verifies SEV-SNP reports of versions 2 to 5, signed by a
// VCEK or VLEK. It is safe for concurrent use.
type Verifier struct {
	tee          kbs.TEE
	lines        []ProductLine
	endorsements Endorsements
	requireCRL   bool
	revoked      atomic.Pointer[chain.Revocations]
	cache        chain.Cache[VEK]
}

// New makes a Verifier. It fails if a root does not vouch for its own
// line or a CRL bears an issuer's name but not its signature.
func New(o Options) (*Verifier, error) {
	v := &Verifier{tee: o.TEE, lines: o.Roots, endorsements: o.Endorsements, requireCRL: o.RequireCRL}
	if v.tee == "" {
		v.tee = kbs.SNP
	}
	if len(v.lines) == 0 {
		if v.tee != kbs.SNP {
			return nil, fmt.Errorf("no roots for TEE %q", v.tee)
		}
		var err error
		if v.lines, err = Roots(); err != nil {
			return nil, err
		}
	}
	for i := range v.lines {
		if err := v.lines[i].Check(); err != nil {
			return nil, err
		}
	}
	if err := v.SetCRLs(o.CRLs); err != nil {
		return nil, err
	}
	return v, nil
}

// SetCRLs replaces the CRLs, at any time. CRLs of other issuers are ignored.
func (v *Verifier) SetCRLs(crls []*x509.RevocationList) error {
	var issuers []*x509.Certificate
	for _, l := range v.lines {
		for _, c := range []*x509.Certificate{l.ARK, l.ASK, l.ASVK} {
			if c != nil {
				issuers = append(issuers, c)
			}
		}
	}
	r, err := chain.NewRevocations(crls, issuers)
	if err != nil {
		return err
	}
	v.revoked.Store(&r)
	return nil
}

// Verify implements Verifier.
func (v *Verifier) Verify(ctx context.Context, ev kbs.Evidence, at time.Time) (*verifier.Claims, error) {
	if ev.TEE != v.tee {
		return nil, verifier.Refuse("tee", string(v.tee), fmt.Sprintf("%q", ev.TEE), "the evidence is of another TEE", nil)
	}
	if at.IsZero() {
		return nil, verifier.Refuse("clock", "a time to verify at", "none", "", nil)
	}
	r, err := parseSNPReport(ev.Report)
	if err != nil {
		return nil, err
	}
	lines, err := linesFor(r, v.lines)
	if err != nil {
		return nil, err
	}
	own, err := CertTable(ev.Certificates, r.signer)
	if err != nil {
		return nil, err
	}
	var best error
	for _, der := range own {
		c, err := v.verifyWith(r, der, lines, at)
		if err == nil {
			return c, nil
		}
		best = further(best, err)
	}
	return v.verifyStored(ctx, r, ev.Certificates, lines, at, best)
}

// verifyStored tries what the store has for each product line the report may
// be of. best is the refusal so far, if the Evidence brought a certificate.
func (v *Verifier) verifyStored(ctx context.Context, r *snpReport, table []byte, lines []*ProductLine, at time.Time, best error) (*verifier.Claims, error) {
	var missing error
	for _, l := range lines {
		stored, err := v.fetch(ctx, r, l)
		if errors.Is(err, verifier.ErrNoEndorsement) {
			missing = err
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("looking up the %s of %s: %w", r.signer, l.Name, err)
		}
		for _, der := range stored {
			c, err := v.verifyWith(r, der, []*ProductLine{l}, at)
			if err == nil {
				return c, nil
			}
			best = further(best, lackOfStored(err))
		}
	}
	if best == nil {
		best = r.unendorsed(table, missing)
	}
	return nil, best
}

// unendorsed is the refusal of a report without any certificate for it.
func (r *snpReport) unendorsed(table []byte, missing error) error {
	next := "have the host send its certificates, or import the " + r.signer + " from AMD's KDS"
	switch {
	case r.signer == verifier.VLEK:
		next = "have the host send its certificates: a VLEK comes from the cloud provider alone, with the Evidence or by `ccrun certs import`"
	case verifier.Hex(r.msg.ChipId).IsZero():
		next = MaskedHint
	}
	return verifier.Lack("endorsement", fmt.Sprintf("the %s certificate of chip %x", r.signer, r.msg.ChipId[:8]), passedOver(table, r.signer), next, missing)
}

// MaskedHint is the next step for a report of a VCEK that names no chip: no
// certificate can be held against it.
const MaskedHint = "have the host unmask chip ids (MASK_CHIP_ID of SNP_CONFIG), or sign with a VLEK, which needs none"

// notThisKey is the rules that a certificate breaks if it is not of the key that
// signed.
func notThisKey() []string {
	return []string{"certificate_chain", "signer", "certificate_chip_id", "certificate_tcb"}
}

// lackOfStored is a stored certificate's refusal: that it is for another key is
// a lack of the right one. Of any other rule it is the report that breaks it.
func lackOfStored(err error) error {
	var refused *verifier.Error
	if errors.As(err, &refused) && slices.Contains(notThisKey(), refused.Rule.Rule) {
		lack := *refused
		lack.Lacking = true
		return &lack
	}
	return err
}

// fetch is the certificates to try.
func (v *Verifier) fetch(ctx context.Context, r *snpReport, l *ProductLine) ([][]byte, error) {
	k, err := r.endorsementKey(l)
	if v.endorsements == nil || err != nil || k.Signer == verifier.VCEK && len(k.ChipID) == 0 {
		return nil, verifier.ErrNoEndorsement
	}
	return v.endorsements.Candidates(ctx, k)
}

// verifyWith runs every check of the report under one certificate. The chain
// may come from the cache; validity, revocation, TCB and chip never do.
func (v *Verifier) verifyWith(r *snpReport, der []byte, lines []*ProductLine, at time.Time) (*verifier.Claims, error) {
	k, err := v.cache.Get(der,
		func(k *VEK) bool { return slices.Contains(lines, k.Line) },
		func(der []byte) (*VEK, error) { return Endorse(der, lines) })
	if err != nil {
		return nil, err
	}
	if k.Facts.Signer != r.signer {
		return nil, verifier.Refuse("signer", r.signer, k.Facts.Signer, "the certificate is not of the kind of key that signed", nil)
	}
	c, err := r.claims(k.Line)
	if err != nil {
		return nil, err
	}
	if err := matchVEK(k, c); err != nil {
		return nil, err
	}
	if err := chain.CheckValidity(at, k.Line.ARK, k.issuer, k.cert); err != nil {
		return nil, err
	}
	revoked := *v.revoked.Load()
	if err := revoked.Check(k.issuer, k.Line.ARK, at, v.requireCRL); err != nil {
		return nil, err
	}
	if err := revoked.Check(k.cert, k.issuer, at, false); err != nil {
		return nil, err
	}
	if err := verify.SnpReportSignature(r.raw, k.cert); err != nil {
		return nil, verifier.Refuse("signature", "signed by this "+r.signer, "a bad signature",
			"the report was altered, or signed by another chip", err)
	}
	return &verifier.Claims{TEE: v.tee, LaunchDigest: kbs.LaunchDigest(r.msg.Measurement), ReportData: kbs.ReportData(r.msg.ReportData),
		SNP: c, Chain: k.details, Checks: snpChecks(k, at, len(revoked[k.Line.ARK]))}, nil
}

// matchVEK checks that the certificate is for the very TCB and chip that the
// report claims: else an old, leaked key of the chip could sign for any TCB.
func matchVEK(k *VEK, c *verifier.SNPClaims) error {
	want := k.Line.hardwareID(c.ChipID)
	chip := !c.ChipID.IsZero() && bytes.Equal(k.Facts.HardwareID, want) && c.ChipID[len(want):].IsZero()
	switch {
	case k.Facts.Signer != verifier.VCEK || chip:
	case c.ChipID.IsZero():
		return verifier.Refuse("certificate_chip_id", "a report that names its chip", "none: the host masks chip ids", MaskedHint, nil)
	default:
		return verifier.Refuse("certificate_chip_id", fmt.Sprintf("the chip of the report, %s", c.ChipID), fmt.Sprintf("%x", k.Facts.HardwareID),
			"the certificate belongs to another chip: fetch the one for this report with `ccrun certs fetch --evidence`", nil)
	}
	if k.Facts.TCB != c.ReportedTCB {
		return verifier.Refuse("certificate_tcb", c.ReportedTCB.String()+" as reported", k.Facts.TCB.String(),
			"the certificate is for another TCB of this chip: fetch the one for REPORTED_TCB", nil)
	}
	return nil
}

// snpChecks lists what verifyWith has proved, for those who read the result.
func snpChecks(k *VEK, at time.Time, crls int) []verifier.Rule {
	revocation := verifier.Rule{Rule: "revocation", Expected: "not revoked", Got: "not revoked", Pass: true}
	if crls == 0 {
		revocation.Expected, revocation.Got = "not required", "no CRL of this vendor root at hand"
	}
	return []verifier.Rule{
		{Rule: "certificate_chain", Expected: "pinned ARK of " + k.Line.Name, Got: k.Line.ARK.Subject.CommonName + " > " +
			k.issuer.Subject.CommonName + " > " + k.cert.Subject.CommonName, Pass: true},
		{Rule: "certificate_validity", Expected: "valid at " + at.UTC().Format(time.RFC3339),
			Got: "until " + k.cert.NotAfter.UTC().Format(time.RFC3339), Pass: true},
		revocation,
		{Rule: "certificate_tcb", Expected: k.Facts.TCB.String(), Got: "the reported TCB", Pass: true},
		{Rule: "certificate_chip_id", Expected: expectedChip(k), Got: "the report's chip", Pass: true},
		{Rule: "signature", Expected: "ECDSA P-384 by this " + k.Facts.Signer, Got: "good", Pass: true},
	}
}

func expectedChip(k *VEK) string {
	if k.Facts.Signer == verifier.VLEK {
		return "none: a VLEK is shared by " + k.Facts.Provider
	}
	return fmt.Sprintf("%x", k.Facts.HardwareID)
}

// further is the refusal that got further through the checks: with several
// certificates at hand, it is the one that says what is wrong.
func further(a, b error) error {
	if a == nil || progress(b) > progress(a) {
		return b
	}
	return a
}

func progress(err error) int {
	return 1 + slices.Index([]string{"certificate_chain", "signer", "certificate_chip_id", "certificate_tcb",
		"certificate_validity", "revocation", "signature"}, verifier.RuleOf(err))
}

// ChainCache says how well the cache of checked chains works.
func (v *Verifier) ChainCache() chain.Use { return v.cache.Use() }
