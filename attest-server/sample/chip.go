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

// chip describes the processor that is simulated: a fourth generation EPYC
// (Genoa) with firmware as found on real machines, in which no advisory is
// open, so that a verifier with floors has something realistic to compare.
type chip struct {
	product                 string // KDS productName
	family, model, stepping uint8  // CPUID Fn0000_0001
	bootloader, tee         uint8
	snp, microcode          uint8
	mitigations             uint64
	major, minor, build     uint8 // SNP firmware version
}

func genoa() chip {
	return chip{
		product: "Genoa-B1",
		family:  0x19, model: 0x11, stepping: 0x01,
		bootloader: 10, tee: 0, snp: 27, microcode: 88,
		mitigations: 1<<0 | 1<<1 | 1<<3,
		major:       1, minor: 55, build: 49,
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
