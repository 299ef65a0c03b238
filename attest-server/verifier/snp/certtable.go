package snp

import (
	"fmt"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/uuid"

	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/chain"
)

// Limits on what a host may send along with a report.
const (
	MaxCertTableBytes   = 64 << 10
	MaxCertTableEntries = 64
)

// CertTable is the certificates out of a GHCB certificate table (56421, section
// 4.1.8.1): in DER, of VCEKs or of VLEKs, or of both, the signers in the order
// given. abi.CertTable.Unmarshal is not used: its offset+length check wraps at
// 32 bits and panics on hostile bytes.
func CertTable(table []byte, signers ...string) ([][]byte, error) {
	if len(table) > MaxCertTableBytes {
		return nil, tableError(fmt.Sprintf("%d bytes", len(table)), nil)
	}
	entries, err := abi.ParseSnpCertTableHeader(table)
	if err != nil {
		return nil, tableError("unreadable bytes", err)
	}
	if len(entries) > MaxCertTableEntries {
		return nil, tableError(fmt.Sprintf("%d entries", len(entries)), nil)
	}
	of := map[string][][]byte{}
	for _, e := range entries {
		first, end := uint64(e.Offset), uint64(e.Offset)+uint64(e.Length)
		if end > uint64(len(table)) {
			return nil, tableError(fmt.Sprintf("an entry that ends at %d of %d", end, len(table)), nil)
		}
		if guid := e.GUID.String(); e.Length > 0 && e.Length <= chain.MaxCertificateBytes {
			of[guid] = append(of[guid], table[first:end])
		}
	}
	var all [][]byte
	for _, s := range signers {
		all = append(all, of[guidOf(s)]...)
	}
	return all, nil
}

func tableError(got string, err error) error {
	return verifier.Refuse("certificate_table", fmt.Sprintf("a GHCB certificate table of at most %d bytes", MaxCertTableBytes), got,
		"the host sent a damaged certificate table", err)
}

// CertTableEntry is the certificate of a VCEK or VLEK.
type CertTableEntry struct {
	Signer string
	DER    []byte
}

// NewCertTable is a table of the entries, as hosts hand them out.
func NewCertTable(entries ...CertTableEntry) ([]byte, error) {
	var t abi.CertTable
	for _, e := range entries {
		if len(e.DER) == 0 || len(e.DER) > chain.MaxCertificateBytes {
			return nil, fmt.Errorf("certificate of %d bytes, expected 1 to %d", len(e.DER), chain.MaxCertificateBytes)
		}
		t.Entries = append(t.Entries, abi.CertTableEntry{GUID: uuid.MustParse(guidOf(e.Signer)), RawCert: e.DER})
	}
	return t.Marshal(), nil
}

func guidOf(signer string) string {
	if signer == verifier.VLEK {
		return abi.VlekGUID
	}
	return abi.VcekGUID
}
