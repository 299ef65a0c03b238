// Package destination writes the workload image to wherever it goes: an image
// layout, an archive, a directory, a registry or local storage. What a killed
// build leaves there is ciphertext, and has no name.
package destination

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/localstore"
	"github.com/ccrun/ccrun/workload/scratch"
)

// Image takes one image in two steps, so that everything slow happens before
// registration and the name appears after it.
type Image interface {
	// Accepts lists manifest types, empty for any.
	Accepts() []string
	// PutLayer stores what write writes: exactly size bytes.
	PutLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error)
	// Publish makes the image visible under its name.
	Publish(ctx context.Context, config, manifest []byte) error
	// Close drops what was not published.
	Close() error
}

// Repeats says whether PutLayer may run write more than once, and needs the same
// bytes each time.
func Repeats(d Image) bool {
	_, ok := d.(*registryImage)
	return ok
}

// Open checks name and prepares to write there.
func Open(ctx context.Context, sys *types.SystemContext, name string) (Image, string, error) {
	ref, err := parseName(name)
	if err != nil {
		return nil, "", err
	}
	full := localstore.Name(ref)
	d, err := newImage(ctx, sys, ref)
	if err != nil {
		return nil, "", fmt.Errorf("opening destination %s: %w", full, err)
	}
	return d, full, nil
}

func newImage(ctx context.Context, sys *types.SystemContext, ref types.ImageReference) (Image, error) {
	path, image, _ := strings.Cut(ref.StringWithinTransport(), ":")
	switch ref.Transport().Name() {
	case "oci":
		return newLayoutImage(path, image)
	case "oci-archive":
		return newArchiveImage(path, image, ociArchive{})
	case "docker-archive":
		return newArchiveImage(path, image, dockerArchive{})
	case "dir":
		return newDirImage(sys, ref, path)
	case "docker":
		return newRegistryImage(ctx, sys, ref)
	}
	dst, err := ref.NewImageDestination(ctx, sys)
	if err != nil {
		return nil, err
	}
	lib := &libraryImage{dst, scratch.DirOf(sys)}
	if d := newStoreImage(ref, lib); d != nil {
		return d, nil
	}
	return lib, nil
}

// digested is a name with a digest; not a path that has an @ in it.
var digested = regexp.MustCompile(`@[A-Za-z][A-Za-z0-9+._-]*:[0-9a-fA-F]{32,}$`)

// Check refuses what nothing can be written to, before anything is looked at.
func Check(name string) error {
	t := alltransports.TransportFromImageName(name)
	if (t == nil || t.Name() == docker.Transport.Name() || t.Name() == istorage.Transport.Name()) && digested.MatchString(name) {
		return hint.With(hint.Usagef("destination %q: a digest cannot be chosen", name), "give a tag; --digestfile has the digest afterwards")
	}
	return nil
}

// parseName reads a name with a transport, or without one as a name in
// local storage, as `podman build -t` does.
func parseName(name string) (types.ImageReference, error) {
	if err := Check(name); err != nil {
		return nil, err
	}
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
	store, err := localstore.Open()
	if err != nil {
		return nil, err
	}
	return istorage.Transport.NewStoreReference(store, reference.TagNameOnly(named), "")
}
