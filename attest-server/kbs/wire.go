package kbs

import "time"

// Native dialect, /v1. Bodies are JSON, decoded by DecodeStrict. Errors are RFC
// 9457 problem+json (Problem). The channel is TLS 1.3 to a server whose public
// key is pinned in the measured identity segment.

// Limits of the native dialect, in bytes.
const (
	MaxAuthBody     = 4 << 10
	MaxAttestBody   = 256 << 10
	MaxRegisterBody = 256 << 10
	MaxAnswerBody   = 64 << 10
)

// AuthRequest opens a session: POST /v1/auth.
type AuthRequest struct {
	Version    int    `json:"version"` // 1
	TEE        TEE    `json:"tee"`
	WorkloadID string `json:"workload_id"`
}

// AuthAnswer is the answer to AuthRequest.
type AuthAnswer struct {
	Session    string    `json:"session"`     // bearer of this session, base64url
	Nonce      []byte    `json:"nonce"`       // 32 random bytes, single use
	ExpiresIn  int       `json:"expires_in"`  // seconds
	ServerTime time.Time `json:"server_time"` // guests have no clock they may trust
}

// TEEKey is the guest's ephemeral HPKE public key (RFC 9180), made inside the
// TEE for one session and bound into REPORT_DATA.
type TEEKey struct {
	KEM    uint16 `json:"kem"`    // IANA HPKE KEM identifier
	Public []byte `json:"public"` // serialised public key
}

// RuntimeData is what REPORT_DATA binds: see Binding.
type RuntimeData struct {
	Nonce          []byte `json:"nonce"`
	TEEKey         TEEKey `json:"tee_key"`
	IdentityDigest Digest `json:"identity_digest"` // of the canonical identity JSON
	FooterDigest   Digest `json:"footer_digest"`   // of the disk footer's JSON, as found
	// RenewalKey is of a guest that will want secrets after its session.
	RenewalKey *TEEKey `json:"renewal_key,omitempty"`
}

// Evidence is what the TEE signed, with the Endorsements the platform gave
// along, if any.
type Evidence struct {
	TEE          TEE    `json:"tee"`
	Report       []byte `json:"report"`                 // SNP report or TDX quote, raw
	Certificates []byte `json:"certificates,omitempty"` // GHCB certificate table, raw
}

// AttestRequest proves the session's guest: POST /v1/attest, with
// Authorization: Bearer SESSION.
type AttestRequest struct {
	RuntimeData RuntimeData `json:"runtime_data"`
	Evidence    Evidence    `json:"evidence"`
}

// AttestAnswer says that the session may now fetch its key.
type AttestAnswer struct {
	Result string `json:"result"` // "affirming"
}

// ConfirmAnswer says that the server remembers that the guest has its disk open
// (POST /v1/workloads/{id}/confirm): its VM gets no DiskKey from now on.
type ConfirmAnswer struct {
	Result string `json:"result"` // "confirmed"
}

// Confirmed is the only Result of a ConfirmAnswer.
const Confirmed = "confirmed"

// Sealed is a secret encrypted to the session's TEEKey: HPKE base mode,
// HKDF-SHA256, AES-256-GCM, info from ReleaseInfo, no AAD.
type Sealed struct {
	Enc        []byte    `json:"enc"`
	Ciphertext []byte    `json:"ciphertext"`
	ServerTime time.Time `json:"server_time"`
}

// Problem is an RFC 9457 error. Code is stable and short; the peer gets no
// more than it needs, the owner asks `ccrun explain SESSION`.
type Problem struct {
	Type    string `json:"type"` // "about:blank"
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Code    string `json:"code"`
	Detail  string `json:"detail,omitempty"`
	Session string `json:"session,omitempty"` // public session number for `ccrun explain`
}

// Error codes of the native dialect.
const (
	CodeBadRequest        = "bad_request"
	CodeUnauthorized      = "unauthorized"
	CodeForbidden         = "forbidden"
	CodeQuota             = "quota_exceeded"
	CodeNotFound          = "not_found"
	CodeConflict          = "conflict"           // a different registration under this id
	CodeDuplicateDigest   = "duplicate_digest"   // another workload has this launch digest
	CodeSessionExpired    = "session_expired"    // unknown, expired or used session
	CodeAttestationDenied = "attestation_denied" // some rule failed: exit code 3
	CodeNotAttested       = "not_attested"       // key asked for before attest
	CodeAlreadyReleased   = "already_released"   // this VM has confirmed that its disk opened: no denial
	CodeTooLarge          = "too_large"
	CodeRateLimited       = "rate_limited"
	CodeUnavailable       = "unavailable"
	CodeVolumeRolledBack  = "volume_rolled_back" // the volume is not as it was left
	CodeVolumeTaken       = "volume_taken"       // another guest has opened it since
	CodeMoved             = "moved"              // POST /v1/moved says where to
	CodeInternal          = "internal"
)
