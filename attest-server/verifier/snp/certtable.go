package snp

import (
	"errors"
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

// certTableKeys is the DER of every entry of a GHCB certificate table (56421,
// section 4.1.8.1) with the given GUID. abi.CertTable.Unmarshal is not used:
// its offset+length check wraps at 32 bits and panics on hostile bytes.
func CertTableKeys(table []byte, guid string) ([][]byte, error) {
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
	var keys [][]byte
	for _, e := range entries {
		first, end := uint64(e.Offset), uint64(e.Offset)+uint64(e.Length)
		if end > uint64(len(table)) {
			return nil, tableError(fmt.Sprintf("an entry that ends at %d of %d", end, len(table)), nil)
		}
		if e.GUID.String() == guid && e.Length > 0 && e.Length <= chain.MaxCertificateBytes {
			keys = append(keys, table[first:end])
		}
	}
	return keys, nil
}

func tableError(got string, err error) error {
	return verifier.Refuse("certificate_table", fmt.Sprintf("a GHCB certificate table of at most %d bytes", MaxCertTableBytes), got,
		"the host sent a damaged certificate table", err)
}

// certTableOf is a table with a single certificate.
func CertTableOf(guid string, der []byte) ([]byte, error) {
	if len(der) == 0 || len(der) > chain.MaxCertificateBytes {
		return nil, errors.New("certificate is missing or too large")
	}
	t := abi.CertTable{Entries: []abi.CertTableEntry{{GUID: uuid.MustParse(guid), RawCert: der}}}
	return t.Marshal(), nil
}
