package referrers

import (
	"context"
	"fmt"
	"strings"

	"github.com/containers/image/v5/types"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	ggcr "github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/workload/registry"
)

// registryStore keeps referrers in a registry: by the referrers API, or under
// the fallback tag where there is none. containers/image can do neither.
type registryStore struct {
	client   *registry.Client
	repo     name.Repository
	options  []remote.Option
	fallback *fallback
}

func newRegistryStore(sys *types.SystemContext, ref types.ImageReference) (*registryStore, error) {
	c, err := registry.NewClient(sys, ref)
	if err != nil {
		return nil, err
	}
	options := []remote.Option{remote.WithTransport(c.Transport), remote.WithAuth(c.Auth), remote.WithUserAgent(sys.DockerRegistryUserAgent)}
	return &registryStore{c, c.Repository, options, &fallback{client: c, options: options}}, nil
}

func (s *registryStore) with(ctx context.Context) []remote.Option {
	return append([]remote.Option{remote.WithContext(ctx)}, s.options...)
}

func (s *registryStore) put(ctx context.Context, subject digest.Digest, manifest []byte, a *Document) error {
	for _, b := range []struct {
		content   []byte
		mediaType string
	}{{imgspec.DescriptorEmptyJSON.Data, imgspec.MediaTypeEmptyJSON}, {a.Content, a.MediaType}} {
		if err := remote.WriteLayer(s.repo, static.NewLayer(b.content, ggcr.MediaType(b.mediaType)), s.with(ctx)...); err != nil {
			return err
		}
	}
	listed, err := s.client.PutManifest(ctx, digest.FromBytes(manifest).String(), imgspec.MediaTypeImageManifest, manifest)
	if err != nil || listed {
		return err
	}
	if listed, err = s.client.ListsReferrers(ctx, subject); err != nil || listed {
		return err
	}
	return s.fallback.enlist(ctx, manifest)
}

func (s *registryStore) list(ctx context.Context, image digest.Digest) ([]imgspec.Descriptor, error) {
	index, err := remote.Referrers(s.repo.Digest(image.String()), s.with(ctx)...)
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var list []imgspec.Descriptor
	for _, d := range m.Manifests {
		list = append(list, imgspec.Descriptor{MediaType: string(d.MediaType), Digest: digest.Digest(d.Digest.String()), Size: d.Size, ArtifactType: d.ArtifactType})
	}
	return list, nil
}

func (s *registryStore) blob(ctx context.Context, d imgspec.Descriptor, limit int64) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, err
	}
	if _, err := v1.NewHash(d.Digest.String()); err != nil {
		return nil, err
	}
	if d.Size > limit {
		return nil, fmt.Errorf("%d bytes, at most %d allowed", d.Size, limit)
	}
	ref := s.repo.Digest(d.Digest.String())
	if strings.HasSuffix(d.MediaType, ".manifest.v1+json") {
		got, err := remote.Get(ref, s.with(ctx)...)
		if err != nil {
			return nil, err
		}
		return checkBlob(d, got.Manifest)
	}
	l, err := remote.Layer(ref, s.with(ctx)...)
	if err != nil {
		return nil, err
	}
	rc, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b, err := bounded.Read(rc, d.Digest.String(), limit)
	if err != nil {
		return nil, err
	}
	return checkBlob(d, b)
}
