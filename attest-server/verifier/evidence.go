package verifier

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/uuid"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// MaxEvidenceSize bounds Evidence in any shape, in bytes. The largest in use
// is a TD's with its event log of up to 1 MiB, in base64.
const MaxEvidenceSize = 2 << 20

// Parsed is Evidence read from one of the shapes it is met in.
type Parsed struct {
	Evidence kbs.Evidence
	Shape    string // e.g. "raw snp", "coco tdx", "az-snp-vtpm"
	vtpm     *vtpmQuote
	eventLog []byte // nil: none came along
}

// Verify has v verify the Evidence, and where a vTPM stands between guest and
// TEE, binds its quote to the TEE's report as well. An event log is replayed
// into the claims; Appraise holds it against the quote.
func (p *Parsed) Verify(ctx context.Context, v Verifier, at time.Time) (*Claims, error) {
	c, err := v.Verify(ctx, p.Evidence, at)
	if err != nil {
		return nil, err
	}
	if err := p.replay(c); err != nil {
		return nil, err
	}
	if p.vtpm == nil {
		return c, nil
	}
	return c, p.vtpm.bind(c)
}

// ParseEvidence tells the shape of b by its content: a raw SNP report, which
// the host's certificate table may follow, a raw TD quote, or the JSON of a CoCo attester for snp, tdx, az-snp-vtpm or
// az-tdx-vtpm. Errors are refusals: *Error.
func ParseEvidence(b []byte) (*Parsed, error) {
	trimmed := bytes.TrimLeft(b, " \t\r\n")
	switch {
	case len(b) > MaxEvidenceSize:
		return nil, formatError(fmt.Sprintf("%d bytes", len(b)), nil)
	case len(b) == SNPReportSize && !IsTDQuote(b):
		return &Parsed{Shape: "raw snp", Evidence: kbs.Evidence{TEE: kbs.SNP, Report: b}}, nil
	case isExtendedReport(b):
		return &Parsed{Shape: "raw snp", Evidence: kbs.Evidence{TEE: kbs.SNP, Report: b[:SNPReportSize], Certificates: b[SNPReportSize:]}}, nil
	case IsTDQuote(b):
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
	return len(b) > SNPReportSize && len(b) <= SNPReportSize+maxCertTableSize && !IsTDQuote(b) &&
		b[0] >= 2 && b[0] < ' ' && isZero(b[1:4]) && isZero(b[0x4c:0x50]) && !isZero(b[0x2a0:0x330])
}

func formatError(got string, err error) error {
	return refuse("evidence_format", fmt.Sprintf("an SNP report, a TD quote or CoCo evidence JSON of at most %d bytes", MaxEvidenceSize), got,
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

func parseCoCoTDX(b []byte) (*Parsed, error) {
	var e struct {
		Quote    string `json:"quote"`
		EventLog string `json:"cc_eventlog"` // null or empty: none
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	quote, err := base64.StdEncoding.Strict().DecodeString(e.Quote)
	if err != nil {
		return nil, fmt.Errorf("reading the quote: %w", err)
	}
	p := &Parsed{Shape: "coco tdx", Evidence: kbs.Evidence{TEE: kbs.TDX, Report: quote}}
	if e.EventLog == "" {
		return p, nil
	}
	log, err := base64.StdEncoding.Strict().DecodeString(e.EventLog)
	if err != nil {
		return nil, fmt.Errorf("reading the event log: %w", err)
	}
	return p, p.AddEventLog(log)
}

// cocoSNP is the evidence of CoCo's snp attester: the report as the sev crate
// serialises its fields, byte arrays as arrays of numbers.
type cocoSNP struct {
	Report    cocoReport      `json:"attestation_report"`
	CertChain json.RawMessage `json:"cert_chain"` // of cocoCert; null or none
}

type cocoCert struct {
	Type json.RawMessage `json:"cert_type"` // "VCEK", ..., or {"OTHER": uuid}
	Data []byte          `json:"data"`
}

func parseCoCoSNP(b []byte) (*Parsed, error) {
	var e cocoSNP
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, err
	}
	report, err := e.Report.bytes()
	if err != nil {
		return nil, err
	}
	chain, err := few[cocoCert](e.CertChain, maxCertTableEntries)
	if err != nil {
		return nil, fmt.Errorf("reading cert_chain: %w", err)
	}
	table, err := cocoCertTable(chain)
	if err != nil {
		return nil, err
	}
	return &Parsed{Shape: "coco snp", Evidence: kbs.Evidence{TEE: kbs.SNP, Report: report, Certificates: table}}, nil
}

// few decodes a JSON array of at most max elements, or null. Decoded whole, an
// array of a million empty ones would take a hundred times its size in memory.
func few[T any](raw json.RawMessage, max int) ([]T, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return nil, errors.New("no array")
	}
	var list []T
	for d.More() {
		if len(list) == max {
			return nil, fmt.Errorf("more than %d elements", max)
		}
		var v T
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// cocoCertTable puts the endorsement keys' certificates into the form that a
// host hands out; the roots that came along are not needed, ours are pinned.
func cocoCertTable(chain []cocoCert) ([]byte, error) {
	var t abi.CertTable
	for _, c := range chain {
		var guid string
		switch string(bytes.TrimSpace(c.Type)) {
		case `"VCEK"`:
			guid = abi.VcekGUID
		case `"VLEK"`:
			guid = abi.VlekGUID
		default:
			continue
		}
		if len(c.Data) == 0 || len(c.Data) > maxCertificateSize {
			return nil, fmt.Errorf("certificate of %d bytes, expected at most %d", len(c.Data), maxCertificateSize)
		}
		t.Entries = append(t.Entries, abi.CertTableEntry{GUID: uuid.MustParse(guid), RawCert: c.Data})
	}
	return t.Marshal(), nil
}

// certTableOf is a table with a single certificate.
func certTableOf(guid string, der []byte) ([]byte, error) {
	if len(der) == 0 || len(der) > maxCertificateSize {
		return nil, errors.New("certificate is missing or too large")
	}
	t := abi.CertTable{Entries: []abi.CertTableEntry{{GUID: uuid.MustParse(guid), RawCert: der}}}
	return t.Marshal(), nil
}
