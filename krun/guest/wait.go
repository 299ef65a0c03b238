package guest

import (
	"context"
	"fmt"
	"time"
)

// deviceTimeout is how long the agent waits for a device that the host must
// provide: disk, network interface, port.
const deviceTimeout = 10 * time.Second

// waitFor calls try until it succeeds, ctx ends or limit has passed; then the
// last error is returned.
func waitFor(ctx context.Context, limit time.Duration, try func() error) error {
	deadline := time.Now().Add(limit)
	for {
		err := try()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s: %w", limit, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
