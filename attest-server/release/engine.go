// Package release is the Relying Party: it appraises the Evidence of guests of
// every dialect, and releases to those it affirms what is their workload's. Of
// HTTP it knows nothing.
package release

import (
	"context"
	"io"
	"log/slog"
	"time"

	"github.com/ccrun/ccrun/attest-server/budget"
	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/attest-server/tuple"
	"github.com/ccrun/ccrun/attest-server/verifier"
	"github.com/ccrun/ccrun/secret"
)

// Store is what releasing needs of a store. Errors are those of package store:
// ErrNotFound, ErrRevoked, ErrChanged, ErrLimit, ErrNotApproved, ErrConfirmed.
type Store interface {
	// VersionWith is the version of a workload whose guests have that identity, or
	// the newest.
	VersionWith(ctx context.Context, id string, identity kbs.Digest) (store.Workload, error)
	// WorkloadOf is the one workload whose whole identity Evidence shows, or the
	// nearest that has its launch digest. Of several it is none: ErrAmbiguous.
	WorkloadOf(ctx context.Context, d kbs.LaunchDigest, shown tuple.Tuple) (store.Candidate, error)
	Release(ctx context.Context, id string, appraised kbs.Digest, to store.Guest) (secret.Bytes, error)
	// ReleaseStaged is Release for the DiskKey of a rotation under way;
	// ErrNoRotation: there is none.
	ReleaseStaged(ctx context.Context, id string, appraised kbs.Digest, to store.Guest) (secret.Bytes, error)
	// Confirm notes that a guest has its disk open. From then on Release refuses
	// its VM, and Unconfirmed does: ErrConfirmed.
	Confirm(ctx context.Context, id string, g store.Guest) error
	Unconfirmed(ctx context.Context, reportID []byte) error
	ReleaseResource(ctx context.Context, id kbs.ResourceID, workload string, appraised kbs.Digest, session string) (secret.Bytes, error)
	// ReleaseSecrets is ReleaseResource of several at once.
	ReleaseSecrets(ctx context.Context, ids []kbs.ResourceID, workload string, appraised kbs.Digest, session string) ([]store.Secret, error)
	// ReleaseConfig is the workload's configuration, encoded.
	ReleaseConfig(ctx context.Context, id string, appraised kbs.Digest, session string) (secret.Bytes, error)
	// ReportGuest keeps what a guest says of why it goes no further.
	ReportGuest(ctx context.Context, id, session, refused string) error
	// OpenVolume returns a volume's key and generation, with what changes the
	// latter: ErrVolumeTaken once another guest has opened it, ErrRolledBack if the
	// volume is not as it was left.
	OpenVolume(ctx context.Context, workload, name string, appraised kbs.Digest, to store.Guest, fresh store.VolumeKey) (kbs.VolumeGrant, error)
	StageVolume(ctx context.Context, workload, name string, token secret.Bytes, r kbs.VolumeStageRequest) (uint64, error)
	ConfirmVolume(ctx context.Context, workload, name string, token secret.Bytes, r kbs.VolumeConfirmRequest) error
	VolumeRekeyed(ctx context.Context, workload, name string, token secret.Bytes) error
	// Machine is what is known of one. ErrNotFound: it was never seen.
	Machine(ctx context.Context, id string) (kbs.Machine, error)
	RecordSession(ctx context.Context, r kbs.SessionRecord, authentic bool) error
}

// Engine decides what is released, and to whom. All fields are needed.
type Engine struct {
	Store     Store
	Verifiers map[kbs.TEE]verifier.Verifier
	Clock     func() time.Time
	Rand      io.Reader
	Log       *slog.Logger
	Sessions  session.Table
	Policies  *Policies
	Slots     *budget.Slots // appraisals at once, in turn by address
	// ReleasesPerSession is how often one session may fetch its DiskKey.
	ReleasesPerSession int
	// Anchor knows whether the audit log is what its witnesses have seen.
	Anchor Anchor
	// Renewals seals what guests get secrets with after their session.
	Renewals *session.Renewals
}

// Anchor holds the store to what others have seen of its audit log, so that an
// older copy of it is noticed before a key leaves it.
type Anchor interface {
	// Ready is nil if something may be released.
	Ready() error
	// Checkpoint is the head of the log that witnesses have, a signed note of
	// C2SP tlog-checkpoint; nil: none yet.
	Checkpoint() []byte
}

// Unanchored is the Anchor of a server without witnesses.
type Unanchored struct{}

// Ready implements Anchor.
func (Unanchored) Ready() error { return nil }

// Checkpoint implements Anchor.
func (Unanchored) Checkpoint() []byte { return nil }

// Guest is a guest that asks for something.
type Guest struct {
	Session *session.Session
	Peer    string // its address, for the records
}
