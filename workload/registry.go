package workload

import (
	"context"
	"fmt"
	"io"

	"github.com/containers/image/v5/types"
)

// registryDestination pushes to a registry, again if need be. containers/image
// sends a blob in one request whose body it cannot send twice; so the layer is
// encrypted anew for each attempt, from scratch space, under the same keys:
// its data is the same, a second copy of it is never kept.
type registryDestination struct {
	libraryDestination
	open func(context.Context) (types.ImageDestination, error)
}

func newRegistryDestination(ctx context.Context, sys *types.SystemContext, ref types.ImageReference) (destination, error) {
	d := &registryDestination{open: func(ctx context.Context) (types.ImageDestination, error) {
		return ref.NewImageDestination(ctx, sys)
	}}
	var err error
	d.temp = tempDirOf(sys)
	d.dst, err = d.open(ctx)
	return d, err
}

// pushAnswer is how many times Patience.Stall a registry may take to answer: it
// may be hashing what it was sent, or moving it to where it keeps it.
const pushAnswer = 5

// attempt repeats op, with a new client each time: an old one remembers that
// it could not reach the registry.
func (d *registryDestination) attempt(ctx context.Context, op func(context.Context, *watchdog) error) error {
	p, first := patienceOf(ctx), true
	err := p.repeat(ctx, func() error {
		if !first {
			dst, err := d.open(ctx)
			if err != nil {
				return err
			}
			_ = d.dst.Close() // of what has failed
			d.dst = dst
		}
		first = false
		watched, w := p.watch(ctx)
		defer w.rest()
		w.push, w.answer = true, pushAnswer*p.Stall
		return w.explain(op(watched, w))
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case mayPass(err):
		return hint(fmt.Errorf("pushing failed %d times: %w", p.Retries+1, err), "try again later, or raise --retry")
	}
	return err
}

func (d *registryDestination) putLayer(ctx context.Context, size int64, write layerFunc) (info blobInfo, err error) {
	err = d.attempt(ctx, func(watched context.Context, dog *watchdog) error {
		info, err = d.libraryDestination.putLayer(watched, size, func(inner context.Context, w io.Writer) error {
			out := &watchedWriter{w: w, dog: dog}
			err := write(inner, out)
			if err != nil && out.err == nil && inner.Err() == nil {
				return &lastingError{err}
			}
			return err
		})
		return err
	})
	return info, err
}

func (d *registryDestination) publish(ctx context.Context, config, manifest []byte) error {
	return d.attempt(ctx, func(ctx context.Context, _ *watchdog) error {
		return d.libraryDestination.publish(ctx, config, manifest)
	})
}

// watchedWriter writes what the registry has to take in time.
type watchedWriter struct {
	w   io.Writer
	dog *watchdog
	err error
}

func (w *watchedWriter) Write(p []byte) (n int, err error) {
	n, w.err = w.dog.write(w.w, p)
	return n, w.err
}
