package measure

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Where the measurement is in raw Evidence.
const (
	snpReportBytes = 1184 // ATTESTATION_REPORT, SNP firmware ABI
	snpMeasurement = 0x90
	tdxHeader      = 48 // TD quote header, Intel DCAP quoting library reference
	tdxMRTD        = 136
	tdxBodyV5      = 6 // type and size before the body of a version 5 quote
	teeTypeTDX     = 0x81
	maxEvidence    = 1 << 20
)

// ErrNotEvidence reports bytes that are neither an SNP report nor a TD quote.
var ErrNotEvidence = errors.New("expected an SNP report of 1184 bytes, a TDX quote, or either in the JSON of CoCo attesters")

// ReadEvidence takes the launch measurement out of raw Evidence or of its
// CoCo JSON form. It verifies nothing: that is attest-server/verifier's.
func ReadEvidence(b []byte) (kbs.TEE, kbs.LaunchDigest, error) {
	if len(b) > maxEvidence {
		return "", kbs.LaunchDigest{}, fmt.Errorf("evidence of %d bytes: %w", len(b), ErrNotEvidence)
	}
	if trimmed := bytes.TrimSpace(b); len(trimmed) > 0 && trimmed[0] == '{' {
		return readJSON(trimmed)
	}
	if len(b) == snpReportBytes {
		return kbs.SNP, kbs.LaunchDigest(b[snpMeasurement:][:48]), nil
	}
	d, err := quoteMRTD(b)
	return kbs.TDX, d, err
}

func quoteMRTD(b []byte) (d kbs.LaunchDigest, err error) {
	if len(b) < tdxHeader+tdxBodyV5+tdxMRTD+48 || binary.LittleEndian.Uint32(b[4:]) != teeTypeTDX {
		return d, ErrNotEvidence
	}
	at := tdxHeader + tdxMRTD
	switch version := binary.LittleEndian.Uint16(b); version {
	case 4:
	case 5:
		at += tdxBodyV5
	default:
		return d, fmt.Errorf("TDX quote of version %d, expected 4 or 5", version)
	}
	return kbs.LaunchDigest(b[at:][:48]), nil
}

func readJSON(b []byte) (kbs.TEE, kbs.LaunchDigest, error) {
	var e struct {
		Report *struct {
			Measurement []int `json:"measurement"`
		} `json:"attestation_report"`
		Quote []byte `json:"quote"`
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return "", kbs.LaunchDigest{}, fmt.Errorf("decoding evidence: %w", err)
	}
	if e.Report == nil {
		d, err := quoteMRTD(e.Quote)
		return kbs.TDX, d, err
	}
	var d kbs.LaunchDigest
	if len(e.Report.Measurement) != len(d) {
		return "", d, fmt.Errorf("measurement of %d bytes: %w", len(e.Report.Measurement), ErrNotEvidence)
	}
	for i, v := range e.Report.Measurement {
		if v < 0 || v > 255 {
			return "", d, ErrNotEvidence
		}
		d[i] = byte(v)
	}
	return kbs.SNP, d, nil
}
