package verifier

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
)

// Claims is what Evidence says, decoded and authenticated.
type Claims struct {
	TEE          kbs.TEE          `json:"tee"`
	LaunchDigest kbs.LaunchDigest `json:"launch_digest,omitzero"` // MEASUREMENT or MRTD
	ReportData   kbs.ReportData   `json:"report_data"`
	SNP          *SNPClaims       `json:"snp,omitempty"`
	TDX          *TDXClaims       `json:"tdx,omitempty"`
	VTPM         *VTPMClaims      `json:"vtpm,omitempty"`   // Azure
	Chain        []Certificate    `json:"chain,omitempty"`  // vendor root first
	Checks       []Rule           `json:"checks,omitempty"` // what Verify did, all passed
}

// Certificate is one link of the chain from the vendor's root.
type Certificate struct {
	Subject   string    `json:"subject"`
	SHA256    string    `json:"sha256"` // of the DER, hex
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Hex is bytes that JSON shows in lower-case hex.
type Hex []byte

// MarshalText implements encoding.TextMarshaler.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hex) UnmarshalText(b []byte) (err error) {
	*h, err = hex.AppendDecode(nil, b)
	return err
}

func (h Hex) String() string { return hex.EncodeToString(h) }

// IsZero says whether no bit is set.
func (h Hex) IsZero() bool { return len(bytes.Trim(h, "\x00")) == 0 }

// SNPClaims is an SEV-SNP ATTESTATION_REPORT (AMD document 56860, section
// 7.3), field by field.
type SNPClaims struct {
	ReportVersion   uint32     `json:"report_version"`
	Product         string     `json:"product"` // product line whose chain endorsed it
	CPUID           string     `json:"cpuid,omitempty"`
	Silicon         string     `json:"silicon,omitempty"` // CPUID as advisories name it, 19/01/1; report v3
	Signer          string     `json:"signer"`            // VCEK or VLEK
	GuestSVN        uint32     `json:"guest_svn"`
	Policy          SNPPolicy  `json:"policy"`
	FamilyID        Hex        `json:"family_id"`
	ImageID         Hex        `json:"image_id"`
	VMPL            uint32     `json:"vmpl"`
	PlatformInfo    uint64     `json:"platform_info"`
	ReportData      Hex        `json:"report_data"`
	HostData        Hex        `json:"host_data"`
	IDKeyDigest     Hex        `json:"id_key_digest"`
	AuthorKeyDigest Hex        `json:"author_key_digest"`
	AuthorKey       bool       `json:"author_key"`
	ReportID        Hex        `json:"report_id"`
	ReportIDMA      Hex        `json:"report_id_ma"`
	ChipID          Hex        `json:"chip_id"`
	ChipIDMasked    bool       `json:"chip_id_masked"`
	CurrentTCB      kbs.SNPTCB `json:"current_tcb"`
	ReportedTCB     kbs.SNPTCB `json:"reported_tcb"`
	CommittedTCB    kbs.SNPTCB `json:"committed_tcb"`
	LaunchTCB       kbs.SNPTCB `json:"launch_tcb"`
	Current         Firmware   `json:"current"`
	Committed       Firmware   `json:"committed"`
	LaunchMIT       uint64     `json:"launch_mit_vector"` // report v5
	CurrentMIT      uint64     `json:"current_mit_vector"`
}

// SNPPolicy is the guest policy the host launched with.
type SNPPolicy struct {
	Bits         uint64 `json:"bits"`
	ABIMajor     uint8  `json:"abi_major"`
	ABIMinor     uint8  `json:"abi_minor"`
	SMT          bool   `json:"smt"`
	MigrateMA    bool   `json:"migrate_ma"`
	Debug        bool   `json:"debug"`
	SingleSocket bool   `json:"single_socket"`
	CXLAllowed   bool   `json:"cxl_allowed"`
}

// PolicyPageSwapDisable is the bit of a guest policy (56860, table 9) that
// forbids the host to swap the guest's pages out.
const PolicyPageSwapDisable = 1 << 25

// Firmware is the version of the secure processor's SNP firmware.
type Firmware struct {
	Major uint8 `json:"major"`
	Minor uint8 `json:"minor"`
	Build uint8 `json:"build"`
}

// PLATFORM_INFO bits (56860, table 24).
const (
	PlatformSMT              = 1 << 0
	PlatformTSME             = 1 << 1
	PlatformECC              = 1 << 2
	PlatformRAPLDisabled     = 1 << 3
	PlatformCiphertextHiding = 1 << 4
	PlatformAliasCheck       = 1 << 5
	PlatformIOMMUWriteSafe   = 1 << 6
	PlatformTIO              = 1 << 7
)

// TDXClaims is a TD quote (v4 or v5) and what Intel's collateral says of the
// platform that made it.
type TDXClaims struct {
	QuoteVersion      uint16   `json:"quote_version"`
	BodyType          uint16   `json:"body_type"` // 2: TDX 1.0, 3: TDX 1.5
	TEETCBSVN         Hex      `json:"tee_tcb_svn"`
	TEETCBSVN2        Hex      `json:"tee_tcb_svn_2,omitempty"` // TDX 1.5
	MRSEAM            Hex      `json:"mr_seam"`
	MRSignerSEAM      Hex      `json:"mr_signer_seam"`
	SEAMAttributes    Hex      `json:"seam_attributes"`
	TDAttributes      uint64   `json:"td_attributes"`
	XFAM              uint64   `json:"xfam"`
	MRTD              Hex      `json:"mrtd"`
	MRConfigID        Hex      `json:"mr_config_id"`
	MROwner           Hex      `json:"mr_owner"`
	MROwnerConfig     Hex      `json:"mr_owner_config"`
	RTMRs             [4]Hex   `json:"rtmrs"`
	MRServiceTD       Hex      `json:"mr_service_td,omitempty"` // TDX 1.5
	FMSPC             string   `json:"fmspc"`
	PPID              string   `json:"ppid"` // names the machine, hex
	PCEID             string   `json:"pce_id"`
	PCESVN            uint16   `json:"pce_svn"`
	CPUSVN            Hex      `json:"cpu_svn"`
	TCBStatus         string   `json:"tcb_status"` // worst of platform, module and quoting enclave
	PlatformTCBStatus string   `json:"platform_tcb_status"`
	ModuleTCBStatus   string   `json:"module_tcb_status"`
	QETCBStatus       string   `json:"qe_tcb_status"`
	TCBShort          []string `json:"tcb_short,omitempty"` // what is short of UpToDate
	Advisories        []string `json:"advisories,omitempty"`
	TCBDate           string   `json:"tcb_date,omitempty"`
	TCBEvaluation     uint32   `json:"tcb_evaluation"` // tcbEvaluationDataNumber, the lower of TCB info's and QE identity's

	EventLog *EventLogClaims `json:"event_log,omitempty"` // nil: none came along
}

// TD_ATTRIBUTES bits (Intel TDX Module ABI, ATTRIBUTES).
const (
	TDDebug         = 1 << 0
	TDSEPTVEDisable = 1 << 28
	TDMigratable    = 1 << 29
	TDPKS           = 1 << 30
	TDKL            = 1 << 31
	TDPerfMon       = 1 << 63
)

// Names of the endorsement keys, as in SNPRules.Signers.
const (
	VCEK = "VCEK"
	VLEK = "VLEK"
)

// Statuses that combine two findings.
const (
	OutOfDate       = "OutOfDate"
	OutOfDateConfig = "OutOfDateConfigurationNeeded"
	Revoked         = "Revoked"
)

// Statuses that only verifiers make.
const (
	TDRelaunchAdvised       = "TDRelaunchAdvised"
	TDRelaunchAdvisedConfig = "TDRelaunchAdvisedConfigurationNeeded"
)

// UpToDate is the TCB status that needs no permission.
const UpToDate = "UpToDate"

// VTPMClaims is what the vTPM of an Azure guest says.
type VTPMClaims struct {
	ExtraData Hex   `json:"extra_data"` // the guest's report data
	PCRs      []Hex `json:"pcrs"`       // SHA-256 bank
}

// pcrCount and pcrSize are those of the bank that the attesters quote.
const (
	PCRCount = 24
	PCRBytes = sha256.Size
)

// EventLogClaims is an event log that came with a quote. Nothing signs it: the
// digests are as good as the quote if rule event_log passed, the types never.
type EventLogClaims struct {
	Problem string       `json:"problem,omitempty"` // why it cannot be read
	RTMRs   [4]Hex       `json:"rtmrs"`             // what it replays to
	Count   int          `json:"count"`             // events that extend a register
	Events  []EventClaim `json:"events"`            // the first of them, without data
}

// EventClaim is one event that extended a register.
type EventClaim struct {
	Register int    `json:"register"` // RTMR 0 to 3
	Type     string `json:"type"`     // TCG name, or the number
	Digest   Hex    `json:"digest"`
}

func (f Firmware) String() string { return fmt.Sprintf("%d.%d.%d", f.Major, f.Minor, f.Build) }
