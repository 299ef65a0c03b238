package referrers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/registry"
)

// fallback is the index that stands for the referrers API where that is missing.
type fallback struct {
	client  *registry.Client
	options []remote.Option
	listed  []imgspec.Descriptor // by us
}

// enlist puts the artifact with this manifest into the index. By the distribution
// specification its entry has the manifest's own artifactType and annotations, by
// which others look for it; go-containerregistry gives it the configuration's type.
func (f *fallback) enlist(ctx context.Context, manifest []byte) error {
	var m imgspec.Manifest
	if err := json.Unmarshal(manifest, &m); err != nil {
		return err
	}
	f.listed = append(f.listed, imgspec.Descriptor{
		MediaType: m.MediaType, ArtifactType: m.ArtifactType,
		Digest: digest.FromBytes(manifest), Size: int64(len(manifest)), Annotations: m.Annotations,
	})
	tag := strings.Replace(m.Subject.Digest.String(), ":", "-", 1)
	index, err := f.read(ctx, tag)
	if err != nil {
		return fmt.Errorf("reading %s: %w", tag, err)
	}
	// All of ours: what the registry answers may be older than what it was sent.
	for _, d := range f.listed {
		index.Manifests = slices.DeleteFunc(index.Manifests, func(m imgspec.Descriptor) bool { return m.Digest == d.Digest })
		index.Manifests = append(index.Manifests, d)
	}
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	_, err = f.client.PutManifest(ctx, tag, imgspec.MediaTypeImageIndex, b)
	return err
}

func (f *fallback) read(ctx context.Context, tag string) (*imgspec.Index, error) {
	got, err := remote.Get(f.client.Repository.Tag(tag), append([]remote.Option{remote.WithContext(ctx)}, f.options...)...)
	var answer *transport.Error
	if errors.As(err, &answer) && answer.StatusCode == 404 {
		return &imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageIndex}, nil
	}
	if err != nil {
		return nil, err
	}
	var index imgspec.Index
	if err := json.Unmarshal(got.Manifest, &index); err != nil {
		return nil, err
	}
	if index.SchemaVersion != 2 || index.MediaType != imgspec.MediaTypeImageIndex {
		return nil, fmt.Errorf("schema version %d of type %q, expected an OCI index", index.SchemaVersion, index.MediaType)
	}
	return &index, nil
}
