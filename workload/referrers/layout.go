package referrers

import (
	"context"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/workload/layout"
)

// layoutStore keeps referrers in an image layout: as manifests of its index,
// without a name.
type layoutStore struct{ dir string }

func (l *layoutStore) put(_ context.Context, _ digest.Digest, manifest []byte, a *Document) error {
	locked, err := layout.Lock(l.dir)
	if err != nil {
		return err
	}
	defer locked.Close()
	if err := locked.Put(manifest, a.Content, imgspec.DescriptorEmptyJSON.Data); err != nil {
		return err
	}
	index, err := layout.ReadIndex(l.dir)
	if err != nil {
		return err // the image comes first
	}
	for _, m := range index.Manifests {
		if m.Digest == digest.FromBytes(manifest) {
			return nil
		}
	}
	index.Manifests = append(index.Manifests, imgspec.Descriptor{
		MediaType: imgspec.MediaTypeImageManifest, ArtifactType: a.Type, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
	})
	return locked.WriteIndex(index)
}

func (l *layoutStore) list(context.Context, digest.Digest) ([]imgspec.Descriptor, error) {
	index, err := layout.ReadIndex(l.dir)
	if err != nil {
		return nil, err
	}
	var list []imgspec.Descriptor
	for _, m := range index.Manifests {
		if m.ArtifactType != "" {
			list = append(list, m)
		}
	}
	return list, nil
}

func (l *layoutStore) blob(_ context.Context, d imgspec.Descriptor, limit int64) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, err
	}
	b, err := bounded.File(layout.BlobPath(l.dir, d.Digest), limit)
	if err != nil {
		return nil, err
	}
	return checkBlob(d, b)
}
