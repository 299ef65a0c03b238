// Package referrers keeps documents about an image beside it, as OCI referrers:
// in a registry, or in an image layout with names. Provenance is signed, in an
// envelope.
package referrers

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/registry"
)

// Open is nil for a transport that cannot hold referrers: archives,
// dir:, local storage, and layouts without names, where a second manifest
// would keep readers from finding the image.
func Open(sys *types.SystemContext, name string) (Store, error) {
	if alltransports.TransportFromImageName(name) == nil {
		return nil, nil
	}
	ref, err := alltransports.ParseImageName(name)
	if err != nil {
		return nil, err
	}
	switch ref.Transport().Name() {
	case "docker":
		return newRegistryStore(sys, ref)
	case "oci":
		if dir, image, _ := strings.Cut(ref.StringWithinTransport(), ":"); image != "" {
			return &layoutStore{dir}, nil
		}
	}
	return nil, nil
}

// Attach keeps a document about the image subject.
func Attach(ctx context.Context, store Store, subject imgspec.Descriptor, created time.Time, a Document) error {
	m, err := a.manifest(subject, created)
	if err == nil {
		err = store.put(ctx, subject.Digest, m, &a)
	}
	if err != nil {
		return fmt.Errorf("attaching %s: %w", a.Type, err)
	}
	return nil
}

// Read reads every document of a known type about the image.
func Read(ctx context.Context, store Store, image digest.Digest) ([]Document, error) {
	list, err := store.list(ctx, image)
	if err != nil {
		return nil, fmt.Errorf("listing referrers: %w", err)
	}
	if len(list) > maxReferrers {
		return nil, fmt.Errorf("%d referrers, at most %d allowed", len(list), maxReferrers)
	}
	var out []Document
	for _, d := range list {
		b, err := store.blob(ctx, d, maxArtifactJSON)
		if err != nil {
			return nil, fmt.Errorf("reading referrer %s: %w", d.Digest, err)
		}
		var m imgspec.Manifest
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, fmt.Errorf("reading referrer %s: %w", d.Digest, err)
		}
		known := m.ArtifactType == TypeRecord || m.ArtifactType == TypeProvenance || m.ArtifactType == TypeSBOM
		if !known || m.Subject == nil || m.Subject.Digest != image || len(m.Layers) != 1 {
			continue // somebody else's, or not about this image whatever the list says
		}
		// The configuration says nothing, but what is not checked is not intact.
		if _, err := store.blob(ctx, m.Config, maxArtifactJSON); err != nil {
			return nil, fmt.Errorf("reading referrer %s: %w", d.Digest, err)
		}
		content, err := store.blob(ctx, m.Layers[0], registry.MaxAnswerBytes)
		if err != nil {
			return nil, fmt.Errorf("reading referrer %s: %w", d.Digest, err)
		}
		out = append(out, Document{m.ArtifactType, m.Layers[0].MediaType, content})
	}
	return out, nil
}
