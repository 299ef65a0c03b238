package tdx

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/verifier/chain"

	"github.com/google/go-tdx-guest/pcs"

	"github.com/ccrun/ccrun/attest-server/verifier"
)

// Collateral is what Intel publishes about a platform, as its PCS serves it:
// certificate chains in PEM, CRLs and signatures in hex, and the exact bytes
// of the signed JSON.
type Collateral struct {
	PCKCRLIssuerChain     string `json:"pck_crl_issuer_chain"`
	RootCACRL             string `json:"root_ca_crl"`
	PCKCRL                string `json:"pck_crl"`
	TCBInfoIssuerChain    string `json:"tcb_info_issuer_chain"`
	TCBInfo               string `json:"tcb_info"`
	TCBInfoSignature      string `json:"tcb_info_signature"`
	QEIdentityIssuerChain string `json:"qe_identity_issuer_chain"`
	QEIdentity            string `json:"qe_identity"`
	QEIdentitySignature   string `json:"qe_identity_signature"`
}

// MaxCollateralBytes bounds each member of a Collateral, in bytes.
const MaxCollateralBytes = 1 << 20

// ParseCollateral reads a *.collateral.json. It does not judge it.
func ParseCollateral(b []byte) (*Collateral, error) {
	if len(b) > MaxCollateralBytes {
		return nil, fmt.Errorf("collateral of %d bytes, expected at most %d", len(b), MaxCollateralBytes)
	}
	c := &Collateral{}
	if err := json.Unmarshal(b, c); err != nil {
		return nil, err
	}
	if c.TCBInfo == "" || c.QEIdentity == "" {
		return nil, errors.New("collateral has no tcb_info or no qe_identity")
	}
	return c, nil
}

// FMSPC is the platform that the TCB info claims to be for, in lower case.
func (c *Collateral) FMSPC() (string, error) {
	var t struct {
		FMSPC string `json:"fmspc"`
	}
	if err := json.Unmarshal([]byte(c.TCBInfo), &t); err != nil {
		return "", err
	}
	if len(t.FMSPC) != 12 {
		return "", fmt.Errorf("FMSPC %q is not 12 hex digits", t.FMSPC)
	}
	return strings.ToLower(t.FMSPC), nil
}

// VerifiedCollateral is a Collateral whose signatures, all up to the pinned
// root, are good. Its periods of validity are checked each time it is used.
type VerifiedCollateral struct {
	Raw     *Collateral
	tcb     pcs.TcbInfo
	qe      pcs.EnclaveIdentity
	signers []*x509.Certificate // of TCB info and QE identity
	ca      *x509.Certificate   // issuer of the PCK CRL
	rootCRL *x509.RevocationList
	pckCRL  *x509.RevocationList
}

// VerifyCollateral checks every signature of c, once. Both CRLs are needed:
// without them a revoked PCK would pass.
func VerifyCollateral(c *Collateral, root *x509.Certificate) (*VerifiedCollateral, error) {
	v := &VerifiedCollateral{Raw: c}
	var err error
	if v.rootCRL, err = parseHexCRL(c.RootCACRL); err == nil {
		err = v.rootCRL.CheckSignatureFrom(root)
	}
	if err != nil {
		return nil, collateralError("root CA CRL", err)
	}
	if v.ca, err = underRoot(c.PCKCRLIssuerChain, root); err != nil {
		return nil, collateralError("issuer chain of the PCK CRL", err)
	}
	if v.pckCRL, err = parseHexCRL(c.PCKCRL); err == nil {
		err = v.pckCRL.CheckSignatureFrom(v.ca)
	}
	if err != nil {
		return nil, collateralError("PCK CRL", err)
	}
	signer, err := checkSigned(c.TCBInfo, c.TCBInfoSignature, c.TCBInfoIssuerChain, root, &v.tcb)
	if err != nil {
		return nil, collateralError("TCB info", err)
	}
	v.signers = append(v.signers, signer)
	if signer, err = checkSigned(c.QEIdentity, c.QEIdentitySignature, c.QEIdentityIssuerChain, root, &v.qe); err != nil {
		return nil, collateralError("QE identity", err)
	}
	v.signers = append(v.signers, signer)
	return v, v.checkShape()
}

// checkShape refuses collateral that is signed but for something else, e.g.
// TCB info of SGX, or with tables of other lengths than the rules compare.
func (v *VerifiedCollateral) checkShape() error {
	t, q := v.tcb, v.qe
	switch {
	case t.ID != "TDX" || t.Version != 3:
		return collateralError("TCB info", fmt.Errorf("id %q version %d, expected TDX version 3", t.ID, t.Version))
	case t.TcbType != 0:
		return collateralError("TCB info", fmt.Errorf("type %d, whose levels are compared in another way: expected 0", t.TcbType))
	case q.ID != "TD_QE" || q.Version != 2:
		return collateralError("QE identity", fmt.Errorf("id %q version %d, expected TD_QE version 2", q.ID, q.Version))
	case len(t.TdxModule.Mrsigner.Bytes) != 48 || !pair(t.TdxModule.Attributes, t.TdxModule.AttributesMask, 8):
		return collateralError("TCB info", errors.New("TDX module identity of another size"))
	case !pair(q.Miscselect, q.MiscselectMask, 4) || !pair(q.Attributes, q.AttributesMask, 16) || len(q.Mrsigner.Bytes) != 32:
		return collateralError("QE identity", errors.New("fields of another size"))
	}
	for _, l := range t.TcbLevels {
		if len(l.Tcb.SgxTcbcomponents) != 16 || len(l.Tcb.TdxTcbcomponents) != 16 {
			return collateralError("TCB info", errors.New("a level without 16 SGX and 16 TDX components"))
		}
	}
	for _, m := range t.TdxModuleIdentities {
		if len(m.Mrsigner.Bytes) != 48 || !pair(m.Attributes, m.AttributesMask, 8) {
			return collateralError("TCB info", errors.New("TDX module identity of another size"))
		}
	}
	return nil
}

func pair(a, b pcs.HexBytes, n int) bool { return len(a.Bytes) == n && len(b.Bytes) == n }

func collateralError(what string, err error) error {
	return verifier.Lack("collateral", what+" signed under Intel's pinned root", "something else",
		"fetch the collateral from Intel's PCS or a PCCS again", err)
}

func parseHexCRL(s string) (*x509.RevocationList, error) {
	der, err := hex.DecodeString(s)
	if err != nil {
		return nil, err
	}
	return x509.ParseRevocationList(der)
}

// underRoot is the first certificate of a chain of two that ends in root.
func underRoot(chain string, root *x509.Certificate) (*x509.Certificate, error) {
	certs, err := pemChain([]byte(chain), 2)
	if err != nil {
		return nil, err
	}
	if !certs[1].Equal(root) {
		return nil, errors.New("the chain ends in another root")
	}
	return certs[0], issuedBy(certs[0], root)
}

// checkSigned checks Intel's signature over the exact bytes of body, then
// decodes them into v.
func checkSigned(body, signature, chain string, root *x509.Certificate, v any) (*x509.Certificate, error) {
	signer, err := underRoot(chain, root)
	if err != nil {
		return nil, err
	}
	if signer.Subject.CommonName != "Intel SGX TCB Signing" {
		return nil, fmt.Errorf("signed by %q, expected Intel SGX TCB Signing", signer.Subject.CommonName)
	}
	pub, ok := signer.PublicKey.(*ecdsa.PublicKey)
	sig, err := hex.DecodeString(signature)
	if err != nil || !ok || !verifyP256(pub, []byte(body), sig) {
		return nil, errors.New("the signature is not good")
	}
	return signer, json.Unmarshal([]byte(body), v)
}

// checkAt checks that nothing in the collateral has expired, and that nobody
// in either chain is revoked. An issue date ahead of the clock is let pass:
// newer collateral only knows more.
func (v *VerifiedCollateral) checkAt(at time.Time, pck *pckChain, root *x509.Certificate) error {
	certs := append([]*x509.Certificate{root, v.ca, pck.ca, pck.leaf}, v.signers...)
	if err := chain.CheckValidity(at, certs...); err != nil {
		return err
	}
	for _, e := range []struct {
		what string
		next time.Time
	}{
		{"TCB info", v.tcb.NextUpdate}, {"QE identity", v.qe.NextUpdate},
		{"root CA CRL", v.rootCRL.NextUpdate}, {"PCK CRL", v.pckCRL.NextUpdate},
	} {
		if e.next.IsZero() || at.After(e.next) {
			return verifier.Lack("collateral_validity", fmt.Sprintf("%s current at %s", e.what, verifier.ShowTime(at)), "until "+verifier.ShowTime(e.next),
				"fetch current collateral from Intel's PCS or a PCCS, or check the clock", nil)
		}
	}
	for _, c := range append([]*x509.Certificate{pck.ca, v.ca}, v.signers...) {
		if err := chain.NotRevoked(v.rootCRL, c); err != nil {
			return err
		}
	}
	return chain.NotRevoked(v.pckCRL, pck.leaf)
}

// fits says whether the collateral is for the platform of this PCK, and its
// CRL by the CA that issued the PCK.
func (v *VerifiedCollateral) fits(pck *pckChain) bool {
	return strings.EqualFold(v.tcb.Fmspc, pck.ext.FMSPC) && strings.EqualFold(v.tcb.PceID, pck.ext.PCEID) && v.ca.Equal(pck.ca)
}

// byFreshness puts the collateral that expires last first.
func byFreshness(cs []*VerifiedCollateral) {
	slices.SortStableFunc(cs, func(a, b *VerifiedCollateral) int { return b.tcb.NextUpdate.Compare(a.tcb.NextUpdate) })
}

// Platform is the platform that the collateral is for, in lower case, and the
// name of the CA whose PCKs it is about.
func (v *VerifiedCollateral) Platform() (fmspc, ca string) {
	return strings.ToLower(v.tcb.Fmspc), caName(v.ca)
}

// Issued is when Intel wrote the TCB info.
func (v *VerifiedCollateral) Issued() time.Time { return v.tcb.IssueDate }

// Expires is when the first of its documents does.
func (v *VerifiedCollateral) Expires() time.Time {
	first := v.tcb.NextUpdate
	for _, t := range []time.Time{v.qe.NextUpdate, v.rootCRL.NextUpdate, v.pckCRL.NextUpdate} {
		if t.Before(first) {
			first = t
		}
	}
	return first
}

// Evaluation is Intel's number of the TCB evaluation.
func (v *VerifiedCollateral) Evaluation() int { return v.tcb.TcbEvaluationDataNumber }

// evaluation is the lower number of its two documents: each may be older. One
// that makes no sense counts as none.
func (v *VerifiedCollateral) evaluation() uint32 {
	n := min(v.tcb.TcbEvaluationDataNumber, v.qe.TcbEvaluationDataNumber)
	if n < 0 || n > math.MaxInt32 {
		return 0
	}
	return uint32(n)
}

// FreshestParts is the collateral of a and b, part by part. Whole against
// whole, a mirror could bring fresh TCB info along with an old CRL, and so
// have a revocation forgotten that is known here.
func FreshestParts(a, b *VerifiedCollateral) *Collateral {
	c, o := *a.Raw, b.Raw
	if b.tcb.IssueDate.After(a.tcb.IssueDate) {
		c.TCBInfo, c.TCBInfoSignature, c.TCBInfoIssuerChain = o.TCBInfo, o.TCBInfoSignature, o.TCBInfoIssuerChain
	}
	if b.qe.IssueDate.After(a.qe.IssueDate) {
		c.QEIdentity, c.QEIdentitySignature, c.QEIdentityIssuerChain = o.QEIdentity, o.QEIdentitySignature, o.QEIdentityIssuerChain
	}
	if b.rootCRL.ThisUpdate.After(a.rootCRL.ThisUpdate) {
		c.RootCACRL = o.RootCACRL
	}
	if b.pckCRL.ThisUpdate.After(a.pckCRL.ThisUpdate) {
		c.PCKCRL, c.PCKCRLIssuerChain = o.PCKCRL, o.PCKCRLIssuerChain
	}
	return &c
}
