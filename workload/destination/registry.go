package destination

import (
	"context"

	"github.com/containers/image/v5/types"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/registry"
	"github.com/ccrun/ccrun/workload/scratch"
)

// registryImage pushes to a registry, again if need be: the layer by our own
// client, which can go on where it broke off, the rest by containers/image. The
// layer is encrypted anew for each attempt, from scratch space; a second copy of
// it is never kept.
type registryImage struct {
	libraryImage
	open   func(context.Context) (types.ImageDestination, error)
	client *registry.Client
}

func newRegistryImage(ctx context.Context, sys *types.SystemContext, ref types.ImageReference) (*registryImage, error) {
	d := &registryImage{open: func(ctx context.Context) (types.ImageDestination, error) {
		return ref.NewImageDestination(ctx, sys)
	}}
	var err error
	d.temp = scratch.DirOf(sys)
	if d.client, err = registry.NewClient(sys, ref); err != nil {
		return nil, err
	}
	d.dst, err = d.open(ctx)
	return d, err
}

// attempt repeats op, with a new client each time: an old one remembers that
// it could not reach the registry.
func (d *registryImage) attempt(ctx context.Context, op func(context.Context) error) error {
	first := true
	return registry.PatienceOf(ctx).Push(ctx, func(ctx context.Context) error {
		if !first {
			dst, err := d.open(ctx)
			if err != nil {
				return err
			}
			_ = d.dst.Close() // of what has failed
			d.dst = dst
		}
		first = false
		return op(ctx)
	})
}

func (d *registryImage) PutLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	return d.client.Upload(ctx, size, write)
}

func (d *registryImage) Publish(ctx context.Context, config, manifest []byte) error {
	return d.attempt(ctx, func(ctx context.Context) error {
		return d.libraryImage.Publish(ctx, config, manifest)
	})
}
