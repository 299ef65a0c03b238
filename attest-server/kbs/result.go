package kbs

import (
	"encoding/json"
	"strings"
	"time"
)

// The outcomes of an appraisal. Anything else, the empty string included, is a
// denial. Undecided is none: the server lacked what it needs to appraise, and
// releases nothing until it has it; or RuleFirstRelease failed.
const (
	Affirming       = "affirming"
	Contraindicated = "contraindicated"
	Undecided       = "none"
)

// RuleFirstRelease is the rule that fails for a VM that has confirmed that its
// disk opened.
const RuleFirstRelease = "first_release"

// Rule is one acceptance rule as it was applied, written for the workload's
// owner: what was expected, what was found, and what to do about it.
type Rule struct {
	Rule     string `json:"rule"`
	Expected string `json:"expected"`
	Got      string `json:"got"`
	Pass     bool   `json:"pass"`
	Hint     string `json:"hint,omitempty"`
	// Level is who asked for what a failed rule did not find: server, tenant or
	// workload, or several with commas. Empty: no policy did, it always holds.
	Level string `json:"level,omitempty"`
}

// Kind is the rule's name as statistics count it: of expressions, whose names
// are their publishers', "cel".
func (r Rule) Kind() string {
	if strings.HasPrefix(r.Rule, "cel:") {
		return "cel"
	}
	return r.Rule
}

// Confirmed says whether all that failed is RuleFirstRelease.
func (r AttestationResult) Confirmed() bool {
	confirmed := false
	for _, rule := range r.Rules {
		if !rule.Pass && rule.Rule != RuleFirstRelease {
			return false
		}
		confirmed = confirmed || !rule.Pass
	}
	return confirmed
}

// AttestationResult is an appraisal's outcome (RFC 9334, section 8.4).
type AttestationResult struct {
	TEE    TEE             `json:"tee"`
	Result string          `json:"result"`
	Rules  []Rule          `json:"rules"`
	Claims json.RawMessage `json:"claims,omitempty"` // per TEE
}

// SessionRecord is what the server remembers of an attestation: the answer to
// GET /v1/sessions/{number}. It never holds a secret.
type SessionRecord struct {
	Session    string            `json:"session"` // public number, not the bearer
	WorkloadID string            `json:"workload_id"`
	Version    int64             `json:"version,omitempty"` // of the workload; 0: it was compared with none
	At         time.Time         `json:"at"`
	Peer       string            `json:"peer,omitempty"` // network address, unauthenticated
	Granted    bool              `json:"granted"`
	Releases   int64             `json:"releases"` // how often the key was fetched
	Result     AttestationResult `json:"result"`
	// Refused is what the guest itself says of why it went no further.
	Refused string `json:"refused,omitempty"`
	// Checkpoint is the head of the audit log that its witnesses had then, a
	// signed note of C2SP tlog-checkpoint. Empty: the server has no witnesses.
	Checkpoint string `json:"checkpoint,omitempty"`
	// Volumes is what its guest was refused after it was granted its key.
	Volumes []VolumeRefusal `json:"volumes,omitempty"`
	// Given is what it got besides its DiskKey.
	Given *Given `json:"given,omitempty"`
	// Evidence is what a denied guest showed, as it came. It is kept apart, and no
	// part of the record's JSON: see SessionEvidence.
	Evidence []byte `json:"-"`
}

// Given is what a session's guest got, and what it got later with its RenewalKey.
type Given struct {
	Secrets int      `json:"secrets,omitempty"` // values, each time that it got them
	Config  int64    `json:"config,omitempty"`  // version of the configuration; 0: none was set, or asked for
	Volumes []string `json:"volumes,omitempty"` // whose keys it got
}

// SessionEvidence is the answer to GET /v1/sessions/{number}/evidence.
type SessionEvidence struct {
	TEE      TEE    `json:"tee"`
	Evidence []byte `json:"evidence"` // an SNP report or TD quote, unverified
}

// VolumeRefusal is why a guest could not go on with a volume.
type VolumeRefusal struct {
	Volume string `json:"volume"`
	Why    string `json:"why"`
}

// SessionList is one page of GET /v1/sessions, the latest first. Next is the value
// of the next page's "before" parameter, empty on the last page.
type SessionList struct {
	Sessions []SessionSummary `json:"sessions"`
	Next     string           `json:"next,omitempty"`
}

// SessionSummary is a line of SessionList.
type SessionSummary struct {
	Session    string    `json:"session"`
	WorkloadID string    `json:"workload_id"`
	TEE        TEE       `json:"tee"`
	At         time.Time `json:"at"`
	Peer       string    `json:"peer,omitempty"`
	Granted    bool      `json:"granted"`
	Releases   int64     `json:"releases"`
	Result     string    `json:"result"`
	// Failed is the first rule that failed.
	Failed string `json:"failed,omitempty"`
}

// Summary is r in a line.
func (r *SessionRecord) Summary() SessionSummary {
	s := SessionSummary{Session: r.Session, WorkloadID: r.WorkloadID, TEE: r.Result.TEE, At: r.At, Peer: r.Peer,
		Granted: r.Granted, Releases: r.Releases, Result: r.Result.Result}
	for _, rule := range r.Result.Rules {
		if !rule.Pass {
			s.Failed = rule.Rule
			break
		}
	}
	return s
}

// WorkloadStatus is a registration and its history: the answer to
// GET /v1/workloads/{id}. It never holds the DiskKey.
type WorkloadStatus struct {
	Registration Registration `json:"registration"`
	RegisteredAt time.Time    `json:"registered_at"`
	RegisteredBy string       `json:"registered_by"` // token id
	RevokedAt    *time.Time   `json:"revoked_at,omitempty"`
	Releases     int64        `json:"releases"`
	Denials      int64        `json:"denials"`
	LastRelease  *time.Time   `json:"last_release,omitempty"`
	Released     int64        `json:"released"`           // sessions that got the key, as limits count
	Image        string       `json:"image,omitempty"`    // manifest digest; after a rotation not the one registered
	Rotation     string       `json:"rotation,omitempty"` // under way: an old and a new key are released
	StagedAt     *time.Time   `json:"staged_at,omitempty"`
	RotatedAt    *time.Time   `json:"rotated_at,omitempty"`
	Version      int64        `json:"version"`            // 1, and more with each replacement
	EndsAt       *time.Time   `json:"ends_at,omitempty"`  // nothing is released from then on: a later version is there
	Versions     []Version    `json:"versions,omitempty"` // all of the workload, the newest first, if there are several
}

// Version is one version of a workload. Each has an identity, DiskKey and limits
// of its own; id, resources, approvals and quota are the workload's.
type Version struct {
	Name         string     `json:"name"` // the workload's id if it is the newest, else ID@VERSION
	Version      int64      `json:"version"`
	Image        string     `json:"image,omitempty"`
	RegisteredAt time.Time  `json:"registered_at"`
	RevokedAt    *time.Time `json:"revoked_at,omitempty"`
	EndsAt       *time.Time `json:"ends_at,omitempty"`
	LastRelease  *time.Time `json:"last_release,omitempty"`
}

// WorkloadList is one page of GET /v1/workloads, ordered by id. Next is the
// value of the next page's "after" parameter, empty on the last page.
type WorkloadList struct {
	Workloads []WorkloadSummary `json:"workloads"`
	Next      string            `json:"next,omitempty"`
}

// WorkloadSummary is a line of WorkloadList.
type WorkloadSummary struct {
	WorkloadID string `json:"workload_id"` // ID@N for versions that were replaced
	TEE        TEE    `json:"tee"`
	// Type other than TypeNative is a weaker identity.
	Type         RegistrationType `json:"type,omitempty"`
	Image        string           `json:"image,omitempty"`
	RegisteredAt time.Time        `json:"registered_at"`
	RevokedAt    *time.Time       `json:"revoked_at,omitempty"`
	Releases     int64            `json:"releases"`
	Denials      int64            `json:"denials"`
	LastRelease  *time.Time       `json:"last_release,omitempty"`
	Version      int64            `json:"version"`
	EndsAt       *time.Time       `json:"ends_at,omitempty"` // as in WorkloadStatus
}

// RegisterAnswer is the answer to PUT /v1/workloads/{id}.
type RegisterAnswer struct {
	Created bool           `json:"created"` // false: it was there already, byte for byte
	Status  WorkloadStatus `json:"status"`
}

// AuditEntry is one line of the audit log. Hash covers it and the entry
// before it. A tenant is told no sequence number: it would say how much others
// do.
type AuditEntry struct {
	Sequence int64     `json:"sequence,omitempty"`
	At       time.Time `json:"at"`
	Actor    string    `json:"actor"`  // token/ID, session/NUMBER or local
	Action   string    `json:"action"` // e.g. workload.register
	Object   string    `json:"object"`
	Detail   string    `json:"detail,omitempty"`
	Hash     string    `json:"hash"` // SHA-256, hex
}

// AuditPage is the answer to GET /v1/audit. Next is the value of the next
// page's "after" parameter, zero on the last page; to a tenant, Cursor is that
// of its "cursor" parameter, empty on the last page.
type AuditPage struct {
	Entries  []AuditEntry `json:"entries"`
	Next     int64        `json:"next,omitempty"`
	Cursor   string       `json:"cursor,omitempty"`
	Archived *time.Time   `json:"archived,omitempty"` // when entries that come before these were archived, and cut off
}
