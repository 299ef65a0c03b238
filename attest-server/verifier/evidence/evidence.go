// Package evidence knows the shapes in which Evidence is met: raw, in the JSON
// of CoCo's attesters, and wrapped by a paravisor's vTPM. It trusts nothing of
// them: snp and tdx say what is authentic.
package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/tdx"
)

// MaxBytes bounds Evidence in any shape, in bytes. The largest in use
// is a TD's with its event log of up to 1 MiB, in base64.
const MaxBytes = 2 << 20

// Parse tells the shape of b by its content: a raw SNP report, which the host's
// certificate table may follow, a raw TD quote, or the JSON of a CoCo attester
// for snp, tdx, az-snp-vtpm or az-tdx-vtpm. Errors are refusals, *verifier.Error.
func Parse(b []byte) (*Parsed, error) {
	trimmed := bytes.TrimLeft(b, " \t\r\n")
	switch {
	case len(b) > MaxBytes:
		return nil, formatError(fmt.Sprintf("%d bytes", len(b)), nil)
	case len(b) == snp.ReportBytes && !tdx.IsQuote(b):
		return &Parsed{Shape: "raw snp", Evidence: kbs.Evidence{TEE: kbs.SNP, Report: b}}, nil
	case isExtendedReport(b):
		return &Parsed{Shape: "raw snp", Evidence: kbs.Evidence{TEE: kbs.SNP, Report: b[:snp.ReportBytes], Certificates: b[snp.ReportBytes:]}}, nil
	case tdx.IsQuote(b):
		return &Parsed{Shape: "raw tdx", Evidence: kbs.Evidence{TEE: kbs.TDX, Report: b}}, nil
	case len(trimmed) > 0 && trimmed[0] == '{':
		return parseJSONEvidence(trimmed)
	}
	return nil, formatError(fmt.Sprintf("%d bytes of something else", len(b)), nil)
}

// isExtendedReport says whether b is an SNP report with the host's certificate
// table behind it, as tools write what SNP_GET_EXT_REPORT gives. The report's
// reserved bytes tell it from other things.
func isExtendedReport(b []byte) bool {
	return len(b) > snp.ReportBytes && len(b) <= snp.ReportBytes+snp.MaxCertTableBytes && !tdx.IsQuote(b) &&
		b[0] >= 2 && b[0] < ' ' && verifier.Hex(b[1:4]).IsZero() && verifier.Hex(b[0x4c:0x50]).IsZero() && !verifier.Hex(b[0x2a0:0x330]).IsZero()
}

func formatError(got string, err error) error {
	return verifier.Refuse("evidence_format", fmt.Sprintf("an SNP report, a TD quote or CoCo evidence JSON of at most %d bytes", MaxBytes), got,
		"give the evidence as the TEE's driver or a CoCo attester wrote it", err)
}

// parseJSONEvidence tells the shapes apart by the members they alone have.
// Unknown members are let pass: clients of other releases send them, and what
// counts is signed.
func parseJSONEvidence(b []byte) (*Parsed, error) {
	var probe map[string]json.RawMessage
	if err := json.Unmarshal(b, &probe); err != nil {
		return nil, formatError("broken JSON", err)
	}
	has := func(name string) bool { return len(probe[name]) > 0 }
	var p *Parsed
	var err error
	switch {
	case has("attestation_report"):
		p, err = parseCoCoSNP(b)
	case has("hcl_report") || has("report") && has("vcek"):
		p, err = parseAzure(b)
	case has("quote"):
		p, err = parseCoCoTDX(b)
	default:
		return nil, formatError("JSON of another shape", nil)
	}
	if err != nil {
		return nil, formatError("JSON that does not decode", err)
	}
	return p, nil
}
