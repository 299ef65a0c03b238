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
	tdxRTMR0       = 328 // RTMR 1 to 3 follow
	tdxBodyV5      = 6   // type and size before the body of a version 5 quote
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

// ReadRTMRs takes the runtime registers out of a TDX quote or its CoCo JSON
// form. It verifies nothing.
func ReadRTMRs(b []byte) (regs [4]kbs.Digest, err error) {
	if len(b) > maxEvidence {
		return regs, fmt.Errorf("evidence of %d bytes: %w", len(b), ErrNotEvidence)
	}
	if trimmed := bytes.TrimSpace(b); len(trimmed) > 0 && trimmed[0] == '{' {
		var e struct {
			Quote []byte `json:"quote"`
		}
		if err := json.Unmarshal(trimmed, &e); err != nil {
			return regs, fmt.Errorf("decoding evidence: %w", err)
		}
		b = e.Quote
	}
	body, err := quoteBody(b)
	if err != nil {
		return regs, err
	}
	for i := range regs {
		regs[i] = kbs.Digest(body[tdxRTMR0+48*i:][:48])
	}
	return regs, nil
}

func quoteMRTD(b []byte) (d kbs.LaunchDigest, err error) {
	body, err := quoteBody(b)
	if err != nil {
		return d, err
	}
	return kbs.LaunchDigest(body[tdxMRTD:][:48]), nil
}

// quoteBody is the TD report body of a quote, at least up to RTMR 3.
func quoteBody(b []byte) ([]byte, error) {
	if len(b) < tdxHeader+tdxBodyV5+tdxRTMR0+4*48 || binary.LittleEndian.Uint32(b[4:]) != teeTypeTDX {
		return nil, ErrNotEvidence
	}
	switch version := binary.LittleEndian.Uint16(b); version {
	case 4:
		return b[tdxHeader:], nil
	case 5:
		return b[tdxHeader+tdxBodyV5:], nil
	default:
		return nil, fmt.Errorf("TDX quote of version %d, expected 4 or 5", version)
	}
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
