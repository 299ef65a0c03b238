package destination

import (
	"context"
	"errors"
	"os"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/layout"
	"github.com/ccrun/ccrun/workload/scratch"
)

// layoutImage is an image layout directory.
type layoutImage struct {
	dir, name string
	layer     *scratch.OutFile
	info      blob.Info
}

func newLayoutImage(dir, name string) (*layoutImage, error) {
	layer, err := scratch.NewOutFile(dir)
	if err != nil {
		return nil, err
	}
	return &layoutImage{dir: dir, name: name, layer: layer}, nil
}

func (d *layoutImage) Accepts() []string { return []string{imgspec.MediaTypeImageManifest} }

func (d *layoutImage) PutLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	var err error
	d.info, err = d.layer.Fill(ctx, 0, size, write)
	return d.info, err
}

func (d *layoutImage) Publish(_ context.Context, config, mf []byte) error {
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

func (d *layoutImage) Close() error { return d.layer.Close() }
