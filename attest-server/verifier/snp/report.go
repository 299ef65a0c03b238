package snp

import (
	"encoding/binary"
	"fmt"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/proto/sevsnp"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

// ReportBytes is the size of an ATTESTATION_REPORT in bytes.
const ReportBytes = abi.ReportSize

// snpReport is a report taken apart but not believed.
type snpReport struct {
	raw    []byte
	msg    *sevsnp.Report
	policy abi.SnpPolicy
	signer string // VCEK or VLEK
	info   abi.SignerInfo
}

// parseSNPReport decodes a report of version 2 to 5 (4 has the layout of 3). Versions
// after them are refused: what their bytes mean is not known here.
func parseSNPReport(raw []byte) (*snpReport, error) {
	if len(raw) != ReportBytes {
		return nil, verifier.Refuse("evidence_format", fmt.Sprintf("an SNP report of %d bytes", ReportBytes),
			fmt.Sprintf("%d bytes", len(raw)), "send the raw ATTESTATION_REPORT", nil)
	}
	if v := binary.LittleEndian.Uint32(raw); v < 2 || v > 5 {
		return nil, verifier.Refuse("report_version", "2 to 5", fmt.Sprint(v),
			"a version above 5 is newer than this program; any other number means that the bytes are no SNP report", nil)
	}
	msg, err := abi.ReportToProto(raw)
	if err != nil {
		return nil, verifier.Refuse("evidence_format", "a well-formed SNP report", "reserved fields in use", "the bytes are damaged or of a newer firmware interface: send the raw ATTESTATION_REPORT, or update this program", err)
	}
	r := &snpReport{raw: raw, msg: msg}
	if r.policy, err = abi.ParseSnpPolicy(msg.Policy); err != nil {
		return nil, verifier.Refuse("evidence_format", "a well-formed guest policy", "reserved bits in use", "the bytes are damaged or of a newer firmware interface: send the raw ATTESTATION_REPORT, or update this program", err)
	}
	if msg.SignatureAlgo != abi.SignEcdsaP384Sha384 {
		return nil, verifier.Refuse("signature_algorithm", "1 (ECDSA P-384 with SHA-384)", fmt.Sprint(msg.SignatureAlgo),
			"a newer firmware signs in another way, or the bytes are damaged: send the raw ATTESTATION_REPORT, or update this program", nil)
	}
	if r.info, err = abi.ParseSignerInfo(msg.SignerInfo); err != nil {
		return nil, verifier.Refuse("signer", "VCEK or VLEK", "reserved bits in use",
			"the bytes are damaged or of a newer firmware interface: send the raw ATTESTATION_REPORT, or update this program", err)
	}
	switch r.info.SigningKey {
	case abi.VcekReportSigner:
		r.signer = verifier.VCEK
	case abi.VlekReportSigner:
		r.signer = verifier.VLEK
	default:
		return nil, verifier.Refuse("signer", "VCEK or VLEK", r.info.SigningKey.String(), "the report is not signed by an AMD key", nil)
	}
	return r, nil
}

// cpuid is family, model and stepping; ok only from report version 3 on.
func (r *snpReport) cpuid() (family, model, stepping byte, ok bool) {
	return r.raw[0x188], r.raw[0x189], r.raw[0x18a], r.msg.Version >= 3
}

// endorsementKey names the key that signed the report, if it is of line l.
func (r *snpReport) endorsementKey(l *ProductLine) (EndorsementKey, error) {
	tcb, err := decodeTCB(r.msg.ReportedTcb, l.FMC)
	if err != nil {
		return EndorsementKey{}, err
	}
	k := EndorsementKey{Product: l.Name, Signer: r.signer, TCB: tcb}
	if id := verifier.Hex(r.msg.ChipId); !id.IsZero() {
		k.ChipID = l.hardwareID(id)
	}
	return k, nil
}

// decodeTCB decodes a TCB_VERSION (56860, table 3). Its reserved bytes must be
// zero, so that two encodings of one TCB cannot differ.
func decodeTCB(v uint64, fmc bool) (kbs.SNPTCB, error) {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], v)
	if fmc {
		if b[4]|b[5]|b[6] != 0 {
			return kbs.SNPTCB{}, fmt.Errorf("TCB %x has reserved bytes in use", b)
		}
		return kbs.SNPTCB{FMC: b[0], Bootloader: b[1], TEE: b[2], SNP: b[3], Microcode: b[7]}, nil
	}
	if b[2]|b[3]|b[4]|b[5] != 0 {
		return kbs.SNPTCB{}, fmt.Errorf("TCB %x has reserved bytes in use", b)
	}
	return kbs.SNPTCB{Bootloader: b[0], TEE: b[1], SNP: b[6], Microcode: b[7]}, nil
}

// claims decodes the report for a product line that is now known.
func (r *snpReport) claims(line *ProductLine) (*verifier.SNPClaims, error) {
	m := r.msg
	c := &verifier.SNPClaims{
		ReportVersion: m.Version, Product: line.Name, Signer: r.signer,
		GuestSVN: m.GuestSvn, FamilyID: m.FamilyId, ImageID: m.ImageId, VMPL: m.Vmpl,
		PlatformInfo: m.PlatformInfo, ReportData: m.ReportData, HostData: m.HostData,
		IDKeyDigest: m.IdKeyDigest, AuthorKeyDigest: m.AuthorKeyDigest, AuthorKey: r.info.AuthorKeyEn,
		ReportID: m.ReportId, ReportIDMA: m.ReportIdMa,
		ChipID: m.ChipId, ChipIDMasked: r.info.MaskChipKey,
		Current:   verifier.Firmware{Major: uint8(m.CurrentMajor), Minor: uint8(m.CurrentMinor), Build: uint8(m.CurrentBuild)},
		Committed: verifier.Firmware{Major: uint8(m.CommittedMajor), Minor: uint8(m.CommittedMinor), Build: uint8(m.CommittedBuild)},
		LaunchMIT: m.LaunchMitVector, CurrentMIT: m.CurrentMitVector,
		Policy: verifier.SNPPolicy{
			Bits: m.Policy, ABIMajor: r.policy.ABIMajor, ABIMinor: r.policy.ABIMinor,
			SMT: r.policy.SMT, MigrateMA: r.policy.MigrateMA, Debug: r.policy.Debug,
			SingleSocket: r.policy.SingleSocket, CXLAllowed: r.policy.CXLAllowed,
		},
	}
	if f, model, s, ok := r.cpuid(); ok {
		c.CPUID = fmt.Sprintf("family %02xh model %02xh stepping %d", f, model, s)
		c.Silicon = advisory.CPUID(f, model, s)
	}
	for _, t := range []struct {
		raw uint64
		out *kbs.SNPTCB
	}{{m.CurrentTcb, &c.CurrentTCB}, {m.ReportedTcb, &c.ReportedTCB}, {m.CommittedTcb, &c.CommittedTCB}, {m.LaunchTcb, &c.LaunchTCB}} {
		var err error
		if *t.out, err = decodeTCB(t.raw, line.FMC); err != nil {
			return nil, verifier.Refuse("evidence_format", "a TCB_VERSION of "+line.Name, "reserved bytes in use",
				"the report is of a newer product line than this program knows, or damaged", err)
		}
	}
	return c, nil
}

// KeysOf is the keys that may have signed a report under AMD's roots: several
// where a report of version 2 does not say of which product line it is.
// Nothing of it is authentic: the certificate will tell.
func KeysOf(report []byte) ([]EndorsementKey, error) {
	r, err := parseSNPReport(report)
	if err != nil {
		return nil, err
	}
	roots, err := Roots()
	if err != nil {
		return nil, err
	}
	lines, err := linesFor(r, roots)
	if err != nil {
		return nil, err
	}
	var all []EndorsementKey
	for _, l := range lines {
		// Not every TCB can be one of every line's.
		if k, err := r.endorsementKey(l); err == nil {
			all = append(all, k)
		}
	}
	return all, nil
}

// linesFor is those of the product lines that the report may be of: by CPUID,
// or all for reports of version 2, where the certificate alone tells.
func linesFor(r *snpReport, all []ProductLine) ([]*ProductLine, error) {
	family, model, _, ok := r.cpuid()
	var lines []*ProductLine
	for i := range all {
		if !ok || all[i].includes(family, model) {
			lines = append(lines, &all[i])
		}
	}
	if len(lines) == 0 {
		return nil, verifier.Refuse("product", "a processor with a pinned root", fmt.Sprintf("family %02xh model %02xh", family, model),
			"this processor is not known to this version", nil)
	}
	return lines, nil
}
