package evidence

import (
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
)

// On Azure a paravisor sits between guest and TEE: the TEE's REPORT_DATA is
// the digest of its variable data, which holds a vTPM's attestation key, and
// the guest's own data is signed by that key.

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

// HCL report layout: 32 bytes of header, the TEE's report in 1184 bytes, 20
// bytes of runtime header, then the variable data.
const (
	hclReport  = 0x20
	hclRuntime = hclReport + snp.ReportBytes
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
	pcrs, err6 := few[string](e.TPMQuote.PCRs, verifier.PCRCount)
	for _, s := range pcrs {
		pcr, err := hex.DecodeString(s)
		if err != nil || len(pcr) != verifier.PCRBytes {
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
	pcrs, err := few[[]byte](quote.PCRs, verifier.PCRCount)
	if err != nil {
		return nil, fmt.Errorf("reading PCRs: %w", err)
	}
	for _, pcr := range pcrs {
		if len(pcr) != verifier.PCRBytes {
			return nil, fmt.Errorf("a PCR has %d bytes, expected %d", len(pcr), verifier.PCRBytes)
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
	table, err := snp.NewCertTable(snp.CertTableEntry{Signer: verifier.VCEK, DER: vcek})
	if err != nil {
		return nil, err
	}
	return &Parsed{Shape: "az-snp-vtpm", vtpm: q,
		Evidence: kbs.Evidence{TEE: kbs.SNP, Report: hcl[hclReport:hclRuntime], Certificates: table}}, nil
}
