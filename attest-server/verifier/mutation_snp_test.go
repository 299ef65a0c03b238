package verifier_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/attest-server/verifier/snp"
	"github.com/ccrun/ccrun/attest-server/verifier/vendortest"
	"github.com/ccrun/ccrun/attest-server/verifier/verifiertest"
)

// shown is the expected rule of fields that are reported and have no rule: a
// change that AMD's firmware signed is no reason to refuse.
const shown = ""

// mutation is one change to a field, and the rule that alone refuses it.
type mutation struct {
	name string
	rule string
	edit func(b []byte)
}

// field is a part of a structure with its mutations.
type field struct {
	name      string
	off, size int
	changes   []mutation
}

// set is a mutation that writes v over the field.
func set(rule string, v ...byte) mutation {
	return mutation{fmt.Sprintf("= %x", v), rule, func(b []byte) { copy(b, v) }}
}

// bit is a mutation that flips bit n.
func bit(n int, rule string) mutation {
	return mutation{fmt.Sprintf("bit %d", n), rule, func(b []byte) { b[n/8] ^= 1 << (n % 8) }}
}

// each is one mutation a byte.
func each(size int, rule string) (all []mutation) {
	for i := range size {
		all = append(all, bit(8*i, rule))
	}
	return all
}

// bits is one mutation for each bit from first to last.
func bits(first, last int, rule string) (all []mutation) {
	for n := first; n <= last; n++ {
		all = append(all, bit(n, rule))
	}
	return all
}

func join(all ...[]mutation) (m []mutation) {
	for _, a := range all {
		m = append(m, a...)
	}
	return m
}

// tcbFields are the mutations of a TCB_VERSION: lower and higher by one for
// every component, and every reserved byte.
func tcbFields(fmc bool, lower, higher string) (all []mutation) {
	reserved := []int{2, 3, 4, 5}
	if fmc {
		reserved = []int{4, 5, 6}
	}
	for i := range 8 {
		if slices.Contains(reserved, i) {
			all = append(all, bit(8*i, "evidence_format"))
			continue
		}
		all = append(all, mutation{fmt.Sprintf("component %d lower", i), lower, func(b []byte) { b[i]-- }},
			mutation{fmt.Sprintf("component %d higher", i), higher, func(b []byte) { b[i]++ }})
	}
	return all
}

// snpFields is the ATTESTATION_REPORT of version 5 (56860, table 23), whole.
func snpFields(fmc bool) []field {
	one := func(m ...mutation) []mutation { return m }
	mitigated := "mitigations advisory:AMD-SB-3020 advisory:AMD-SB-3030"
	if fmc {
		mitigated = "mitigations" // no advisory asks Turin's
	}
	return []field{
		// Version 4 is read as 3 is, which has no mitigation vectors.
		{"version", 0x00, 4, join(one(set("report_version", 0), set("report_version", 1), set(mitigated, 4), set("report_version", 6), set("report_version", 0xff)), bits(8, 31, "report_version"))},
		{"guest_svn", 0x04, 4, one(set("guest_svn", 2), set("guest_svn", 0), set(shown, 4))},
		{"policy: abi_minor", 0x08, 1, one(set("abi_minimum", 50), set(shown, 52))},
		{"policy: abi_major", 0x09, 1, one(set("abi_minimum", 0), set(shown, 2))},
		// 16 SMT, 17 reserved as one, 18 MIGRATE_MA, 19 DEBUG, 20 SINGLE_SOCKET,
		// 21 CXL_ALLOW, 22 AES-256-XTS, 23 RAPL off, 24 ciphertext hiding, 25
		// page swap off; the rest must be zero.
		{"policy: flags", 0x0a, 6, join(one(bit(0, "smt"), bit(1, "evidence_format"), bit(2, "migrate_ma"), bit(3, "debug"), bit(4, shown), bit(5, "cxl"), bit(6, shown),
			bit(7, shown), bit(8, shown), bit(9, "page_swap_disable")), bits(10, 47, "evidence_format"))},
		{"family_id", 0x10, 16, each(16, shown)},
		{"image_id", 0x20, 16, each(16, shown)},
		{"vmpl", 0x30, 4, one(set("vmpl", 0), set("vmpl", 2), set("vmpl", 3), bit(31, "vmpl"))},
		{"signature_algo", 0x34, 4, one(set("signature_algorithm", 0), set("signature_algorithm", 2), bit(24, "signature_algorithm"))},
		{"current_tcb", 0x38, 8, tcbFields(fmc, "provisional_firmware", "provisional_firmware")},
		{"platform_info", 0x40, 8, join(one(bit(0, "platform_info_smt"), bit(1, "platform_info_tsme"), bit(2, "platform_info_ecc"), bit(3, "platform_info_rapl_disabled"),
			bit(4, "platform_info_ciphertext_hiding"), bit(5, "platform_info_alias_check"),
			bit(6, "platform_info_iommu_write_safe"), bit(7, "platform_info_tio")), bits(8, 63, shown))},
		// 0 author key, 1 MASK_CHIP_KEY, 2 to 4 signing key
		{"key_info", 0x48, 4, join(one(bit(0, shown), bit(1, shown), bit(2, "endorsement"), bit(3, "evidence_format"), bit(4, "evidence_format"), set("signer", 7<<2)), bits(5, 31, "evidence_format"))},
		{"reserved 4c", 0x4c, 4, each(4, "evidence_format")},
		{"report_data", 0x50, 64, each(64, "report_data")},
		{"measurement", 0x90, 48, each(48, "measurement")},
		{"host_data", 0xc0, 32, each(32, "host_data")},
		{"id_key_digest", 0xe0, 48, each(48, "id_key_digest")},
		{"author_key_digest", 0x110, 48, each(48, "author_key_digest")},
		{"report_id", 0x140, 32, each(32, shown)},
		{"report_id_ma", 0x160, 32, each(32, "migration_agent")},
		{"reported_tcb", 0x180, 8, tcbFields(fmc, "certificate_tcb", "certificate_tcb")},
		{"cpuid_fam_id", 0x188, 1, one(set("product", 0x17), set("product", 0), set("product", 0x1b))},
		{"cpuid_mod_id", 0x189, 1, one(set("product", 0x80), set("product", 0xff), set("silicon", 3))},
		{"cpuid_step", 0x18a, 1, one(set("silicon", 7), set("silicon", 0))},
		{"reserved 18b", 0x18b, 21, each(21, "evidence_format")},
		{"chip_id", 0x1a0, 64, each(64, "certificate_chip_id")},
		{"committed_tcb", 0x1e0, 8, tcbFields(fmc, "provisional_firmware", "provisional_firmware")},
		{"current version", 0x1e8, 3, each(3, "provisional_firmware")},
		{"reserved 1eb", 0x1eb, 1, each(1, "evidence_format")},
		{"committed version", 0x1ec, 3, each(3, "provisional_firmware")},
		{"reserved 1ef", 0x1ef, 1, each(1, "evidence_format")},
		{"launch_tcb", 0x1f0, 8, tcbFields(fmc, "minimum_tcb", shown)},
		{"launch_mit_vector", 0x1f8, 8, mitigations(fmc)},
		{"current_mit_vector", 0x200, 8, mitigations(fmc)},
		{"reserved 208", 0x208, 0x98, each(0x98, "evidence_format")},
	}
}

// mitigations are those that advisories ask of Milan, and the others.
func mitigations(fmc bool) []mutation {
	all := bits(5, 63, shown)
	for n, rule := range []string{"mitigations", "advisory:AMD-SB-3020", shown, shown, "advisory:AMD-SB-3030"} {
		if fmc && n > 0 {
			rule = shown
		}
		all = append(all, bit(n, rule))
	}
	return all
}

// snpSigned is the size of the signed part; what follows is the signature: R
// and S of 72 bytes each, then reserved bytes.
const snpSigned = 0x2a0

// strictMachine is a report that uses every rule, its verifier and what it
// must be appraised by.
func strictMachine(t *testing.T, fmc bool) (*vendortest.Vendor, *verifiertest.Chip, []byte, *snp.Verifier, kbs.ReferenceValues, verifier.Expectation) {
	t.Helper()
	v, c := vendortest.NewVendor(t, fmc), verifiertest.NewChip(t, fmc)
	raw := v.Report(t, c, func(r []byte) {
		le := binary.LittleEndian
		le.PutUint32(r[0x04:], 3)
		le.PutUint64(r[0x08:], 1<<25|1<<17|1<<8|51)
		le.PutUint32(r[0x30:], 1)
		le.PutUint64(r[0x40:], verifier.PlatformAliasCheck|verifier.PlatformCiphertextHiding|verifier.PlatformECC|verifier.PlatformRAPLDisabled|verifier.PlatformTSME|verifier.PlatformIOMMUWriteSafe)
		copy(r[0xc0:], bytes.Repeat([]byte{0xcd}, 32))
		copy(r[0xe0:], bytes.Repeat([]byte{0xab}, 96))
	})
	key := strings.Repeat("ab", 48)
	ref := kbs.ReferenceValues{TEE: kbs.SNP, Measurements: []kbs.Measurement{{LaunchDigest: kbs.LaunchDigest(raw[0x90:0xc0])}},
		SNP: &kbs.SNPRules{ForbidSMT: true, VMPL: 1, HostData: strings.Repeat("cd", 32), MinimumABI: &kbs.SNPABI{Major: 1, Minor: 51}, MinimumTCB: &c.TCB, MinimumGuestSVN: 3,
			ChipIDs: []string{verifier.Hex(c.ID[:]).String()}, IDKeyDigests: []string{key}, AuthorKeyDigests: []string{key}, Signers: []string{verifier.VCEK},
			RequireAliasCheck: true, RequireCiphertextHiding: true, RequireECC: true, RequireRAPLDisabled: true, RequireTSME: true,
			RequireIOMMUWriteSafe: true, ForbidPlatformSMT: true, ForbidTIO: true, RequirePageSwapDisable: true, RequireMitigations: []int{0}}}
	s := v.Verifier(t, snp.Options{})
	return v, c, raw, s, ref, verifier.Expectation{ReportData: kbs.ReportData(raw[0x50:0x90]), At: verifiertest.Time, Advisories: verifiertest.Advisories(t)}
}

// TestEveryFieldSNP changes every field of a report, each time as AMD's
// firmware would sign it: one rule refuses, the one for that field. The table
// covers every signed byte.
func TestEveryFieldSNP(t *testing.T) {
	total := 0
	for _, fmc := range []bool{false, true} {
		v, c, raw, s, ref, want := strictMachine(t, fmc)
		table := verifiertest.CertTable(abi.VcekGUID, v.VEK(t, c, verifiertest.VEKOptions{}))
		judge := func(b []byte) string {
			claims, err := s.Verify(context.Background(), kbs.Evidence{TEE: kbs.SNP, Report: b, Certificates: table}, verifiertest.Time)
			if err != nil {
				return verifier.RuleOf(err)
			}
			return dedupe(verifiertest.Failed(verifier.Appraise(claims, ref, want)))
		}
		if rule := judge(raw); rule != "" {
			t.Fatalf("unchanged: refused by %s", rule)
		}
		end := 0
		for _, f := range snpFields(fmc) {
			if f.off != end || len(f.changes) == 0 {
				t.Fatalf("table: %s begins at %#x, expected %#x; %d changes", f.name, f.off, end, len(f.changes))
			}
			end += f.size
			for _, m := range f.changes {
				b := bytes.Clone(raw)
				m.edit(b[f.off : f.off+f.size])
				if bytes.Equal(b, raw) {
					t.Errorf("%s %s changes nothing", f.name, m.name)
				}
				verifiertest.SignReport(t, c, b)
				total++
				if got := judge(b); got != m.rule {
					t.Errorf("fmc %t, %s %s: refused by %q, expected %q", fmc, f.name, m.name, got, m.rule)
				}
			}
		}
		if end != snpSigned {
			t.Errorf("the table ends at %#x, the signed part at %#x", end, snpSigned)
		}
		for i := range raw { // none of them signed anew
			if fmc && i%7 != 0 { // each costs a signature check
				continue
			}
			b := bytes.Clone(raw)
			b[i] ^= 1 << (i % 8)
			total++
			if got := judge(b); got == "" || i >= snpSigned+72*2 && got != "evidence_format" || i >= snpSigned && i < snpSigned+72*2 && got != "signature" {
				t.Errorf("fmc %t, byte %#x: refused by %q", fmc, i, got)
			}
		}
	}
	t.Logf("%d changes to SNP reports", total)
}

// dedupe drops repetitions next to each other.
func dedupe(s string) string { return strings.Join(slices.Compact(strings.Fields(s)), " ") }
