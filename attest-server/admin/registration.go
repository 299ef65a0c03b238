package admin

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/secret"
)

// checkLimits refuses limits that limit nothing or allow nothing.
func checkLimits(l *kbs.ReleaseLimits, now time.Time) error {
	switch {
	case l == nil:
		return nil
	case l.Total < 0 || l.PerDay < 0:
		return fmt.Errorf("release limits of %d in all and %d per day, expected at least 1 or none", l.Total, l.PerDay)
	case l.Total == 0 && l.PerDay == 0 && l.NotAfter == nil && len(l.Approvals) == 0:
		return errors.New("release limits that limit nothing: leave them out")
	case l.NotAfter != nil && !now.Before(*l.NotAfter):
		return fmt.Errorf("release until %s, which is over: the workload could never start", l.NotAfter.UTC().Format(time.RFC3339))
	}
	return checkApprovers(l.Approvals)
}

// check refuses what could never be released, or too easily.
func (s *Workloads) check(reg kbs.Registration, diskKey secret.Bytes) error {
	tee := reg.ReferenceValues.TEE
	switch {
	case reg.Version != 1:
		return fmt.Errorf("registration version %d, expected 1", reg.Version)
	case !kbs.ValidWorkloadID(reg.WorkloadID):
		return errors.New("workload_id: expected up to 128 letters, digits, '.', '_', '-'")
	case !s.speaks(reg.Type):
		return fmt.Errorf("type %q: this server speaks %v, so the workload could never attest", reg.Type, s.Dialects)
	case reg.Type == kbs.TypeNative && (reg.IdentityDigest.IsZero() || reg.FooterDigest.IsZero()):
		return errors.New("registration without identity_digest or footer_digest")
	case tee.Valid() && !s.Verifies(tee):
		return fmt.Errorf("this server has no verifier for tee %q: the workload could never attest", tee)
	case diskKey.Len() == 0 || diskKey.Len() > maxDiskKey:
		return fmt.Errorf("disk_key of %d bytes, expected 1 to %d", diskKey.Len(), maxDiskKey)
	case len(reg.Image) > 512:
		return fmt.Errorf("image of %d bytes, at most 512 allowed", len(reg.Image))
	case strings.ContainsRune(reg.Image, 0): // no text to PostgreSQL
		return errors.New("image with a NUL character")
	}
	if err := checkLimits(reg.Release, s.Clock()); err != nil {
		return err
	}
	if reg.Type != kbs.TypeNative {
		if err := checkForeign(reg, diskKey); err != nil {
			return err
		}
	}
	if err := checkLaunchFields(reg); err != nil {
		return err
	}
	return verifier.CheckReferenceValues(reg.ReferenceValues)
}

// checkLaunchFields wants the identity's digest once more where QEMU's machines have
// it, HOST_DATA or MRCONFIGID: besides the digest of an initrd with the identity in
// it, so that a flaw in one alone releases nothing. checkBoot holds HOST_DATA
// against the identity itself, where that is known.
func checkLaunchFields(reg kbs.Registration) error {
	if reg.Type != kbs.TypeNative {
		return nil
	}
	ref := reg.ReferenceValues
	for _, m := range ref.Measurements {
		switch {
		case m.Profile == kbs.ProfileQEMUSNP && ref.TEE == kbs.SNP && (ref.SNP == nil || ref.SNP.HostData == ""):
			return fmt.Errorf("measurement of profile %s without snp.host_data: expected the SHA-256 of the identity", m.Profile)
		case m.Profile == kbs.ProfileQEMUTDX && ref.TEE == kbs.TDX && (ref.TDX == nil || ref.TDX.MRConfigID != reg.IdentityDigest.String()):
			return fmt.Errorf("measurement of profile %s without tdx.mr_config_id %s, the identity's digest", m.Profile, reg.IdentityDigest)
		case m.Predicted != "" && (m.Predicted != kbs.PredictedRTMRs || ref.TEE != kbs.TDX):
			return fmt.Errorf("measurement with predicted %.40q, expected %s for a TD, or nothing", m.Predicted, kbs.PredictedRTMRs)
		}
	}
	return nil
}

// speaks says whether a guest of that type could reach its key here.
func (s *Workloads) speaks(t kbs.RegistrationType) bool {
	spoken := func(d session.Dialect) bool { return slices.Contains(s.Dialects, d) }
	switch t {
	case kbs.TypeNative:
		return spoken(session.Native) || spoken(session.Trustee)
	case kbs.TypeTrustee:
		return spoken(session.Trustee)
	case kbs.TypeLegacy:
		return spoken(session.Legacy)
	}
	return false
}

// maxDiskKey leaves room for the HPKE tag in kbs.MaxSecretBytes.
const maxDiskKey = 4 << 10

const maxApprovers = 8

func checkApprovers(tenants []string) error {
	if len(tenants) > maxApprovers {
		return fmt.Errorf("approvals of %d tenants, at most %d allowed", len(tenants), maxApprovers)
	}
	for i, t := range tenants {
		if !kbs.ValidTenant(t) || slices.Contains(tenants[:i], t) {
			return fmt.Errorf("approvals: %q is no tenant's name, or named twice", t)
		}
	}
	return nil
}

// checkForeign refuses registrations that claim an identity their guests
// cannot prove, and of the legacy type all that register_workload could not
// have said: its guests run stock firmware, so the little there is must hold.
func checkForeign(reg kbs.Registration, diskKey secret.Bytes) error {
	if !reg.IdentityDigest.IsZero() || !reg.FooterDigest.IsZero() {
		return fmt.Errorf("registration of type %s with identity_digest or footer_digest, which its guests cannot prove", reg.Type)
	}
	if reg.Type != kbs.TypeLegacy {
		return nil
	}
	rules := kbs.SNPRules{}
	if reg.ReferenceValues.SNP != nil {
		rules = *reg.ReferenceValues.SNP
	}
	switch {
	case reg.ReferenceValues.TEE != kbs.SNP || len(reg.ReferenceValues.Measurements) != 1:
		return errors.New("registration of type legacy: expected tee snp and one measurement")
	case rules.AllowDebug || rules.AllowMigrateMA || rules.AllowProvisional || rules.AllowCXL || rules.VMPL != 0 || rules.HostData != "" || len(rules.AllowAdvisories) > 0:
		return errors.New("registration of type legacy with rules looser than the default")
	case diskKey.Len() > recipient.MaxPassphrase:
		return fmt.Errorf("passphrase of %d bytes, at most %d fit into the answer to an old client", diskKey.Len(), recipient.MaxPassphrase)
	case strings.ContainsRune(string(diskKey.Reveal()), 0):
		return errors.New("passphrase with a NUL, at which the old client would cut it")
	}
	return nil
}

// checkBoot refuses what would measure another workload than is registered.
func checkBoot(reg kbs.Registration, b *kbs.Boot) error {
	switch {
	case b == nil:
		return nil
	case reg.Type != kbs.TypeNative:
		return fmt.Errorf("registration of type %s says what it boots, which its guests cannot prove", reg.Type)
	case kbs.Sum384(b.Identity) != reg.IdentityDigest:
		return errors.New("boot.identity is not the one that identity_digest names")
	case b.Agent.IsZero() || b.Initrd.IsZero():
		return errors.New("boot without agent or initrd")
	}
	return checkHostData(reg.ReferenceValues, b.Identity)
}

func checkHostData(ref kbs.ReferenceValues, identity []byte) error {
	for _, m := range ref.Measurements {
		// The simulated TEE has machines with that profile that are launched without.
		sample := ref.TEE == kbs.Sample && ref.SNP != nil && ref.SNP.HostData != ""
		if m.Profile != kbs.ProfileQEMUSNP || ref.TEE != kbs.SNP && !sample {
			continue
		}
		sum := sha256.Sum256(identity)
		if want := hex.EncodeToString(sum[:]); ref.SNP == nil || ref.SNP.HostData != want {
			return fmt.Errorf("measurement of profile %s with another snp.host_data than the SHA-256 of boot.identity, %s", m.Profile, want)
		}
	}
	return nil
}
