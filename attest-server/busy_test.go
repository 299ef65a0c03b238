package attestserver

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ccrun/ccrun/attest-server/kbs"
	"github.com/ccrun/ccrun/attest-server/verifier"
)

type busyTEE struct{}

func (busyTEE) Verify(context.Context, kbs.Evidence, time.Time) (*verifier.Claims, error) {
	return nil, fmt.Errorf("looking up the VCEK: %w: trying again in 10s", verifier.ErrBusy)
}

// TestVendorBusy: while AMD's or Intel's service does not answer, a guest is
// told to come back, not that it was denied, and nothing is recorded.
func TestVendorBusy(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Verifiers = map[kbs.TEE]verifier.Verifier{kbs.Sample: busyTEE{}} })
	r.register("w", 1)
	client, req := r.guest("w", 1)
	_, err := client.Release(t.Context(), req)
	var p *kbs.ProblemError
	if !errors.As(err, &p) || p.Status != 503 || p.Code != kbs.CodeUnavailable {
		t.Errorf("release: %v", err)
	}
	if w, err := r.store.Workload(t.Context(), "w"); err != nil || w.Denials != 0 {
		t.Errorf("%d denials counted, %v", w.Denials, err)
	}
}
