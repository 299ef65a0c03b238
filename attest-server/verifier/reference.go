package verifier

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier/advisory"
)

// MaxMeasurements bounds the launch digests of one registration.
const MaxMeasurements = 64

// CheckReferenceValues refuses Reference Values that no Evidence could ever
// match, or that ask for nothing where something was surely meant: a slip of
// the pen in them would otherwise show as a denial long after, or never.
func CheckReferenceValues(ref kbs.ReferenceValues) error {
	if !ref.TEE.Valid() {
		return fmt.Errorf("tee %q, expected snp, tdx or sample", ref.TEE)
	}
	if err := checkMeasurements(ref); err != nil {
		return err
	}
	if ref.VTPM != nil {
		if err := CheckVTPMRules(ref.VTPM); err != nil {
			return err
		}
	}
	switch tdx := ref.TEE == kbs.TDX; {
	case tdx && ref.SNP != nil, !tdx && ref.TDX != nil:
		return fmt.Errorf("rules for another TEE than %q: nobody would look at them", ref.TEE)
	case tdx && ref.TDX == nil:
		return errors.New("tdx without rtmrs, which carry kernel and initrd")
	case tdx:
		if err := checkRTMRs(ref.TDX.RTMRs); err != nil {
			return err
		}
		return CheckTDXRules(ref.TDX)
	case ref.SNP != nil:
		return CheckSNPRules(ref.SNP)
	}
	return nil
}

func checkMeasurements(ref kbs.ReferenceValues) error {
	if n := len(ref.Measurements); n == 0 || n > MaxMeasurements {
		return fmt.Errorf("%d measurements, expected 1 to %d", n, MaxMeasurements)
	}
	for i, m := range ref.Measurements {
		switch {
		case m.LaunchDigest.IsZero():
			return fmt.Errorf("measurement %d without launch_digest", i)
		case m.ACPI != "" && m.ACPI != kbs.ACPIOff && m.ACPI != kbs.ACPIAllowed:
			return fmt.Errorf("measurement %d has acpi %q, expected %s or %s", i, m.ACPI, kbs.ACPIOff, kbs.ACPIAllowed)
		case m.ACPI == "" && kbs.NeedsACPI(m.Profile):
			return fmt.Errorf("measurement %d of profile %s does not say whether the host's ACPI code runs: expected acpi to be %s or %s", i, m.Profile, kbs.ACPIOff, kbs.ACPIAllowed)
		case ref.TEE == kbs.TDX && m.LaunchDigest.String() == stockQbootMRTD:
			return fmt.Errorf("measurement %d is the MRTD of libkrun's stock TDX firmware, which measures neither kernel nor initrd", i)
		case m.NotBefore != nil && m.NotAfter != nil && !m.NotBefore.Before(*m.NotAfter):
			return fmt.Errorf("measurement %d is never valid: not_before %s, not_after %s", i, ShowTime(*m.NotBefore), ShowTime(*m.NotAfter))
		case slices.ContainsFunc(ref.Measurements[:i], func(o kbs.Measurement) bool {
			return o.LaunchDigest == m.LaunchDigest && o.NotBefore == nil && o.NotAfter == nil && (m.NotBefore != nil || m.NotAfter != nil)
		}):
			return fmt.Errorf("measurement %d has a period of validity, but an earlier one with the same digest has none", i)
		}
	}
	return nil
}

// CheckSNPRules refuses rules that no report could pass, or that name what
// does not exist.
func CheckSNPRules(r *kbs.SNPRules) error {
	if r.VMPL > 3 {
		return fmt.Errorf("vmpl %d, expected 0 to 3", r.VMPL)
	}
	for _, name := range slices.Sorted(maps.Keys(r.MinimumTCBs)) {
		if err := checkSilicon(name); err != nil {
			return err
		}
		if r.MinimumTCBs[name] == nil {
			return fmt.Errorf("minimum_tcbs[%q] is null", name)
		}
	}
	for _, name := range r.ForbidProducts {
		if !slices.ContainsFunc(knownProducts(), func(k string) bool { return strings.EqualFold(k, name) }) {
			return fmt.Errorf("product %q, expected one of %s", name, strings.Join(knownProducts(), ", "))
		}
	}
	for _, s := range r.Signers {
		if s != VCEK && s != VLEK {
			return fmt.Errorf("signer %q, expected %s or %s", s, VCEK, VLEK)
		}
	}
	if len(r.ChipIDs) > 0 && len(r.Signers) > 0 && !slices.Contains(r.Signers, VCEK) {
		return errors.New("chip_ids with a VLEK alone: only a VCEK proves a chip id")
	}
	if err := advisory.CheckLeave(r.AllowAdvisories); err != nil {
		return fmt.Errorf("allow_advisories: %w", err)
	}
	for i, b := range r.RequireMitigations {
		if b < 0 || b > 63 || slices.Contains(r.RequireMitigations[:i], b) {
			return fmt.Errorf("require_mitigations %v, expected bits from 0 to 63, each once", r.RequireMitigations)
		}
	}
	return errors.Join(
		checkNotAll("forbid_products", knownProducts(), r.ForbidProducts),
		optionalHex("host_data", r.HostData, 32),
		hexList("chip_ids", r.ChipIDs, 64, 8),
		hexList("id_key_digests", r.IDKeyDigests, 48),
		hexList("author_key_digests", r.AuthorKeyDigests, 48))
}

// checkNotAll refuses a deny list that leaves nothing.
func checkNotAll(name string, all, denied []string) error {
	for _, a := range all {
		if !slices.ContainsFunc(denied, func(d string) bool { return strings.EqualFold(a, d) }) {
			return nil
		}
	}
	return fmt.Errorf("%s lists every product: nothing could match", name)
}

// tcbStatuses are those of Intel's TCB info that a registration may accept.
func tcbStatuses() []string {
	return []string{UpToDate, "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
		OutOfDate, OutOfDateConfig, TDRelaunchAdvised, TDRelaunchAdvisedConfig}
}

func checkRTMRs(rtmrs map[string]string) error {
	for _, n := range []string{"0", "1", "2"} {
		if rtmrs[n] == "" {
			return fmt.Errorf("rtmrs without %s: 0 to 2 carry kernel and initrd", n)
		}
	}
	return nil
}

// CheckTDXRules is CheckSNPRules for a TD. RTMRs may be missing, which no
// workload's may.
func CheckTDXRules(r *kbs.TDXRules) error {
	for n, v := range r.RTMRs {
		if !slices.Contains([]string{"0", "1", "2", "3"}, n) {
			return fmt.Errorf("rtmr %q, expected 0 to 3", n)
		}
		if err := wantHex("rtmr "+n, v, 48); err != nil {
			return err
		}
	}
	for _, s := range r.TCBStatus {
		if !slices.Contains(tcbStatuses(), s) {
			return fmt.Errorf("tcb_status %q, expected any of %s", s, strings.Join(tcbStatuses(), ", "))
		}
	}
	if err := advisory.CheckLeave(r.AllowAdvisories); err != nil {
		return fmt.Errorf("allow_advisories: %w", err)
	}
	for _, a := range r.AllowAdvisories {
		if l, _ := advisory.ParseLeave(a); l.ID != advisory.Any && !strings.HasPrefix(l.ID, "INTEL-SA-") {
			return fmt.Errorf("allow_advisories: advisory %q, expected one of Intel's such as INTEL-SA-00837", a)
		}
	}
	if mask, ok := uint64Of(r.XFAM); r.XFAM != "" && (!ok || mask == 0) {
		return fmt.Errorf("xfam %q, expected 16 hex digits, not all zero", r.XFAM)
	}
	return errors.Join(
		optionalHex("mr_config_id", r.MRConfigID, 48), optionalHex("mr_owner", r.MROwner, 48), optionalHex("mr_owner_config", r.MROwnerConfig, 48),
		hexList("mr_seam", r.MRSEAM, 48), hexList("machine_ids", r.MachineIDs, 16), optionalHex("minimum_tee_tcb", r.MinimumTEETCB, 16))
}

// optionalHex lets the empty string pass, which stands for zeros or for no
// demand.
func optionalHex(name, s string, size int) error {
	if s == "" {
		return nil
	}
	return wantHex(name, s, size)
}

func wantHex(name, s string, sizes ...int) error {
	b, err := hex.DecodeString(s)
	if err == nil && slices.Contains(sizes, len(b)) {
		return nil
	}
	return fmt.Errorf("%s %q, expected %d hex digits", name, s, 2*sizes[0])
}

// hexList refuses zero values too, since no list can match them.
func hexList(name string, list []string, sizes ...int) error {
	for _, s := range list {
		if err := wantHex(name, s, sizes...); err != nil {
			return err
		}
		if strings.Trim(s, "0") == "" {
			return fmt.Errorf("%s holds a value that is all zero: nothing could match it", name)
		}
	}
	return nil
}

// CheckVTPMRules refuses rules that match nothing, or any kernel.
func CheckVTPMRules(r *kbs.VTPMRules) error {
	for _, n := range slices.Sorted(maps.Keys(r.PCRs)) {
		if i, err := strconv.Atoi(n); err != nil || i < 0 || i >= PCRCount || strconv.Itoa(i) != n {
			return fmt.Errorf("pcr %q, expected 0 to %d", n, PCRCount-1)
		}
		if err := wantHex("pcr "+n, r.PCRs[n], PCRBytes); err != nil {
			return err
		}
	}
	if strings.Trim(r.PCRs[bootPCR], "0") == "" {
		return errors.New("vtpm without PCR 4, which carries the boot loader or unified kernel image: what that booted could fake the others")
	}
	return nil
}

// bootPCR carries what the firmware booted, a boot loader or a unified kernel
// image. If it is not registered, the other PCRs prove nothing: what was booted
// can extend them with any value.
const bootPCR = "4"
