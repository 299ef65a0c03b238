package kbs

import (
	"fmt"
	"time"
)

// Registration is everything the server holds of a workload but its key.
type Registration struct {
	Version    int    `json:"version"` // 1
	WorkloadID string `json:"workload_id"`
	// Type says how strong the workload's identity is, and so which dialects
	// may release its key.
	Type RegistrationType `json:"type,omitempty"`
	// IdentityDigest and FooterDigest are needed for TypeNative and must be
	// left out for the others, whose guests prove neither.
	IdentityDigest  Digest          `json:"identity_digest,omitzero"`
	FooterDigest    Digest          `json:"footer_digest,omitzero"`
	ReferenceValues ReferenceValues `json:"reference_values"`
	Image           string          `json:"image,omitempty"` // manifest digest, for people
	Created         *time.Time      `json:"created,omitempty"`
	Release         *ReleaseLimits  `json:"release,omitempty"` // nil: as often as asked for
}

// ReleaseLimits says how often a workload's key is released. A session counts
// once, however often it fetches the key. Like the rest of a registration it
// cannot be changed without registering anew.
type ReleaseLimits struct {
	Total    int64      `json:"total,omitempty"`     // sessions in all, 1 for "once"; 0: any number
	PerDay   int64      `json:"per_day,omitempty"`   // sessions per day, UTC; 0: any number
	NotAfter *time.Time `json:"not_after,omitempty"` // no release from then on
	// Approvals are the tenants that must each have approved the registration
	// (see Approval): data owners besides the one who registers.
	Approvals []string `json:"approvals,omitempty"`
}

// RegistrationType is what kind of guest a registration is for.
type RegistrationType string

const (
	// TypeNative is a guest with an identity segment of its own in its initrd,
	// so that its launch digest is its alone.
	TypeNative RegistrationType = ""
	// TypeTrustee is a guest that speaks the CoCo KBS protocol. Its launch
	// digest and the other Reference Values are all that tells it from others.
	TypeTrustee RegistrationType = "trustee"
	// TypeLegacy is a guest of libkrun's old C client: stock firmware, so that
	// every tenant with as many CPUs and as much memory has the same digest.
	TypeLegacy RegistrationType = "legacy"
)

// RegisterRequest is the body of PUT /v1/workloads/{id}, sent with an admin's
// token over TLS. DiskKey never appears in an answer to an admin.
type RegisterRequest struct {
	Registration Registration `json:"registration"`
	DiskKey      []byte       `json:"disk_key"` // what opens the LUKS keyslot
	// Boot lets measurements of later firmware be added; nil: they cannot be.
	Boot *Boot `json:"boot,omitempty"`
	// Replace makes this the next version of a workload that is there; nil: the
	// id must be free.
	Replace *Replace `json:"replace,omitempty"`
}

// Replace says which version a registration follows, and how long that is valid.
type Replace struct {
	Expect Digest `json:"expect"` // of the registration that is the newest now
	// NotAfter ends the version before: nothing is released to it from then on.
	NotAfter time.Time `json:"not_after"`
}

// Boot is what a workload boots besides firmware: enough, with the agent's
// segment, to compute what other firmware measures. All of it is public.
type Boot struct {
	Identity []byte `json:"identity"` // canonical identity JSON
	Agent    Digest `json:"agent"`    // of the agent's segment
	Initrd   Digest `json:"initrd"`   // of what the two segments make
}

// Record is what `ccrun build --record` writes and `ccrun register` reads:
// mode 0600 while it holds the DiskKey. Published beside the image it is
// without.
type Record struct {
	Version      int          `json:"version"` // 1
	Registration Registration `json:"registration"`
	Identity     []byte       `json:"identity"` // canonical identity JSON
	// Source is the manifest digest of the image that was encrypted, for people.
	// It is a commitment to what the disk hides, so what is published is without.
	Source  string `json:"source,omitempty"`
	DiskKey []byte `json:"disk_key,omitempty"`
	// Agent and Initrd are Boot's, in a record that is to be registered.
	Agent  Digest `json:"agent,omitzero"`
	Initrd Digest `json:"initrd,omitzero"`
}

// Boot is what the server is to keep of what the workload boots; nil if the
// record does not say.
func (r *Record) Boot() *Boot {
	if r.Agent.IsZero() || r.Initrd.IsZero() {
		return nil
	}
	return &Boot{Identity: r.Identity, Agent: r.Agent, Initrd: r.Initrd}
}

// ReferenceValues is what Evidence is appraised against. The zero value
// matches nothing.
type ReferenceValues struct {
	TEE          TEE           `json:"tee"`
	Measurements []Measurement `json:"measurements"` // any one of them; none is an error
	SNP          *SNPRules     `json:"snp,omitempty"`
	TDX          *TDXRules     `json:"tdx,omitempty"`
	VTPM         *VTPMRules    `json:"vtpm,omitempty"` // az-snp-vtpm, az-tdx-vtpm
	CEL          []Expression  `json:"cel,omitempty"`  // all must be true
}

// VTPMRules holds what the vTPM of a guest behind a paravisor must quote. The
// launch digest covers only the paravisor there. PCR 4, boot loader or unified
// kernel image, must be among them; with a boot loader, 8 and 9 should be too.
type VTPMRules struct {
	PCRs map[string]string `json:"pcrs"` // "0".."23" to 64 hex digits, SHA-256 bank
}

// Measurement is one acceptable launch digest and where it comes from.
type Measurement struct {
	LaunchDigest LaunchDigest `json:"launch_digest"`
	Profile      string       `json:"profile"` // krun/measure profile, e.g. libkrun-1.16
	CPUs         uint         `json:"cpus"`
	MemoryMiB    uint         `json:"memory_mib"`
	Firmware     string       `json:"firmware"` // sha256 of the firmware inputs, hex
	ACPI         ACPI         `json:"acpi,omitempty"`
	// Predicted names registers of a TD whose values were computed, and that nobody
	// has seen a machine with yet: PredictedRTMRs, or none.
	Predicted string     `json:"predicted,omitempty"`
	NotBefore *time.Time `json:"not_before,omitempty"`
	NotAfter  *time.Time `json:"not_after,omitempty"`
}

// PredictedRTMRs are the registers that follow from what `ccrun build` reads.
const PredictedRTMRs = "rtmr1,rtmr2"

// ACPI says whether a machine's kernel runs the code in ACPI tables, which a
// host can write and no SNP digest covers. It is empty for machines that have
// none, such as libkrun's; for QEMU's it must be said.
type ACPI string

// What a Measurement says of ACPI.
const (
	ACPIOff     ACPI = "off"     // the measured command line keeps the code from running
	ACPIAllowed ACPI = "allowed" // it runs, and the owner lets it
)

// NeedsACPI says whether a measurement of that profile must say something of
// ACPI: QEMU's machines with SNP, and the simulator's.
func NeedsACPI(profile string) bool { return profile == ProfileQEMUSNP || profile == "qemu-direct" }

// Profiles of krun/measure whose machines are launched with the identity's digest
// besides, in HOST_DATA or MRCONFIGID.
const (
	ProfileQEMUSNP = "qemu-snp"
	ProfileQEMUTDX = "qemu-tdx"
)

// SNPRules loosens or tightens what is asked of an SNP report. The zero value
// is the strict default: no DEBUG, no MIGRATE_MA, no CXL, VMPL 0, HOST_DATA
// zero, committed firmware only.
type SNPRules struct {
	AllowDebug       bool   `json:"allow_debug,omitempty"`
	AllowMigrateMA   bool   `json:"allow_migrate_ma,omitempty"`
	AllowProvisional bool   `json:"allow_provisional,omitempty"`
	AllowCXL         bool   `json:"allow_cxl,omitempty"`
	ForbidSMT        bool   `json:"forbid_smt,omitempty"`
	VMPL             uint32 `json:"vmpl,omitempty"`
	HostData         string `json:"host_data,omitempty"` // 64 hex digits, zero if left out

	// MinimumABI is the least ABI version the guest policy must have asked for.
	MinimumABI *SNPABI `json:"minimum_abi,omitempty"`
	// MinimumTCB holds for every product, MinimumTCBs for the silicon named by
	// CPUID family/model/stepping in hex, e.g. "19/01/1": microcode counts
	// within one. REPORTED_TCB and LAUNCH_TCB must both reach it.
	MinimumTCB  *SNPTCB            `json:"minimum_tcb,omitempty"`
	MinimumTCBs map[string]*SNPTCB `json:"minimum_tcbs,omitempty"`
	// MinimumGuestSVN is the least GUEST_SVN of the ID block.
	MinimumGuestSVN uint32 `json:"minimum_guest_svn,omitempty"`

	ChipIDs        []string `json:"chip_ids,omitempty"`        // allow list, hex; empty: any
	ForbidProducts []string `json:"forbid_products,omitempty"` // deny list of product lines
	// AllowAdvisories accepts firmware in which these are open: ID, or ID=DATE
	// for until the end of that day, or all. Empty: none.
	AllowAdvisories  []string `json:"allow_advisories,omitempty"`
	IDKeyDigests     []string `json:"id_key_digests,omitempty"`     // allow list, 96 hex digits
	AuthorKeyDigests []string `json:"author_key_digests,omitempty"` // allow list, 96 hex digits
	Signers          []string `json:"signers,omitempty"`            // VCEK, VLEK; empty: both

	// PLATFORM_INFO bits that must be set.
	RequireAliasCheck       bool `json:"require_alias_check,omitempty"`
	RequireCiphertextHiding bool `json:"require_ciphertext_hiding,omitempty"`
	RequireECC              bool `json:"require_ecc,omitempty"`
	RequireRAPLDisabled     bool `json:"require_rapl_disabled,omitempty"`
	RequireTSME             bool `json:"require_tsme,omitempty"`
	RequireIOMMUWriteSafe   bool `json:"require_iommu_write_safe,omitempty"`
	// PLATFORM_INFO bits that must be clear: SMT of the machine, whatever the
	// guest's policy says of itself, and trusted I/O.
	ForbidPlatformSMT bool `json:"forbid_platform_smt,omitempty"`
	ForbidTIO         bool `json:"forbid_tio,omitempty"`
	// RequirePageSwapDisable asks for guest policy bit 25.
	RequirePageSwapDisable bool `json:"require_page_swap_disable,omitempty"`
	// RequireMitigations are bits that LAUNCH_MIT_VECTOR and CURRENT_MIT_VECTOR
	// must both have, 0 to 63; reports have them from version 5 on.
	RequireMitigations []int `json:"require_mitigations,omitempty"`
}

// SNPABI is a version of the SEV-SNP firmware ABI.
type SNPABI struct {
	Major uint8 `json:"major"`
	Minor uint8 `json:"minor"`
}

// SNPTCB is a set of security version numbers, each compared on its own.
type SNPTCB struct {
	FMC        uint8 `json:"fmc,omitempty"` // Turin
	Bootloader uint8 `json:"bootloader"`
	TEE        uint8 `json:"tee"`
	SNP        uint8 `json:"snp"`
	Microcode  uint8 `json:"microcode"`
}

func (t SNPTCB) String() string {
	return fmt.Sprintf("fmc %d bootloader %d tee %d snp %d microcode %d", t.FMC, t.Bootloader, t.TEE, t.SNP, t.Microcode)
}

// Max is the greater of t and o, each component on its own.
func (t SNPTCB) Max(o SNPTCB) SNPTCB {
	return SNPTCB{FMC: max(t.FMC, o.FMC), Bootloader: max(t.Bootloader, o.Bootloader), TEE: max(t.TEE, o.TEE),
		SNP: max(t.SNP, o.SNP), Microcode: max(t.Microcode, o.Microcode)}
}

// TDXRules holds what a TD quote must show besides its MRTD. RTMRs 0 to 2
// left out are an error at appraisal: they carry kernel and initrd. RTMR 3
// left out must be zero. The other zero values are the strict default.
type TDXRules struct {
	RTMRs         map[string]string `json:"rtmrs,omitempty"`        // "0".."3" to 96 hex digits
	MRConfigID    string            `json:"mr_config_id,omitempty"` // 96 hex digits, zero if left out
	MROwner       string            `json:"mr_owner,omitempty"`
	MROwnerConfig string            `json:"mr_owner_config,omitempty"`
	MRSEAM        []string          `json:"mr_seam,omitempty"` // allow list; empty: any Intel module
	AllowDebug    bool              `json:"allow_debug,omitempty"`
	// AllowMigration accepts a TD that a service TD may migrate.
	AllowMigration bool `json:"allow_migration,omitempty"`
	AllowPerfMon   bool `json:"allow_perfmon,omitempty"`
	// RequireSEPTVEDisable refuses TDs that the host can make take a #VE by
	// removing a page; current Linux guards itself where this is not set.
	RequireSEPTVEDisable bool     `json:"require_sept_ve_disable,omitempty"`
	TCBStatus            []string `json:"tcb_status,omitempty"` // accepted besides UpToDate
	// AllowAdvisories are the advisories accepted with a status other than
	// UpToDate, and those of the table of advisories accepted while open: ID,
	// e.g. INTEL-SA-00837, or ID=DATE for until the end of that day, or all.
	// Empty: none.
	AllowAdvisories []string `json:"allow_advisories,omitempty"`
	XFAM            string   `json:"xfam,omitempty"`            // 16 hex digits mask of allowed bits
	MinimumTEETCB   string   `json:"minimum_tee_tcb,omitempty"` // 32 hex digits, each byte a floor
	// MinimumTCBEvaluation is the least tcbEvaluationDataNumber of Intel's
	// collateral.
	MinimumTCBEvaluation uint32 `json:"minimum_tcb_evaluation,omitempty"`
	// MachineIDs is an allow list of PPIDs, 32 hex digits; empty: any.
	MachineIDs []string `json:"machine_ids,omitempty"`
}
