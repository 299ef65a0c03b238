package snp

import (
	"bytes"
	"cmp"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

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
// given. Hosts write the GUIDs in either byte order, and certificates in PEM, or
// padded: all of that is taken. abi.CertTable.Unmarshal is not used: its
// offset+length check wraps at 32 bits and panics on hostile bytes.
func CertTable(table []byte, signers ...string) ([][]byte, error) {
	entries, err := tableEntries(table)
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for _, s := range signers {
		for _, e := range entries {
			if e.name == s && len(e.content) > 0 && len(e.content) <= chain.MaxCertificateBytes {
				all = append(all, toDER(e.content)...)
			}
		}
	}
	return all, nil
}

// tableEntry is one entry of a certificate table; name is of what it should be.
type tableEntry struct {
	name    string
	content []byte
}

func tableEntries(table []byte) ([]tableEntry, error) {
	if len(table) > MaxCertTableBytes {
		return nil, tableError(fmt.Sprintf("%d bytes", len(table)), nil)
	}
	headers, err := abi.ParseSnpCertTableHeader(table)
	if err != nil {
		return nil, tableError("unreadable bytes", err)
	}
	if len(headers) > MaxCertTableEntries {
		return nil, tableError(fmt.Sprintf("%d entries", len(headers)), nil)
	}
	var all []tableEntry
	for _, h := range headers {
		first, end := uint64(h.Offset), uint64(h.Offset)+uint64(h.Length)
		if end > uint64(len(table)) {
			return nil, tableError(fmt.Sprintf("an entry that ends at %d of %d", end, len(table)), nil)
		}
		all = append(all, tableEntry{nameOf(h.GUID), table[first:end]})
	}
	return all, nil
}

// nameOf is what a GUID stands for, in either of its byte orders: as RFC 9562
// has it, or as Windows does, the first three fields little-endian.
func nameOf(id uuid.UUID) string {
	mixed := id
	slices.Reverse(mixed[:4])
	slices.Reverse(mixed[4:6])
	slices.Reverse(mixed[6:8])
	names := map[string]string{abi.VcekGUID: verifier.VCEK, abi.VlekGUID: verifier.VLEK, abi.AskGUID: "ASK", abi.ArkGUID: "ARK", abi.AsvkGUID: "ASVK"}
	return cmp.Or(names[id.String()], names[mixed.String()], id.String())
}

// toDER is an entry's certificate, or those of its PEM. What is neither stays as
// it is, for its refusal to say so.
func toDER(content []byte) (all [][]byte) {
	for block, rest := pem.Decode(content); block != nil && len(all) < MaxCertTableEntries; block, rest = pem.Decode(rest) {
		all = append(all, block.Bytes)
	}
	if all != nil {
		return all
	}
	var v asn1.RawValue
	if rest, err := asn1.Unmarshal(content, &v); err == nil && len(bytes.Trim(rest, "\x00")) == 0 {
		content = v.FullBytes
	}
	return [][]byte{content}
}

// passedOver says what a table has in the place of a signer's certificate.
func passedOver(table []byte, signer string) string {
	entries, err := tableEntries(table)
	if err != nil || len(table) == 0 {
		return "none"
	}
	var had []string
	for _, e := range entries {
		switch {
		case e.name == signer && len(e.content) == 0:
			had = append(had, e.name+" (empty)")
		case e.name == signer: // else it would have been tried
			had = append(had, fmt.Sprintf("%s of %d bytes (at most %d)", e.name, len(e.content), chain.MaxCertificateBytes))
		default:
			had = append(had, e.name)
		}
	}
	if had == nil {
		return "none; the host's table is empty"
	}
	return "none; the host's table has " + strings.Join(had, ", ")
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
