// Package store keeps what attest-server must not lose: registrations, their
// sealed secrets, tokens, session records and the audit log. In SQLite,
// for one server, or in PostgreSQL, for several.
package store

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/secret"
)

// What callers branch on.
var (
	ErrNotFound       = errors.New("not found")
	ErrRevoked        = errors.New("revoked")
	ErrChanged        = errors.New("registration changed since attestation")
	ErrWrongMasterKey = errors.New("master key does not belong to this store")
	ErrLocked         = masterkey.ErrLocked
	ErrNewerSchema    = errors.New("store is newer than this attest-server")
	ErrTampered       = errors.New("store was changed behind attest-server's back")
	// ErrUnavailable means that the database does not answer now.
	ErrUnavailable = errors.New("the database does not answer")
)

// Options configures Open. Rand and Clock are needed; a MasterKey left out
// opens the store without its secrets, which is enough for tokens.
type Options struct {
	MasterKey secret.Bytes
	Rand      io.Reader
	Clock     func() time.Time
	// ReloadMasterKeys finds the MasterKeys there are now, in case another
	// process has changed the store's while it was open; nil: writes then fail.
	ReloadMasterKeys func() ([]secret.Bytes, error)
	// SessionRecords is how many session records are kept of authentic
	// Evidence, and again of the rest; the oldest go first. Zero: 10000.
	SessionRecords int
}

// ConflictError says that something else is registered under the same id.
type ConflictError struct {
	WorkloadID string
	Revoked    bool
}

func (e *ConflictError) Error() string {
	if e.Revoked {
		return fmt.Sprintf("workload %s is registered and revoked", e.WorkloadID)
	}
	return fmt.Sprintf("workload %s is registered already, with other content", e.WorkloadID)
}

// Hint is the next step.
func (e *ConflictError) Hint() string {
	return "choose another --workload-id, or remove the old one with `ccrun workload rm " + e.WorkloadID + "`"
}

// DuplicateDigestError says that another workload has the same launch digest,
// so that its guests could not be told apart from this one's.
type DuplicateDigestError struct {
	LaunchDigest kbs.LaunchDigest
	WorkloadID   string // the one that has it
}

func (e *DuplicateDigestError) Error() string {
	return fmt.Sprintf("launch digest %s belongs to workload %s", e.LaunchDigest, e.WorkloadID)
}

// Hint is the next step.
func (e *DuplicateDigestError) Hint() string {
	return "two workloads must not share a measurement: build the image again under its own --workload-id"
}

// Workload is a registration as it stands in the store.
type Workload struct {
	kbs.WorkloadStatus
	Digest kbs.Digest // of the canonical registration
	// TenantPolicy is DB.TenantPolicy of its tenant, read with it.
	TenantPolicy []byte
	counters     counters
}

func (o Options) check() error {
	if o.Rand == nil || o.Clock == nil {
		return errors.New("opening store: no source of randomness or no clock")
	}
	return nil
}

func unixMilli(t time.Time) int64 { return t.UTC().UnixMilli() }

func fromMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func fromNullMilli(ms *int64) *time.Time {
	if ms == nil {
		return nil
	}
	t := fromMilli(*ms)
	return &t
}
