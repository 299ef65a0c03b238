package sample

import (
	"encoding/binary"
	"errors"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// ReportSize is the size of an SNP attestation report in bytes.
const ReportSize = 1184

// signedSize is what of it the VCEK signs: everything before the signature.
const signedSize = 0x2a0

// Launch is what the simulated chip remembers of a launched guest. Take it
// from NewLaunch; the zero value is refused.
type Launch struct {
	Digest   kbs.LaunchDigest
	Policy   uint64   // guest policy, SNP ABI table 9
	VMPL     uint32   // level that asks for the report
	HostData [32]byte // given by the host at launch
	ReportID [32]byte // random, constant for a guest's life
}

// DefaultPolicy is the guest policy that libkrun launches with: SMT allowed,
// no DEBUG, no migration; bit 17 is reserved and must be one.
const DefaultPolicy = 0x30000

const policyReserved1 = 1 << 17

// reportVersion 5 is the first that carries the mitigation vectors.
const reportVersion = 5

// platformInfo: SMT enabled, ECC memory, alias check complete.
const platformInfo = 1<<0 | 1<<2 | 1<<5

func (l Launch) check() error {
	switch {
	case l.Digest.IsZero():
		return errors.New("signing report: no launch digest")
	case l.Policy&policyReserved1 == 0:
		return errors.New("signing report: guest policy without reserved bit 17")
	case l.ReportID == [32]byte{}:
		return errors.New("signing report: no report id")
	case l.VMPL > 3:
		return errors.New("signing report: VMPL above 3")
	}
	return nil
}

// unsigned lays the report out (SEV-SNP firmware ABI 56860, ATTESTATION_REPORT
// structure, version 5), all little endian, signature still zero.
func (c chip) unsigned(id ChipID, data kbs.ReportData, l Launch) []byte {
	le := binary.LittleEndian
	r := make([]byte, ReportSize)
	le.PutUint32(r[0x000:], reportVersion)
	le.PutUint64(r[0x008:], l.Policy)
	le.PutUint32(r[0x030:], l.VMPL)
	le.PutUint32(r[0x034:], 1) // ECDSA P-384 with SHA-384
	le.PutUint64(r[0x038:], c.tcb())
	le.PutUint64(r[0x040:], platformInfo)
	le.PutUint32(r[0x048:], 0) // signed by the VCEK, chip id not masked, no author key
	copy(r[0x050:0x090], data[:])
	copy(r[0x090:0x0c0], l.Digest[:])
	copy(r[0x0c0:0x0e0], l.HostData[:])
	copy(r[0x140:0x160], l.ReportID[:])
	for i := 0x160; i < 0x180; i++ {
		r[i] = 0xff // REPORT_ID_MA: no migration agent
	}
	le.PutUint64(r[0x180:], c.tcb()) // reported
	r[0x188], r[0x189], r[0x18a] = c.family, c.model, c.stepping
	copy(r[0x1a0:0x1e0], id[:])
	le.PutUint64(r[0x1e0:], c.tcb()) // committed
	r[0x1e8], r[0x1e9], r[0x1ea] = c.build, c.minor, c.major
	r[0x1ec], r[0x1ed], r[0x1ee] = c.build, c.minor, c.major
	le.PutUint64(r[0x1f0:], c.tcb()) // launch
	le.PutUint64(r[0x1f8:], c.mitigations)
	le.PutUint64(r[0x200:], c.mitigations) // current
	return r
}
