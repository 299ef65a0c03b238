// Package tdx says whether a TD quote is authentic: made by Intel's quoting
// enclave, on a platform that Intel's pinned root vouches for and no CRL lists,
// and what Intel says of that platform's TCB. What the quote says of the TD is
// for verifier.Appraise to judge.
package tdx

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/chain"
)

// CollateralSource is where a Verifier finds Intel's collateral.
type CollateralSource interface {
	// Collateral is what there is for the platform, in any order; several
	// generations may be there. ca is "platform" or "processor", after the CA
	// that issued the platform's PCK. ErrNoEndorsement if there is none. What
	// it returns is not trusted, and must not change afterwards.
	Collateral(ctx context.Context, fmspc, ca string) ([]*Collateral, error)
}

// Options configures a Verifier. The zero value trusts Intel's root and
// refuses every quote for want of collateral.
type Options struct {
	Root       *x509.Certificate // nil: Intel SGX Root CA
	Collateral CollateralSource
}

// Verifier verifies TD quotes of versions 4 and 5. It is safe for
// concurrent use.
type Verifier struct {
	root   *x509.Certificate
	source CollateralSource
	chains chain.Cache[pckChain]

	mu       sync.Mutex
	verified map[*Collateral]judgement
}

// judgement is what verifyCollateral once said.
type judgement struct {
	c   *VerifiedCollateral
	err error
}

// maxVerifiedCollateral bounds the memory of collateral already checked.
const maxVerifiedCollateral = 256

// New makes a Verifier.
func New(o Options) (*Verifier, error) {
	v := &Verifier{root: o.Root, source: o.Collateral, verified: map[*Collateral]judgement{}}
	if v.root == nil {
		var err error
		if v.root, err = Root(); err != nil {
			return nil, err
		}
	}
	if err := issuedBy(v.root, v.root); err != nil {
		return nil, fmt.Errorf("checking the root %q: %w", v.root.Subject.CommonName, err)
	}
	return v, nil
}

// Verify implements Verifier.
func (v *Verifier) Verify(ctx context.Context, ev kbs.Evidence, at time.Time) (*verifier.Claims, error) {
	if ev.TEE != kbs.TDX {
		return nil, verifier.Refuse("tee", string(kbs.TDX), fmt.Sprintf("%q", ev.TEE), "the evidence is of another TEE", nil)
	}
	if at.IsZero() {
		return nil, verifier.Refuse("clock", "a time to verify at", "none", "", nil)
	}
	q, err := parseQuote(ev.Report)
	if err != nil {
		return nil, err
	}
	pck, err := v.chains.Get(q.pckChain,
		func(*pckChain) bool { return true },
		func(chain []byte) (*pckChain, error) { return checkPCKChain(chain, v.root) })
	if err != nil {
		return nil, err
	}
	if err := chain.CheckValidity(at, v.root, pck.ca, pck.leaf); err != nil {
		return nil, err
	}
	if err := checkQuoteSignatures(q, pck); err != nil {
		return nil, err
	}
	col, err := v.collateralFor(ctx, pck, at)
	if err != nil {
		return nil, err
	}
	c := q.claims()
	tcb, err := evaluateTCB(col, c, pck.ext, q.qe())
	if err != nil {
		return nil, err
	}
	c.FMSPC, c.PPID, c.PCEID, c.PCESVN, c.CPUSVN = pck.ext.FMSPC, strings.ToLower(pck.ext.PPID), pck.ext.PCEID, pck.ext.TCB.PCESvn, pck.ext.TCB.CPUSvn
	c.PlatformTCBStatus, c.ModuleTCBStatus, c.QETCBStatus, c.TCBStatus = tcb.platform, tcb.module, tcb.qe, tcb.overall
	c.TCBShort = tcb.short
	c.Advisories, c.TCBDate, c.TCBEvaluation = tcb.advisories, tcb.date, col.evaluation()
	return &verifier.Claims{TEE: kbs.TDX, LaunchDigest: kbs.LaunchDigest(c.MRTD), ReportData: kbs.ReportData(q.reportData()),
		TDX: c, Chain: pck.details, Checks: tdxChecks(pck, col, at)}, nil
}

// checkQuoteSignatures follows the chain down from the PCK: it signs the
// quoting enclave's report, whose REPORT_DATA holds the digest of the
// attestation key, which signs the quote.
func checkQuoteSignatures(q *tdQuote, pck *pckChain) error {
	const hint = "the quote was altered, or not made on this machine"
	pub, ok := pck.leaf.PublicKey.(*ecdsa.PublicKey)
	if !ok || !verifyP256(pub, q.qeReport, q.qeSign) {
		return verifier.Refuse("qe_report_signature", "signed by this PCK", "a bad signature", hint, nil)
	}
	h := sha256.New()
	h.Write(q.attestKey)
	h.Write(q.qeAuthData)
	var want [64]byte
	h.Sum(want[:0])
	if [64]byte(q.qe().reportData) != want {
		return verifier.Refuse("attestation_key", "the one in the quoting enclave's report", "another", hint, nil)
	}
	key, err := p256Key(q.attestKey)
	if err != nil || !verifyP256(key, q.signed, q.signature) {
		return verifier.Refuse("signature", "signed by the attestation key", "a bad signature", hint, err)
	}
	return nil
}

// collateralFor is the freshest collateral for the platform that is good at
// the given time. Older collateral is asked only where fresher has expired:
// never to forget a revocation that the fresher knows of.
func (v *Verifier) collateralFor(ctx context.Context, pck *pckChain, at time.Time) (*VerifiedCollateral, error) {
	none := func(err error) error {
		return verifier.Lack("collateral", "collateral for FMSPC "+pck.ext.FMSPC, "none",
			"import TCB info, QE identity and CRLs for this platform from Intel's PCS or a PCCS", err)
	}
	best := none(nil)
	if v.source == nil {
		return nil, best
	}
	raw, err := v.source.Collateral(ctx, pck.ext.FMSPC, caName(pck.ca))
	if errors.Is(err, verifier.ErrNoEndorsement) {
		return nil, none(err)
	}
	if err != nil {
		return nil, fmt.Errorf("looking up collateral for FMSPC %s: %w", pck.ext.FMSPC, err)
	}
	var fit []*VerifiedCollateral
	for _, r := range raw {
		c, err := v.verify(r)
		switch {
		case err != nil:
			best = err
		case c.fits(pck):
			fit = append(fit, c)
		}
	}
	byFreshness(fit)
	for i, c := range fit {
		if err = c.checkAt(at, pck, v.root); err == nil {
			return c, onNone(fit, pck)
		}
		if i == 0 {
			best = err
		}
		if verifier.RuleOf(err) == "revocation" {
			return nil, err // no lack: somebody is revoked
		}
	}
	return nil, best
}

// onNone refuses what any CRL at hand lists, also one that came with older
// collateral: fresh TCB info does not make a fresh CRL.
func onNone(all []*VerifiedCollateral, pck *pckChain) error {
	for _, c := range all {
		if err := errors.Join(chain.NotRevoked(c.pckCRL, pck.leaf), chain.NotRevoked(c.rootCRL, pck.ca)); err != nil {
			return err
		}
	}
	return nil
}

// verify checks the signatures of c, or remembers having done so: a source
// that keeps its Collateral is checked once.
func (v *Verifier) verify(c *Collateral) (*VerifiedCollateral, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k, ok := v.verified[c]; ok {
		return k.c, k.err
	}
	k := judgement{}
	k.c, k.err = VerifyCollateral(c, v.root)
	if len(v.verified) >= maxVerifiedCollateral {
		clear(v.verified)
	}
	v.verified[c] = k
	return k.c, k.err
}

func tdxChecks(pck *pckChain, col *VerifiedCollateral, at time.Time) []verifier.Rule {
	return []verifier.Rule{
		{Rule: "certificate_chain", Expected: "pinned Intel SGX Root CA", Got: pck.ca.Subject.CommonName + " > " + pck.leaf.Subject.CommonName, Pass: true},
		{Rule: "certificate_validity", Expected: "valid at " + verifier.ShowTime(at), Got: "until " + verifier.ShowTime(pck.leaf.NotAfter), Pass: true},
		{Rule: "qe_report_signature", Expected: "ECDSA P-256 by this PCK", Got: "good", Pass: true},
		{Rule: "signature", Expected: "ECDSA P-256 by the attestation key", Got: "good", Pass: true},
		{Rule: "collateral", Expected: "FMSPC " + pck.ext.FMSPC, Got: fmt.Sprintf("TCB evaluation %d of %s", col.tcb.TcbEvaluationDataNumber, verifier.ShowTime(col.tcb.IssueDate)), Pass: true},
		{Rule: "collateral_validity", Expected: "current at " + verifier.ShowTime(at), Got: "until " + verifier.ShowTime(col.tcb.NextUpdate), Pass: true},
		{Rule: "revocation", Expected: "not revoked", Got: "not revoked", Pass: true},
		{Rule: "qe_identity", Expected: "Intel's TD quoting enclave", Got: "it", Pass: true},
	}
}

// ChainCache says how well the cache of checked chains works.
func (v *Verifier) ChainCache() chain.Use { return v.chains.Use() }
