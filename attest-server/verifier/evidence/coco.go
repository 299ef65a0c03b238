package evidence

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
)

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
	certs, err := few[cocoCert](e.CertChain, snp.MaxCertTableEntries)
	if err != nil {
		return nil, fmt.Errorf("reading cert_chain: %w", err)
	}
	table, err := cocoCertTable(certs)
	if err != nil {
		return nil, err
	}
	return &Parsed{Shape: "coco snp", Evidence: kbs.Evidence{TEE: kbs.SNP, Report: report, Certificates: table}}, nil
}

// cocoCertTable puts the endorsement keys' certificates into the form that a
// host hands out; the roots that came along are not needed, ours are pinned.
func cocoCertTable(certs []cocoCert) ([]byte, error) {
	var entries []snp.CertTableEntry
	for _, c := range certs {
		switch string(bytes.TrimSpace(c.Type)) {
		case `"VCEK"`:
			entries = append(entries, snp.CertTableEntry{Signer: verifier.VCEK, DER: c.Data})
		case `"VLEK"`:
			entries = append(entries, snp.CertTableEntry{Signer: verifier.VLEK, DER: c.Data})
		}
	}
	return snp.NewCertTable(entries...)
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
