package release

import (
	"context"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/session"
)

// Config is the sealed configuration of the session's workload. It counts as a
// resource does.
func (e *Engine) Config(ctx context.Context, guest Guest) ([]byte, error) {
	if err := e.anchored(guest); err != nil {
		return nil, err
	}
	sess := guest.Session
	g, err := e.Sessions.Take(ctx, sess, session.Claim{Resource: true})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	return e.config(ctx, guest, g)
}

func (e *Engine) config(ctx context.Context, guest Guest, g session.Grant) ([]byte, error) {
	sess := guest.Session
	raw, err := e.Store.ReleaseConfig(ctx, g.WorkloadID, g.Registration, sess.ID.String())
	if err != nil {
		return nil, releaseProblem(err, sess)
	}
	e.Log.Info("configuration released", "session", sess.ID.String(), "workload", g.WorkloadID, "peer", guest.Peer)
	return e.seal(g, kbs.ConfigName(g.WorkloadID), raw)
}

// Report keeps what the guest of the session says of why it goes no further.
func (e *Engine) Report(ctx context.Context, guest Guest, r kbs.GuestReport) error {
	sess := guest.Session
	g, err := e.Sessions.Granted(ctx, sess, session.Claim{Resource: true})
	if err != nil {
		return sessionProblem(err, sess)
	}
	e.Log.Info("guest refuses", "session", sess.ID.String(), "workload", g.WorkloadID, "peer", guest.Peer)
	return e.Store.ReportGuest(ctx, g.WorkloadID, sess.ID.String(), r.Refused)
}
