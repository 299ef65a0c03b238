package verifier

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// On Azure a paravisor sits between guest and TEE: the TEE's REPORT_DATA is
// the digest of its variable data, which holds a vTPM's attestation key, and
// the guest's own data is signed by that key.

// vtpmQuote is the vTPM's half of the evidence, not believed yet.
type vtpmQuote struct {
	version            int
	message, signature []byte
	pcrs               []byte // 24 of 32 bytes
	varData            []byte // JSON
}

// VTPMClaims is what the vTPM of an Azure guest says.
type VTPMClaims struct {
	ExtraData Hex   `json:"extra_data"` // the guest's report data
	PCRs      []Hex `json:"pcrs"`       // SHA-256 bank
}

// azureEvidence is the JSON of CoCo's az-snp-vtpm and az-tdx-vtpm attesters,
// version 1 and 2; version 0 has other types and names.
type azureEvidence struct {
	Version  int `json:"version"`
	TPMQuote struct {
		Signature string          `json:"signature"`
		Message   string          `json:"message"`
		PCRs      json.RawMessage `json:"pcrs"` // in hex
	} `json:"tpm_quote"`
	HCLReport string `json:"hcl_report"`
	VCEK      string `json:"vcek"`
	TDQuote   string `json:"td_quote"`
}

// azureEvidenceV0 is version 0 of both: that for TDX already has the later
// names.
type azureEvidenceV0 struct {
	Quote     azureQuoteV0 `json:"quote"`
	TPMQuote  azureQuoteV0 `json:"tpm_quote"`
	Report    []byte       `json:"report"`
	HCLReport []byte       `json:"hcl_report"`
	VCEK      string       `json:"vcek"` // PEM
	TDQuote   []byte       `json:"td_quote"`
}

type azureQuoteV0 struct {
	Signature []byte          `json:"signature"`
	Message   []byte          `json:"message"`
	PCRs      json.RawMessage `json:"pcrs"`
}

// pcrCount and pcrSize are those of the bank that the attesters quote.
const (
	pcrCount = 24
	pcrSize  = sha256.Size
)

// HCL report layout: 32 bytes of header, the TEE's report in 1184 bytes, 20
// bytes of runtime header, then the variable data.
const (
	hclReport  = 0x20
	hclRuntime = hclReport + SNPReportSize
	hclVarData = hclRuntime + 20
)

func parseAzure(b []byte) (*Parsed, error) {
	var e azureEvidence
	var probe struct {
		Version json.RawMessage `json:"version"`
	}
	if err := json.Unmarshal(b, &probe); err != nil {
		return nil, err
	}
	if len(probe.Version) == 0 {
		return parseAzureV0(b)
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	if e.Version != 1 && e.Version != 2 {
		return nil, fmt.Errorf("version %d, expected 1 or 2", e.Version)
	}
	q := &vtpmQuote{version: e.Version}
	var err, err2 error
	q.signature, err = hex.DecodeString(e.TPMQuote.Signature)
	q.message, err2 = hex.DecodeString(e.TPMQuote.Message)
	pcrs, err6 := few[string](e.TPMQuote.PCRs, pcrCount)
	for _, s := range pcrs {
		pcr, err := hex.DecodeString(s)
		if err != nil || len(pcr) != pcrSize {
			return nil, errors.New("a PCR is not 64 hex digits")
		}
		q.pcrs = append(q.pcrs, pcr...)
	}
	hcl, err3 := base64url(e.HCLReport)
	vcek, err4 := base64url(e.VCEK)
	tdQuote, err5 := base64url(e.TDQuote)
	if err := errors.Join(err, err2, err3, err4, err5, err6); err != nil {
		return nil, err
	}
	return azureParsed(q, hcl, vcek, tdQuote)
}

func parseAzureV0(b []byte) (*Parsed, error) {
	var e azureEvidenceV0
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	hcl, quote := e.Report, e.Quote
	if len(e.TDQuote) > 0 {
		hcl, quote = e.HCLReport, e.TPMQuote
	}
	q := &vtpmQuote{message: quote.Message, signature: quote.Signature}
	pcrs, err := few[[]byte](quote.PCRs, pcrCount)
	if err != nil {
		return nil, fmt.Errorf("reading PCRs: %w", err)
	}
	for _, pcr := range pcrs {
		if len(pcr) != pcrSize {
			return nil, fmt.Errorf("a PCR has %d bytes, expected %d", len(pcr), pcrSize)
		}
		q.pcrs = append(q.pcrs, pcr...)
	}
	if len(e.TDQuote) > 0 {
		return azureParsed(q, hcl, nil, e.TDQuote)
	}
	block, _ := pem.Decode([]byte(e.VCEK))
	if block == nil {
		return nil, errors.New("vcek is not PEM")
	}
	return azureParsed(q, hcl, block.Bytes, nil)
}

// base64url decodes with padding, as the attesters write it, or without any, as
// keys have it; there is one spelling of each.
func base64url(s string) ([]byte, error) {
	if strings.HasSuffix(s, "=") {
		return base64.URLEncoding.Strict().DecodeString(s)
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}

// azureParsed takes the paravisor's blob apart. One of vcek and tdQuote is
// there.
func azureParsed(q *vtpmQuote, hcl, vcek, tdQuote []byte) (*Parsed, error) {
	if len(hcl) < hclVarData {
		return nil, fmt.Errorf("HCL report of %d bytes, expected at least %d", len(hcl), hclVarData)
	}
	n := uint64(binary.LittleEndian.Uint32(hcl[hclRuntime+16:]))
	if n > uint64(len(hcl)-hclVarData) {
		return nil, fmt.Errorf("HCL variable data of %d bytes, expected at most %d", n, len(hcl)-hclVarData)
	}
	q.varData = hcl[hclVarData : hclVarData+n]
	if len(tdQuote) > 0 {
		return &Parsed{Shape: "az-tdx-vtpm", vtpm: q, Evidence: kbs.Evidence{TEE: kbs.TDX, Report: tdQuote}}, nil
	}
	table, err := certTableOf(abi.VcekGUID, vcek)
	if err != nil {
		return nil, err
	}
	return &Parsed{Shape: "az-snp-vtpm", vtpm: q,
		Evidence: kbs.Evidence{TEE: kbs.SNP, Report: hcl[hclReport:hclRuntime], Certificates: table}}, nil
}

// bind ties the vTPM's quote to the TEE's claims c, link by link, and puts the
// guest's own data in the place of REPORT_DATA.
func (q *vtpmQuote) bind(c *Claims) error {
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
	if got := sha256.Sum256(q.pcrs); len(q.pcrs) != pcrCount*pcrSize || string(got[:]) != string(pcrDigest) {
		return vtpmError("vtpm_pcrs", fmt.Sprintf("%x as quoted", pcrDigest), fmt.Sprintf("%x", got), nil)
	}
	if q.version >= 2 && (len(extra) == 0 || !strings.HasPrefix(userData, hex.EncodeToString(extra))) {
		return vtpmError("vtpm_user_data", hex.EncodeToString(extra), userData, nil)
	}
	c.VTPM = &VTPMClaims{ExtraData: extra}
	for i := range pcrCount {
		c.VTPM.PCRs = append(c.VTPM.PCRs, q.pcrs[i*pcrSize:(i+1)*pcrSize])
	}
	c.Checks = append(c.Checks, Rule{Rule: "vtpm_signature", Expected: "RSA by the vTPM's key, whose digest is the REPORT_DATA", Got: "good", Pass: true})
	return nil
}

func vtpmError(rule, expected, got string, err error) error {
	return refuse(rule, expected, got, "the vTPM's quote does not belong to this machine's report", err)
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
	r := &cursor{b: b, order: binary.BigEndian}
	if m, t := r.u32(), r.u16(); r.err == nil && (m != magic || t != quoteType) {
		return nil, nil, fmt.Errorf("magic %x type %x, expected %x and %x", m, t, magic, quoteType)
	}
	r.take(int(r.u16())) // qualifiedSigner
	extra = r.take(int(r.u16()))
	r.take(17 + 8) // clockInfo, firmwareVersion
	if n, bank := r.u32(), r.u16(); r.err == nil && (n != 1 || bank != sha256ID) {
		return nil, nil, fmt.Errorf("%d banks, the first %x, expected one of SHA-256", n, bank)
	}
	if sel := r.take(4); r.err == nil && string(sel) != "\x03\xff\xff\xff" {
		return nil, nil, fmt.Errorf("PCR selection %x, expected all 24", sel)
	}
	pcrDigest = r.take(int(r.u16()))
	if r.err == nil && len(r.rest()) != 0 {
		return nil, nil, errors.New("data after the quote")
	}
	return extra, pcrDigest, r.err
}
