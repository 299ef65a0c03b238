// Package session opens guests' sessions and remembers what became of them.
//
// A session goes
//
//	fresh --attest--> granted --key, N times--> spent
//	              \-> denied
//
// and leaves fresh exactly once. A fresh session costs the server nothing:
// its state is the bearer, sealed, so a flood of /auth neither grows memory nor
// evicts anyone. Only attest leaves a mark, in a bounded table. Of a server
// that is alone, key and table live as long as the process: a restart voids
// every nonce. Servers that share a database share both.
package session

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/recipient"
)

// Dialect is a protocol that guests speak. All end in the same appraisal.
type Dialect string

// The dialects. Trustee and legacy share the paths under /kbs/v0 and are told
// apart by what is in the body.
const (
	Native  Dialect = "native"  // /v1
	Trustee Dialect = "trustee" // CoCo KBS protocol 0.4.0
	Legacy  Dialect = "legacy"  // virtee/reference-kbs, libkrun's old C client
)

// Dialects is every dialect, the default ones first.
func Dialects() []Dialect { return []Dialect{Native, Trustee, Legacy} }

// CheckDialects refuses what is no dialect.
func CheckDialects(all []Dialect) error {
	for _, d := range all {
		if !slices.Contains(Dialects(), d) {
			return fmt.Errorf("dialect %q, expected native, trustee or legacy", d)
		}
	}
	return nil
}

// Why a session cannot do what it asks for.
var (
	ErrExpired     = errors.New("session is unknown, expired or used")
	ErrFull        = errors.New("too many sessions have attested lately")
	ErrNotAttested = errors.New("session has not attested")
	ErrDenied      = errors.New("session was denied")
	ErrOther       = errors.New("the session is for another workload")
)

const (
	numberSize = 10
	// maxReleasedResources is how many resources a session may fetch.
	maxReleasedResources = 64
)

var numberEncoding = base32.NewEncoding("0123456789abcdefghjkmnpqrstvwxyz").WithPadding(base32.NoPadding)

// ID is a session's public number; String is what people see.
type ID [numberSize]byte

func (n ID) String() string { return numberEncoding.EncodeToString(n[:]) }

// Session is a fresh session's whole state.
type Session struct {
	// issued is since the server's start, because the wall clock may jump; or
	// since 1970, if servers share sessions.
	issued     time.Duration
	ID         ID
	Nonce      [kbs.NonceSize]byte
	Dialect    Dialect
	TEE        kbs.TEE // as the client named it; may be one of CoCo's names
	WorkloadID string  // of foreign dialects: known once the Evidence is
	named      [16]byte
}

// Named says whether a legacy session was opened for a workload.
func (s *Session) Named(workloadID string) bool { return nameHash(workloadID) == s.named }

func nameHash(workloadID string) [16]byte {
	sum := sha256.Sum256([]byte(workloadID))
	return [16]byte(sum[:16])
}

// Grant is what an attested session may fetch.
type Grant struct {
	WorkloadID   string
	Registration kbs.Digest // as appraised
	ReportData   kbs.ReportData
	Recipient    recipient.Recipient
	ReportID     []byte // of its VM; empty where the TEE has none
	Left         int    // releases of the DiskKey
	// Renewal is what secrets may be encrypted to after the session; nil: nothing.
	Renewal *RenewalKey

	resources int // releases of resources that are left
	until     time.Duration
}

// RenewalKey is the key of a guest's Evidence that its secrets may be encrypted to
// later, with what tells whether they still may.
type RenewalKey struct {
	Key      kbs.TEEKey       `json:"key"`
	Identity kbs.Digest       `json:"identity"`
	Launch   kbs.LaunchDigest `json:"launch"`
}

// Claim is what a session asks for: the DiskKey of a workload, or a resource.
type Claim struct {
	WorkloadID string
	Resource   bool
}

// left is how much of what c asks for is left.
func (g *Grant) left(c Claim) *int {
	if c.Resource {
		return &g.resources
	}
	return &g.Left
}

// covers says whether g was granted in s's dialect, for what c asks.
func (g *Grant) covers(s *Session, c Claim) bool {
	_, native := g.Recipient.(recipient.Native)
	if g.Recipient == nil || native != (s.Dialect == Native) {
		return false
	}
	if c.Resource { // only a native session knew its workload from the start
		return !native || g.WorkloadID == s.WorkloadID
	}
	return g.WorkloadID == c.WorkloadID
}

// Table remembers the sessions that attested. Every method but Size may fail
// for reasons of its own too.
type Table interface {
	// Use spends the session's nonce: of any number of callers one succeeds,
	// once. The others get ErrExpired.
	Use(ctx context.Context, s *Session) error
	// Grant lets a used session fetch its key until one more life is over.
	Grant(ctx context.Context, s *Session, g Grant) error
	// Take spends one of what the session may fetch of what c asks for. An
	// ErrOther spends nothing.
	Take(ctx context.Context, s *Session, c Claim) (Grant, error)
	// Granted is Take that spends nothing.
	Granted(ctx context.Context, s *Session, c Claim) (Grant, error)
	// Size is how many sessions are remembered, and how many of them granted.
	Size() (granted, marks int)
}
