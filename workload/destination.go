package workload

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/pkg/blobinfocache/none"
	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/localstore"
	"github.com/ccrun/ccrun/workload/scratch"
)

// destination takes one image in two steps, so that everything slow happens
// before registration and the name appears after it.
type destination interface {
	// accepts lists manifest types, empty for any.
	accepts() []string
	// putLayer stores what write writes: exactly size bytes.
	putLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error)
	// publish makes the image visible under its name.
	publish(ctx context.Context, config, manifest []byte) error
	// Close drops what was not published.
	Close() error
}

// repeats says whether putLayer may call its function more than once.
func repeats(d destination) bool {
	_, ok := d.(*registryDestination)
	return ok
}

// openDestination checks name and prepares to write there.
func openDestination(ctx context.Context, sys *types.SystemContext, name string) (destination, string, error) {
	ref, err := parseDestination(name)
	if err != nil {
		return nil, "", err
	}
	full := localstore.Name(ref)
	d, err := newDestination(ctx, sys, ref)
	if err != nil {
		return nil, "", fmt.Errorf("opening destination %s: %w", full, err)
	}
	return d, full, nil
}

func newDestination(ctx context.Context, sys *types.SystemContext, ref types.ImageReference) (destination, error) {
	path, image, _ := strings.Cut(ref.StringWithinTransport(), ":")
	switch ref.Transport().Name() {
	case "oci":
		return newLayoutDestination(path, image)
	case "oci-archive":
		return newArchiveDestination(path, image, ociArchive{})
	case "docker-archive":
		return newArchiveDestination(path, image, dockerArchive{})
	case "dir":
		return newDirDestination(sys, ref, path)
	case "docker":
		return newRegistryDestination(ctx, sys, ref)
	}
	dst, err := ref.NewImageDestination(ctx, sys)
	if err != nil {
		return nil, err
	}
	lib := &libraryDestination{dst, scratch.DirOf(sys)}
	if d := newStoreDestination(ref, lib); d != nil {
		return d, nil
	}
	return lib, nil
}

// parseDestination reads a name with a transport, or without one as a name in
// local storage, as `podman build -t` does.
func parseDestination(name string) (types.ImageReference, error) {
	if alltransports.TransportFromImageName(name) != nil {
		if err := localstore.Need(name); err != nil {
			return nil, err
		}
		ref, err := alltransports.ParseImageName(name)
		if err != nil {
			return nil, hint.Usagef("destination %q: %w", name, err)
		}
		return ref, nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil, hint.Usagef("destination %q: %w", name, err)
	}
	if domain, _, ok := strings.Cut(name, "/"); !ok || !strings.ContainsAny(domain, ".:") && domain != "localhost" {
		if named, err = reference.ParseNormalizedNamed("localhost/" + name); err != nil {
			return nil, hint.Usagef("destination %q: %w", name, err)
		}
	}
	if _, ok := named.(reference.Digested); ok {
		return nil, hint.Usagef("destination %q: a digest cannot be chosen", name)
	}
	store, err := localstore.Open()
	if err != nil {
		return nil, err
	}
	return istorage.Transport.NewStoreReference(store, reference.TagNameOnly(named), "")
}

// libraryDestination is a registry, or local storage that storeDestination
// cannot add to.
type libraryDestination struct {
	dst  types.ImageDestination
	temp string // where it may put ciphertext on the way
}

func (d *libraryDestination) accepts() []string { return d.dst.SupportedManifestMIMETypes() }

func (d *libraryDestination) putLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	return blob.Pipe(ctx, write, func(r io.Reader) (blob.Info, error) {
		b, err := d.dst.PutBlob(ctx, r, types.BlobInfo{Size: size}, none.NoCache, false)
		if err != nil {
			return blob.Info{}, scratch.SpaceError(d.temp, err)
		}
		return blob.Info{Digest: b.Digest, Size: b.Size}, nil
	})
}

func (d *libraryDestination) publish(ctx context.Context, config, manifest []byte) error {
	info := types.BlobInfo{Digest: digest.FromBytes(config), Size: int64(len(config))}
	if _, err := d.dst.PutBlob(ctx, bytes.NewReader(config), info, none.NoCache, true); err != nil {
		return fmt.Errorf("writing image configuration: %w", err)
	}
	if err := d.dst.PutManifest(ctx, manifest, nil); err != nil {
		return fmt.Errorf("writing manifest: %w", err)
	}
	if err := d.dst.Commit(ctx, &written{d.dst.Reference(), manifest}); err != nil {
		return fmt.Errorf("committing image: %w", scratch.SpaceError(d.temp, err))
	}
	return nil
}

func (d *libraryDestination) Close() error { return d.dst.Close() }

// written is the image just written, in the form Commit wants to see it.
type written struct {
	ref      types.ImageReference
	manifest []byte
}

func (w *written) Reference() types.ImageReference { return w.ref }

func (w *written) Manifest(context.Context) ([]byte, string, error) {
	return w.manifest, manifest.GuessMIMEType(w.manifest), nil
}

func (w *written) Signatures(context.Context) ([][]byte, error) { return nil, nil }
