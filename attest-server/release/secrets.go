package release

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/refusal"
	"github.com/ccrun/ccrun/attest-server/session"
	"github.com/ccrun/ccrun/attest-server/store"
	"github.com/ccrun/ccrun/secret"
)

// Secrets is what of ids the policies let the session's workload have, sealed in
// one message. They count as one resource does.
func (e *Engine) Secrets(ctx context.Context, guest Guest, ids []kbs.ResourceID) ([]byte, error) {
	if err := e.anchored(guest); err != nil {
		return nil, err
	}
	sess := guest.Session
	g, err := e.Sessions.Take(ctx, sess, session.Claim{Resource: true})
	if err != nil {
		return nil, sessionProblem(err, sess)
	}
	return e.secrets(ctx, guest, g, ids)
}

func (e *Engine) secrets(ctx context.Context, guest Guest, g session.Grant, ids []kbs.ResourceID) ([]byte, error) {
	sess := guest.Session
	all, err := e.Store.ReleaseSecrets(ctx, ids, g.WorkloadID, g.Registration, sess.ID.String())
	switch {
	case errors.Is(err, kbs.ErrTooLarge):
		return nil, &refusal.Error{Code: kbs.CodeTooLarge, Detail: "the secrets have more bytes together than a guest gets at once", Session: sess.ID.String(), Cause: err}
	case err != nil:
		return nil, releaseProblem(err, sess)
	}
	plain, given, err := encodeSecrets(all)
	if err != nil {
		return nil, err
	}
	e.Log.Info("secrets released", "session", sess.ID.String(), "workload", g.WorkloadID, "released", given, "of", len(ids), "peer", guest.Peer)
	return e.seal(g, kbs.SecretsName(g.WorkloadID), plain)
}

// encodeSecrets wipes all.
func encodeSecrets(all []store.Secret) (plain secret.Bytes, given int, err error) {
	defer store.WipeSecrets(all)
	answer := kbs.SecretsAnswer{Secrets: make([]kbs.ReleasedSecret, len(all))}
	for i, v := range all {
		answer.Secrets[i] = kbs.ReleasedSecret{Name: v.Resource.String(), Version: v.Version, Value: v.Value.Reveal()}
		switch {
		case v.Refused == nil:
			given++
		case errors.Is(v.Refused, store.ErrNotApproved):
			answer.Secrets[i].Refused = kbs.CodeForbidden
		default:
			answer.Secrets[i].Refused = kbs.CodeNotFound
		}
	}
	b, err := json.Marshal(answer)
	return secret.New(b), given, err
}
