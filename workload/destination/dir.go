package destination

import (
	"context"
	"path/filepath"

	"github.com/containers/image/v5/types"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/scratch"
)

// dirImage is the dir: transport. The library empties the directory and
// writes all but the layer, at the last moment.
type dirImage struct {
	sys   *types.SystemContext
	ref   types.ImageReference
	dir   string
	layer *scratch.OutFile
	info  blob.Info
}

func newDirImage(sys *types.SystemContext, ref types.ImageReference, dir string) (*dirImage, error) {
	layer, err := scratch.NewOutFile(dir)
	if err != nil {
		return nil, err
	}
	return &dirImage{sys: sys, ref: ref, dir: dir, layer: layer}, nil
}

func (d *dirImage) Accepts() []string { return nil }

func (d *dirImage) PutLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	var err error
	d.info, err = d.layer.Fill(ctx, 0, size, write)
	return d.info, err
}

func (d *dirImage) Publish(ctx context.Context, config, mf []byte) error {
	dst, err := d.ref.NewImageDestination(ctx, d.sys)
	if err != nil {
		return err
	}
	lib := &libraryImage{dst, d.dir}
	defer lib.Close()
	if err := d.layer.Publish(filepath.Join(d.dir, d.info.Digest.Encoded()), 0o644); err != nil {
		return err
	}
	return lib.Publish(ctx, config, mf)
}

func (d *dirImage) Close() error { return d.layer.Close() }
