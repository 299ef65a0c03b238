package workload

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/layout"
	"github.com/ccrun/ccrun/workload/scratch"
)

// layoutDestination is an image layout directory.
type layoutDestination struct {
	dir, name string
	layer     *scratch.OutFile
	info      blob.Info
}

func newLayoutDestination(dir, name string) (*layoutDestination, error) {
	layer, err := scratch.NewOutFile(dir)
	if err != nil {
		return nil, err
	}
	return &layoutDestination{dir: dir, name: name, layer: layer}, nil
}

func (d *layoutDestination) accepts() []string { return []string{imgspec.MediaTypeImageManifest} }

func (d *layoutDestination) putLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	var err error
	d.info, err = d.layer.Fill(ctx, 0, size, write)
	return d.info, err
}

func (d *layoutDestination) publish(_ context.Context, config, mf []byte) error {
	l, err := layout.Lock(d.dir)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.PutFile(d.layer, d.info.Digest); err != nil {
		return err
	}
	if err := l.Put(config, mf); err != nil {
		return err
	}
	index, err := layout.ReadIndex(d.dir)
	if errors.Is(err, os.ErrNotExist) {
		index, err = layout.NewIndex(), nil
	}
	if err != nil {
		return err
	}
	addImage(index, d.name, mf)
	return l.WriteIndex(index)
}

// addImage gives name, if any, to the image with manifest mf and no other.
func addImage(index *imgspec.Index, name string, mf []byte) {
	desc := imgspec.Descriptor{
		MediaType: imgspec.MediaTypeImageManifest, Digest: digest.FromBytes(mf), Size: int64(len(mf)),
		Platform: &imgspec.Platform{Architecture: "amd64", OS: "linux"},
	}
	if name != "" {
		desc.Annotations = map[string]string{imgspec.AnnotationRefName: name}
	}
	var list []imgspec.Descriptor
	for _, m := range index.Manifests {
		if name != "" && m.Annotations[imgspec.AnnotationRefName] == name {
			continue // the name moves to the new image
		}
		list = append(list, m)
	}
	index.Manifests = append(list, desc)
}

func (d *layoutDestination) Close() error { return d.layer.Close() }

// dirDestination is the dir: transport. The library empties the directory and
// writes all but the layer, at the last moment.
type dirDestination struct {
	sys   *types.SystemContext
	ref   types.ImageReference
	dir   string
	layer *scratch.OutFile
	info  blob.Info
}

func newDirDestination(sys *types.SystemContext, ref types.ImageReference, dir string) (*dirDestination, error) {
	layer, err := scratch.NewOutFile(dir)
	if err != nil {
		return nil, err
	}
	return &dirDestination{sys: sys, ref: ref, dir: dir, layer: layer}, nil
}

func (d *dirDestination) accepts() []string { return nil }

func (d *dirDestination) putLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	var err error
	d.info, err = d.layer.Fill(ctx, 0, size, write)
	return d.info, err
}

func (d *dirDestination) publish(ctx context.Context, config, mf []byte) error {
	dst, err := d.ref.NewImageDestination(ctx, d.sys)
	if err != nil {
		return err
	}
	lib := &libraryDestination{dst, d.dir}
	defer lib.Close()
	if err := d.layer.Publish(filepath.Join(d.dir, d.info.Digest.Encoded()), 0o644); err != nil {
		return err
	}
	return lib.publish(ctx, config, mf)
}

func (d *dirDestination) Close() error { return d.layer.Close() }
