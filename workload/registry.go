package workload

import (
	"context"
	"fmt"
	"io"

	"github.com/containers/image/v5/types"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/scratch"
)

// registryDestination pushes to a registry, again if need be: the layer with
// an upload, which can go on where it broke off, the rest by containers/image.
// The layer is encrypted anew for each attempt, from scratch space; a second
// copy of it is never kept.
type registryDestination struct {
	libraryDestination
	open   func(context.Context) (types.ImageDestination, error)
	client *registryClient
}

func newRegistryDestination(ctx context.Context, sys *types.SystemContext, ref types.ImageReference) (destination, error) {
	d := &registryDestination{open: func(ctx context.Context) (types.ImageDestination, error) {
		return ref.NewImageDestination(ctx, sys)
	}}
	var err error
	d.temp = scratch.DirOf(sys)
	if d.client, err = newRegistryClient(sys, ref); err != nil {
		return nil, err
	}
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
		return p.pushFailed(err)
	}
	return err
}

func (p Patience) pushFailed(err error) error {
	return hint.With(fmt.Errorf("pushing failed %d times: %w", p.Retries+1, err), "try again later, or raise --retry")
}

func (d *registryDestination) putLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	u := &upload{client: d.client, patience: patienceOf(ctx), size: size, write: write}
	return u.run(ctx)
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
