package sample

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"

	"github.com/google/go-sev-guest/kds"
)

// ChipID is CHIP_ID: it names one processor.
type ChipID [64]byte

// chip describes the processor that is simulated: a third generation EPYC
// (Milan) with firmware as found on real machines, so that a verifier with a
// floor for the TCB has something realistic to compare.
type chip struct {
	product                 string // KDS productName
	family, model, stepping uint8  // CPUID Fn0000_0001
	bootloader, tee         uint8
	snp, microcode          uint8
	major, minor, build     uint8 // SNP firmware version
}

func milan() chip {
	return chip{
		product: "Milan-B0",
		family:  0x19, model: 0x01, stepping: 0x01,
		bootloader: 4, tee: 0, snp: 0x18, microcode: 0xdb,
		major: 1, minor: 55, build: 29,
	}
}

// tcb is TCB_VERSION as Milan and Genoa lay it out (SNP ABI, table 3):
// boot loader, TEE, four reserved, SNP, microcode.
func (c chip) tcb() uint64 {
	return binary.LittleEndian.Uint64([]byte{c.bootloader, c.tee, 0, 0, 0, 0, c.snp, c.microcode})
}

// extensions are those of a VCEK (AMD 57230, VCEK Certificate and KDS
// Interface Specification, table 8). As in AMD's own certificates hwID has no
// ASN.1 tag.
func (c chip) extensions(id ChipID) ([]pkix.Extension, error) {
	name, err := asn1.MarshalWithParams(c.product, "ia5")
	if err != nil {
		return nil, fmt.Errorf("encoding product name: %w", err)
	}
	exts := []pkix.Extension{{Id: kds.OidProductName1, Value: name}}
	for _, n := range []struct {
		id    asn1.ObjectIdentifier
		value uint8
	}{
		{kds.OidStructVersion, 0},
		{kds.OidBlSpl, c.bootloader},
		{kds.OidTeeSpl, c.tee},
		{kds.OidSnpSpl, c.snp},
		{kds.OidSpl4, 0}, {kds.OidSpl5, 0}, {kds.OidSpl6, 0}, {kds.OidSpl7, 0},
		{kds.OidUcodeSpl, c.microcode},
	} {
		b, err := asn1.Marshal(int(n.value))
		if err != nil {
			return nil, fmt.Errorf("encoding VCEK extension: %w", err)
		}
		exts = append(exts, pkix.Extension{Id: n.id, Value: b})
	}
	return append(exts, pkix.Extension{Id: kds.OidHwid, Value: id[:]}), nil
}
