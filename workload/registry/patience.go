// Package registry reads and writes blobs of a registry that may be overloaded,
// break off, stall or lie: for as long as Patience says, and no byte twice that
// the registry can spare.
package registry

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/containers/common/pkg/retry"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/types"

	"github.com/ccrun/ccrun/hint"
)

// Patience says how long a registry is waited for. The zero value means the
// defaults.
type Patience struct {
	// Stall is how long a registry may take for 64 KiB; then the connection is
	// given up and made anew. Zero: one minute.
	Stall time.Duration
	// Retries bounds attempts, after the first, that get no further. Zero: 3;
	// negative: none.
	Retries int
	// Delay passes between attempts. Zero: 1 s, doubled each time.
	Delay time.Duration
}

// progressBytes make an attempt count as one that got further.
const progressBytes = 1 << 20

func (p Patience) withDefaults() Patience {
	if p.Stall <= 0 {
		p.Stall = time.Minute
	}
	switch {
	case p.Retries == 0:
		p.Retries = 3
	case p.Retries < 0:
		p.Retries = 0
	}
	return p
}

type patienceKey struct{}

// WithPatience applies p to what is read from and written to registries under
// the context returned.
func WithPatience(ctx context.Context, p Patience) context.Context {
	return context.WithValue(ctx, patienceKey{}, p)
}

// PatienceOf is what WithPatience has set, or the defaults.
func PatienceOf(ctx context.Context) Patience {
	p, _ := ctx.Value(patienceKey{}).(Patience)
	return p.withDefaults()
}

// PatienceFor is PatienceOf for a registry, and none for what is on this
// machine.
func PatienceFor(ctx context.Context, ref types.ImageReference) Patience {
	p := PatienceOf(ctx)
	if ref.Transport().Name() != docker.Transport.Name() {
		p.Retries = 0
	}
	return p
}

func (p Patience) stalled() error {
	return hint.With(fmt.Errorf("%w: less than %d KiB in %v, %d times", errStalled, stallBytes>>10, p.Stall, p.Retries+1),
		"try again later, raise --retry, or name another mirror in registries.conf")
}

// Do calls op until it succeeds, fails for good, or has failed too often. op
// must pass on the context it is given, whose connections are watched.
//
// The library retries requests answered with 429 by itself, as Retry-After
// says.
func (p Patience) Do(ctx context.Context, op func(context.Context) error) error {
	once := func() error {
		watched, w := watch(ctx, p.Stall)
		defer w.stop()
		return w.attribute(op(watched))
	}
	err := p.repeat(ctx, once)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// UntilThere is Do for what was written a moment ago: some registries answer for
// a while as if it had not been.
func (p Patience) UntilThere(ctx context.Context, op func(context.Context) error) error {
	for n := 0; ; n++ {
		err := p.Do(ctx, op)
		if err == nil || n >= p.Retries || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(cmp.Or(p.Delay, time.Second<<min(n, 6))):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Push is do for what the registry has to take, and may take its time to keep.
func (p Patience) Push(ctx context.Context, op func(context.Context) error) error {
	err := p.repeat(ctx, func() error {
		watched, w := watchPush(ctx, p.Stall)
		defer w.stop()
		return w.attribute(op(watched))
	})
	if err != nil && ctx.Err() == nil && isTransient(err) {
		return p.pushFailed(err)
	}
	return err
}

func (p Patience) pushFailed(err error) error {
	return hint.With(fmt.Errorf("pushing failed %d times: %w", p.Retries+1, err), "try again later, or raise --retry")
}

func (p Patience) repeat(ctx context.Context, once func() error) error {
	err := retry.IfNecessary(ctx, once, &retry.Options{MaxRetry: p.Retries, Delay: p.Delay, IsErrorRetryable: isTransient})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (e *lastingError) Unwrap() error { return e.error }
