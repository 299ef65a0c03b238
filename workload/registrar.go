package workload

import (
	"context"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/hint"
)

// Registrar is the server's side of a registration: *kbs.AdminClient.
type Registrar interface {
	Register(context.Context, kbs.RegisterRequest) (created bool, err error)
	// PutAgent lets the server keep the agent's segment of initrds.
	PutAgent(ctx context.Context, segment []byte) error
	Get(ctx context.Context, id string) (*kbs.WorkloadStatus, error)
	Revoke(ctx context.Context, id string) (*kbs.WorkloadStatus, error)
	Remove(ctx context.Context, id string) error
}

// registerHint adds the next step where the error itself has none.
func registerHint(err error) error {
	if hint.Of(err) != "" {
		return err
	}
	return hint.With(err, "check --server, --ca and --token-file; or build with --no-register --record FILE and register later")
}
