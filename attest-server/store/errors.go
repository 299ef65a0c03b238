package store

import (
	"errors"
	"fmt"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/masterkey"
	"github.com/ccrun/ccrun/attest-server/store/database"
)

// What callers branch on.
var (
	ErrNotFound       = database.ErrNone
	ErrRevoked        = errors.New("revoked")
	ErrChanged        = errors.New("registration changed since attestation")
	ErrWrongMasterKey = errors.New("master key does not belong to this store")
	ErrLocked         = masterkey.ErrLocked
	ErrNewerSchema    = database.ErrNewerSchema
	ErrTampered       = errors.New("store was changed behind attest-server's back")
	ErrUnavailable    = database.ErrUnavailable
)

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

// DuplicateIdentityError says that one Evidence could be another workload's as
// well as this one's: they share a launch digest, and nothing else that both ask
// for tells them apart.
type DuplicateIdentityError struct {
	LaunchDigest kbs.LaunchDigest
	WorkloadID   string // the other one
}

func (e *DuplicateIdentityError) Error() string {
	return fmt.Sprintf("launch digest %s belongs to workload %s, and its other reference values do not rule this one's guests out", e.LaunchDigest, e.WorkloadID)
}

// Hint is the next step.
func (e *DuplicateIdentityError) Hint() string {
	return "two workloads must not share a measurement: build the image again under its own --workload-id; " +
		"where the launch digest is a firmware's or paravisor's alone, register values of HOST_DATA, MRCONFIGID, RTMRs or PCRs in which the two differ"
}

// QuotaError says that a tenant has as many of something as it may have.
type QuotaError struct {
	Tenant, What string
	Max          int64
}

func (e *QuotaError) Error() string {
	return fmt.Sprintf("tenant %s has its %d %s", e.Tenant, e.Max, e.What)
}

// Hint is the next step.
func (e *QuotaError) Hint() string {
	return "remove some, or have the server's operator raise the quota with `attest-server tenant set`"
}

// VersionsError says that a workload has as many versions as are kept, and none
// of them is over.
type VersionsError struct{ WorkloadID string }

func (e *VersionsError) Error() string {
	return fmt.Sprintf("workload %s has %d versions that are all valid", e.WorkloadID, kbs.MaxVersions)
}

// Hint is the next step.
func (e *VersionsError) Hint() string {
	return "`ccrun workload show " + e.WorkloadID + "` lists them: end one with `ccrun workload revoke " + e.WorkloadID + "@N`"
}
