package workload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

// DefaultOverlap is how long the version before stays valid if nobody says. Sites
// restart before they have the new image, so that it cannot end at once; and an
// image that was replaced for a flaw must not be started for ever.
const DefaultOverlap = 30 * 24 * time.Hour

// Replacement makes a build the next version of a workload that is registered.
type Replacement struct {
	// Until is when the version before ends; nil: DefaultOverlap after the build.
	Until *time.Time
	// AtOnce ends it as soon as the new image has its name, and not before: a
	// build that is killed leaves a version that starts.
	AtOnce bool
}

// Replaced is the version that a build has replaced.
type Replaced struct {
	WorkloadID string    `json:"workload_id"` // ID@N
	Until      time.Time `json:"until"`       // when it ends
	Revoked    bool      `json:"revoked"`     // it has ended

	id      string
	version int64
	digest  kbs.Digest
	atOnce  bool
	all     []kbs.Version // that there are
}

// find is the version that is to be replaced, before anything is built.
func (r *Replacement) find(ctx context.Context, server Registrar, id string) (*Replaced, error) {
	have, err := server.Get(ctx, id)
	var p *kbs.ProblemError
	if errors.As(err, &p) && p.Code == kbs.CodeNotFound {
		return nil, hint.With(fmt.Errorf("there is no workload %s to replace", id), "leave --replace out for its first version")
	}
	if err != nil {
		return nil, registerHint(fmt.Errorf("asking the server about workload %s: %w", id, err))
	}
	canonical, err := kbs.Canonical(have.Registration)
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(DefaultOverlap).UTC().Truncate(time.Second)
	if r.Until != nil {
		until = *r.Until
	}
	return &Replaced{
		WorkloadID: kbs.VersionName(id, have.Version), Until: until,
		id: id, version: have.Version, digest: kbs.Sum384(canonical), atOnce: r.AtOnce, all: have.Versions,
	}, nil
}

// before is the version that reg replaces, or has replaced if it is the newest
// already.
func (r *Replacement) before(ctx context.Context, server Registrar, reg kbs.Registration) (*Replaced, error) {
	found, err := r.find(ctx, server, reg.WorkloadID)
	if err != nil {
		return nil, err
	}
	canonical, err := kbs.Canonical(reg)
	if err != nil {
		return nil, err
	}
	if kbs.Sum384(canonical) != found.digest {
		return found, nil
	}
	if found.version == 1 {
		return nil, hint.With(fmt.Errorf("workload %s is this record already, and replaces nothing", reg.WorkloadID), "leave --replace out")
	}
	found.version--
	found.WorkloadID = kbs.VersionName(reg.WorkloadID, found.version)
	for _, v := range found.all {
		if v.Name == found.WorkloadID && v.EndsAt != nil {
			found.Until, found.Revoked = *v.EndsAt, v.RevokedAt != nil
		}
	}
	return found, nil
}

// request is what the server is to be told; nil if nothing is replaced.
func (r *Replaced) request() *kbs.Replace {
	if r == nil {
		return nil
	}
	return &kbs.Replace{Expect: r.digest, NotAfter: r.Until}
}

// successor names what the build has registered: taking that back leaves the
// version before as it was.
func (r *Replaced) successor(id string) string {
	if r == nil {
		return id
	}
	return kbs.VersionName(id, r.version+1)
}

// end ends the version before, where it is to end at once.
func (r *Replaced) end(ctx context.Context, server Registrar) error {
	if !r.atOnce {
		return nil
	}
	if _, err := server.Revoke(ctx, r.WorkloadID); err != nil {
		return hint.With(fmt.Errorf("ending the version before: %w", err), "`ccrun workload revoke %s`; it ends by itself %s", r.WorkloadID, r.Until.Format(time.RFC3339))
	}
	r.Revoked = true
	return nil
}
