package evidence

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/verifier/snp"
)

// cocoReport is an ATTESTATION_REPORT as the Rust sev crate (6.x) writes it in
// JSON. The signature is over the binary form, so that is rebuilt: whatever
// would not come back bit for bit fails the signature check.
type cocoReport struct {
	Version    uint32       `json:"version"`
	GuestSVN   uint32       `json:"guest_svn"`
	Policy     uint64       `json:"policy"`
	FamilyID   []byte       `json:"family_id"`
	ImageID    []byte       `json:"image_id"`
	VMPL       uint32       `json:"vmpl"`
	SigAlgo    uint32       `json:"sig_algo"`
	CurrentTCB cocoTCB      `json:"current_tcb"`
	PlatInfo   uint64       `json:"plat_info"`
	KeyInfo    uint32       `json:"key_info"`
	ReportData []byte       `json:"report_data"`
	Measure    []byte       `json:"measurement"`
	HostData   []byte       `json:"host_data"`
	IDKey      []byte       `json:"id_key_digest"`
	AuthorKey  []byte       `json:"author_key_digest"`
	ReportID   []byte       `json:"report_id"`
	ReportIDMA []byte       `json:"report_id_ma"`
	Reported   cocoTCB      `json:"reported_tcb"`
	Family     *byte        `json:"cpuid_fam_id"`
	Model      *byte        `json:"cpuid_mod_id"`
	Stepping   *byte        `json:"cpuid_step"`
	ChipID     []byte       `json:"chip_id"`
	Committed  cocoTCB      `json:"committed_tcb"`
	Current    cocoFirmware `json:"current"`
	CommittedV cocoFirmware `json:"committed"`
	LaunchTCB  cocoTCB      `json:"launch_tcb"`
	LaunchMIT  *uint64      `json:"launch_mit_vector"`
	CurrentMIT *uint64      `json:"current_mit_vector"`
	Signature  struct {
		R []byte `json:"r"`
		S []byte `json:"s"`
	} `json:"signature"`
}

type cocoTCB struct {
	FMC        *byte `json:"fmc"`
	Bootloader byte  `json:"bootloader"`
	TEE        byte  `json:"tee"`
	SNP        byte  `json:"snp"`
	Microcode  byte  `json:"microcode"`
}

type cocoFirmware struct {
	Major byte `json:"major"`
	Minor byte `json:"minor"`
	Build byte `json:"build"`
}

func (f cocoFirmware) bytes() []byte { return []byte{f.Build, f.Minor, f.Major} }

// turinFamily is the CPUID family from which on a TCB has a FMC component.
const turinFamily = 0x1a

func (t cocoTCB) bytes(fmc bool) []byte {
	if fmc {
		return []byte{deref(t.FMC), t.Bootloader, t.TEE, t.SNP, 0, 0, 0, t.Microcode}
	}
	return []byte{t.Bootloader, t.TEE, 0, 0, 0, 0, t.SNP, t.Microcode}
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// bytes is the report in binary (56860, table 23).
func (r *cocoReport) bytes() ([]byte, error) {
	out := make([]byte, snp.ReportBytes)
	le := binary.LittleEndian
	le.PutUint32(out[0x00:], r.Version)
	le.PutUint32(out[0x04:], r.GuestSVN)
	le.PutUint64(out[0x08:], r.Policy)
	le.PutUint32(out[0x30:], r.VMPL)
	le.PutUint32(out[0x34:], r.SigAlgo)
	le.PutUint64(out[0x40:], r.PlatInfo)
	le.PutUint32(out[0x48:], r.KeyInfo)
	le.PutUint64(out[0x1f8:], deref(r.LaunchMIT))
	le.PutUint64(out[0x200:], deref(r.CurrentMIT))
	out[0x188], out[0x189], out[0x18a] = deref(r.Family), deref(r.Model), deref(r.Stepping)
	fmc := deref(r.Family) >= turinFamily
	for _, t := range []cocoTCB{r.CurrentTCB, r.Reported, r.Committed, r.LaunchTCB} {
		if t.FMC != nil && !fmc {
			return nil, errors.New("a TCB with fmc, which this processor's has not")
		}
	}
	for _, f := range []struct {
		name      string
		off, size int
		value     []byte
	}{
		{"family_id", 0x10, 16, r.FamilyID}, {"image_id", 0x20, 16, r.ImageID},
		{"current_tcb", 0x38, 8, r.CurrentTCB.bytes(fmc)}, {"report_data", 0x50, 64, r.ReportData},
		{"measurement", 0x90, 48, r.Measure}, {"host_data", 0xc0, 32, r.HostData},
		{"id_key_digest", 0xe0, 48, r.IDKey}, {"author_key_digest", 0x110, 48, r.AuthorKey},
		{"report_id", 0x140, 32, r.ReportID}, {"report_id_ma", 0x160, 32, r.ReportIDMA},
		{"reported_tcb", 0x180, 8, r.Reported.bytes(fmc)}, {"chip_id", 0x1a0, 64, r.ChipID},
		{"committed_tcb", 0x1e0, 8, r.Committed.bytes(fmc)},
		{"current", 0x1e8, 3, r.Current.bytes()}, {"committed", 0x1ec, 3, r.CommittedV.bytes()},
		{"launch_tcb", 0x1f0, 8, r.LaunchTCB.bytes(fmc)},
		{"signature.r", 0x2a0, 72, r.Signature.R}, {"signature.s", 0x2e8, 72, r.Signature.S},
	} {
		if len(f.value) != f.size {
			return nil, fmt.Errorf("%s has %d bytes, expected %d", f.name, len(f.value), f.size)
		}
		copy(out[f.off:], f.value)
	}
	return out, nil
}
