package evidence

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/cursor"
)

// vtpmQuote is the vTPM's half of the evidence, not believed yet.
type vtpmQuote struct {
	version            int
	message, signature []byte
	pcrs               []byte // 24 of 32 bytes
	varData            []byte // JSON
}

// bind ties the vTPM's quote to the TEE's claims c, link by link, and puts the
// guest's own data in the place of REPORT_DATA.
func (q *vtpmQuote) bind(c *verifier.Claims) error {
	var want kbs.ReportData
	sum := sha256.Sum256(q.varData)
	copy(want[:], sum[:])
	if c.ReportData != want {
		return vtpmError("vtpm_binding", "REPORT_DATA "+want.String()+", the digest of the vTPM's key", c.ReportData.String(), nil)
	}
	ak, userData, err := parseVarData(q.varData)
	if err != nil {
		return vtpmError("vtpm_binding", "an attestation key in the paravisor's data", "none", err)
	}
	digest := sha256.Sum256(q.message)
	if err := rsa.VerifyPKCS1v15(ak, crypto.SHA256, digest[:], q.signature); err != nil {
		return vtpmError("vtpm_signature", "signed by the vTPM's attestation key", "a bad signature", err)
	}
	extra, pcrDigest, err := parseTPMQuote(q.message)
	if err != nil {
		return vtpmError("vtpm_quote", "a TPM 2.0 quote of the SHA-256 bank", "something else", err)
	}
	if got := sha256.Sum256(q.pcrs); len(q.pcrs) != verifier.PCRCount*verifier.PCRBytes || string(got[:]) != string(pcrDigest) {
		return vtpmError("vtpm_pcrs", fmt.Sprintf("%x as quoted", pcrDigest), fmt.Sprintf("%x", got), nil)
	}
	if q.version >= 2 && (len(extra) == 0 || !strings.HasPrefix(userData, hex.EncodeToString(extra))) {
		return vtpmError("vtpm_user_data", hex.EncodeToString(extra), userData, nil)
	}
	c.VTPM = &verifier.VTPMClaims{ExtraData: extra}
	for i := range verifier.PCRCount {
		c.VTPM.PCRs = append(c.VTPM.PCRs, q.pcrs[i*verifier.PCRBytes:(i+1)*verifier.PCRBytes])
	}
	c.Checks = append(c.Checks, verifier.Rule{Rule: "vtpm_signature", Expected: "RSA by the vTPM's key, whose digest is the REPORT_DATA", Got: "good", Pass: true})
	return nil
}

func vtpmError(rule, expected, got string, err error) error {
	return verifier.Refuse(rule, expected, got, "the vTPM's quote does not belong to this machine's report", err)
}

// parseVarData reads the attestation key and the user data (lower case).
func parseVarData(b []byte) (*rsa.PublicKey, string, error) {
	var v struct {
		Keys []struct {
			KID string `json:"kid"`
			KTY string `json:"kty"`
			E   string `json:"e"`
			N   string `json:"n"`
		} `json:"keys"`
		UserData string `json:"user-data"`
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, "", err
	}
	for _, k := range v.Keys {
		if k.KID != "HCLAkPub" || k.KTY != "RSA" {
			continue
		}
		n, err := base64url(k.N)
		e, err2 := base64url(k.E)
		if err := errors.Join(err, err2); err != nil {
			return nil, "", err
		}
		if len(n) != 256 || len(e) > 4 {
			return nil, "", fmt.Errorf("RSA key of %d bytes, expected 256", len(n))
		}
		return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: int(new(big.Int).SetBytes(e).Int64())}, strings.ToLower(v.UserData), nil
	}
	return nil, "", errors.New("no RSA key HCLAkPub")
}

// parseTPMQuote reads a TPMS_ATTEST of type TPM_ST_ATTEST_QUOTE (TPM 2.0
// library, part 2, section 10.12) over all 24 PCRs of the SHA-256 bank.
func parseTPMQuote(b []byte) (extra, pcrDigest []byte, err error) {
	const magic, quoteType, sha256ID = 0xff544347, 0x8018, 0x000b
	r := cursor.BigEndian(b)
	if m, t := r.U32(), r.U16(); r.Err == nil && (m != magic || t != quoteType) {
		return nil, nil, fmt.Errorf("magic %x type %x, expected %x and %x", m, t, magic, quoteType)
	}
	r.Take(int(r.U16())) // qualifiedSigner
	extra = r.Take(int(r.U16()))
	r.Take(17 + 8) // clockInfo, firmwareVersion
	if n, bank := r.U32(), r.U16(); r.Err == nil && (n != 1 || bank != sha256ID) {
		return nil, nil, fmt.Errorf("%d banks, the first %x, expected one of SHA-256", n, bank)
	}
	if sel := r.Take(4); r.Err == nil && string(sel) != "\x03\xff\xff\xff" {
		return nil, nil, fmt.Errorf("PCR selection %x, expected all 24", sel)
	}
	pcrDigest = r.Take(int(r.U16()))
	if r.Err == nil && len(r.Rest()) != 0 {
		return nil, nil, errors.New("data after the quote")
	}
	return extra, pcrDigest, r.Err
}

// base64url decodes with padding, as the attesters write it, or without any, as
// keys have it; there is one spelling of each.
func base64url(s string) ([]byte, error) {
	if strings.HasSuffix(s, "=") {
		return base64.URLEncoding.Strict().DecodeString(s)
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}
