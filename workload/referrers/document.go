package referrers

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/blob"
)

// Types of what a build attaches to its image as OCI referrers.
const (
	TypeRecord     = "application/vnd.ccrun.record.v1+json"
	TypeProvenance = "application/vnd.in-toto+json"
	TypeSBOM       = "application/spdx+json"
	TypeDSSE       = "application/vnd.dsse.envelope.v1+json"
)

// Document is one document about an image.
type Document struct {
	Type      string // artifactType
	MediaType string // of Content
	Content   []byte
}

// manifest is the artifact's own, which names the image it is about.
func (a *Document) manifest(subject imgspec.Descriptor, created time.Time) ([]byte, error) {
	return json.Marshal(imgspec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageManifest, ArtifactType: a.Type,
		Config:      imgspec.DescriptorEmptyJSON,
		Layers:      []imgspec.Descriptor{{MediaType: a.MediaType, Digest: digest.FromBytes(a.Content), Size: int64(len(a.Content))}},
		Subject:     &imgspec.Descriptor{MediaType: subject.MediaType, Digest: subject.Digest, Size: subject.Size},
		Annotations: map[string]string{imgspec.AnnotationCreated: created.UTC().Format(time.RFC3339)},
	})
}

// Store is where an image's referrers are kept.
type Store interface {
	put(ctx context.Context, subject digest.Digest, manifest []byte, a *Document) error
	// list returns the manifests that claim to be about the image.
	list(ctx context.Context, image digest.Digest) ([]imgspec.Descriptor, error)
	// blob returns at most limit bytes, checked against the digest.
	blob(ctx context.Context, d imgspec.Descriptor, limit int64) ([]byte, error)
}

// maxArtifactJSON bounds a manifest.
const maxArtifactJSON = 4 << 20

// checkBlob checks what was read against its descriptor.
func checkBlob(d imgspec.Descriptor, b []byte) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, err
	}
	if d.Digest.Algorithm().FromBytes(b) != d.Digest {
		return nil, fmt.Errorf("%s: %w", d.Digest, blob.ErrDigest)
	}
	return b, nil
}

const (
	maxReferrers = 64
)
