package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/pkg/shortnames"
	"github.com/containers/image/v5/signature"
	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/localstore"
	"github.com/ccrun/ccrun/workload/registry"
	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/scratch"
)

// maxLayers bounds the layers of a source; engines stop at about 128.
const maxLayers = 1024

// SourceOptions say how a source is read.
type SourceOptions struct {
	System  *types.SystemContext // registries, policy, credentials
	TempDir string               // for encrypted scratch files
	Limits  rootfs.Limits        // what the source may cost
	// Passphrase opens the disk of a source that is a workload image itself:
	// then that disk's content is read. Empty: it is not one.
	Passphrase secret.Bytes
	// Keys open the layers of a source that is encrypted; nil: none.
	Keys *DecryptionKeys
	// Cache keeps layers for the next build; nil: all are read anew.
	Cache *LayerCache
}

// source is an image that the signature policy has accepted: one manifest for
// linux/amd64, its configuration and its layers.
type source struct {
	name   string // with transport, as resolved
	digest digest.Digest
	config *imgspec.Image
	layers []*layer

	options  SourceOptions
	raw      types.ImageSource
	instance *digest.Digest // of an index; nil: raw is no index
}

// Close gives back what reading the source took, scratch space included.
func (s *source) Close() error {
	var errs []error
	for _, l := range s.layers {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, s.raw.Close())...)
}

// openSource finds name, checks it against policy.json and reads its manifest
// and configuration. Layers are read later, but those of a workload image that
// is to be unwrapped.
func openSource(ctx context.Context, name string, o SourceOptions) (*source, error) {
	raw, err := findSource(ctx, o.System, name)
	if err != nil {
		return nil, err
	}
	var s *source
	err = registry.PatienceFor(ctx, raw.Reference()).Do(ctx, func(ctx context.Context) error {
		s, err = readSource(ctx, o.System, raw)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading %s: %w", localstore.Name(raw.Reference()), err), raw.Close())
	}
	s.options = o
	for _, l := range s.layers {
		l.keys = o.Keys
	}
	if o.Passphrase.Len() > 0 {
		if err := s.unwrap(ctx, o.Passphrase, o.TempDir, o.Limits); err != nil {
			return nil, errors.Join(fmt.Errorf("reading %s: %w", s.name, err), s.Close())
		}
	}
	return s, nil
}

// findSource opens name by its transport, or without one looks where Podman
// looks: local storage first, then the registries of registries.conf.
func findSource(ctx context.Context, sys *types.SystemContext, name string) (types.ImageSource, error) {
	if alltransports.TransportFromImageName(name) != nil {
		if err := localstore.Need(name); err != nil {
			return nil, err
		}
		ref, err := alltransports.ParseImageName(name)
		if err != nil {
			return nil, fmt.Errorf("source %q: %w", name, err)
		}
		return openReference(ctx, sys, ref)
	}
	src, err := findLocal(ctx, sys, name)
	if src != nil || err != nil {
		return src, err
	}
	return findRemote(ctx, sys, name)
}

// openReference opens ref without plaintext in named temporary files.
func openReference(ctx context.Context, sys *types.SystemContext, ref types.ImageReference) (types.ImageSource, error) {
	var src types.ImageSource
	var err error
	if strings.HasSuffix(ref.Transport().Name(), "-archive") {
		src, err = openArchive(ctx, ref, scratch.DirOf(sys))
	} else {
		err = registry.PatienceFor(ctx, ref).Do(ctx, func(ctx context.Context) error {
			src, err = ref.NewImageSource(ctx, sys)
			return err
		})
	}
	if err == nil {
		return src, nil
	}
	err = fmt.Errorf("opening %s: %w", localstore.Name(ref), err)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, hint.With(err, "check the path")
	case errors.Is(err, istorage.ErrNoSuchImage):
		return nil, hint.With(err, "`podman images` lists what is there; `podman pull` or the docker:// transport fetches more")
	case ref.Transport().Name() == "docker":
		return nil, hint.With(err, "check the name and the network; `podman login` for a private registry; registries.conf says which ones are insecure")
	}
	return nil, err
}

// findLocal returns nil and no error when local storage does not have name.
func findLocal(ctx context.Context, sys *types.SystemContext, name string) (types.ImageSource, error) {
	store, err := localstore.Open()
	if err != nil {
		return nil, err
	}
	if img, err := store.Image(name); err == nil && strings.HasPrefix(img.ID, name) && len(name) >= 3 {
		ref, err := istorage.Transport.NewStoreReference(store, nil, img.ID)
		if err != nil {
			return nil, err
		}
		return openReference(ctx, sys, ref)
	}
	candidates, err := shortnames.ResolveLocally(sys, name)
	if err != nil {
		return nil, hint.Usagef("source %q: %w", name, err)
	}
	for _, c := range candidates {
		ref, err := istorage.Transport.NewStoreReference(store, c, "")
		if err != nil {
			return nil, err
		}
		src, err := ref.NewImageSource(ctx, sys)
		if err == nil {
			return src, nil
		}
		if !errors.Is(err, istorage.ErrNoSuchImage) && !errors.Is(err, storage.ErrImageUnknown) {
			return nil, fmt.Errorf("opening %s: %w", localstore.Name(ref), err)
		}
	}
	return nil, nil
}

func findRemote(ctx context.Context, sys *types.SystemContext, name string) (types.ImageSource, error) {
	resolved, err := shortnames.Resolve(sys, name)
	if err != nil {
		return nil, hint.With(fmt.Errorf("source %q is not in local storage: %w", name, err),
			"give a full name such as docker://registry.example/app:1, or a transport such as oci:DIR")
	}
	var errs []error
	for _, c := range resolved.PullCandidates {
		ref, err := docker.NewReference(c.Value)
		if err != nil {
			return nil, err
		}
		src, err := openReference(ctx, sys, ref)
		if err == nil {
			return src, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("source %q is not in local storage: %w", name, errors.Join(errs...))
}

// readSource applies the signature policy before it reads anything else of
// the image.
func readSource(ctx context.Context, sys *types.SystemContext, raw types.ImageSource) (*source, error) {
	instance, err := chooseInstance(ctx, sys, raw)
	if err != nil {
		return nil, err
	}
	unparsed := image.UnparsedInstance(raw, instance)
	if err := allowed(ctx, sys, unparsed); err != nil {
		return nil, err
	}
	img, err := image.FromUnparsedImage(ctx, sys, unparsed)
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %w", err)
	}
	blob, mime, err := img.Manifest(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %w", err)
	}
	if mime != imgspec.MediaTypeImageManifest && mime != manifest.DockerV2Schema2MediaType {
		return nil, fmt.Errorf("manifest of type %q, expected an OCI or Docker schema 2 image", mime)
	}
	s := &source{name: localstore.Name(raw.Reference()), raw: raw, instance: instance}
	if s.digest, err = manifest.Digest(blob); err != nil {
		return nil, err
	}
	if s.config, err = readConfig(ctx, img); err != nil {
		return nil, err
	}
	s.layers, err = describeLayers(ctx, sys, raw, img, s.config)
	return s, err
}

// chooseInstance picks the manifest for linux/amd64 out of an index.
func chooseInstance(ctx context.Context, sys *types.SystemContext, raw types.ImageSource) (*digest.Digest, error) {
	blob, mime, err := image.UnparsedInstance(raw, nil).Manifest(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %w", err)
	}
	if !manifest.MIMETypeIsMultiImage(manifest.NormalizedMIMEType(mime)) {
		return nil, nil
	}
	list, err := manifest.ListFromBlob(blob, manifest.NormalizedMIMEType(mime))
	if err != nil {
		return nil, fmt.Errorf("reading image index: %w", err)
	}
	d, err := list.ChooseInstance(sys)
	if err != nil {
		return nil, fmt.Errorf("choosing from image index: %w", err)
	}
	return &d, nil
}

func allowed(ctx context.Context, sys *types.SystemContext, img types.UnparsedImage) error {
	policy, err := signature.DefaultPolicy(sys)
	if err != nil {
		return hint.With(fmt.Errorf("reading signature policy: %w", err),
			"install containers-common (Debian: golang-github-containers-common), or write ~/.config/containers/policy.json")
	}
	if err := allowedBy(ctx, policy, img); err != nil {
		return hint.With(fmt.Errorf("signature policy refuses the image: %w", err), "see containers-policy.json(5)")
	}
	return nil
}

func allowedBy(ctx context.Context, policy *signature.Policy, img types.UnparsedImage) error {
	pc, err := signature.NewPolicyContext(policy)
	if err != nil {
		return fmt.Errorf("reading signature policy: %w", err)
	}
	ok, err := pc.IsRunningImageAllowed(ctx, img)
	if err = errors.Join(err, pc.Destroy()); err == nil && !ok {
		err = errors.New("not allowed")
	}
	return err
}

// allowedBy says why another policy than policy.json refuses the image, or nil.
func (s *source) allowedBy(ctx context.Context, policy *signature.Policy) error {
	return registry.PatienceOf(ctx).Do(ctx, func(ctx context.Context) error {
		return allowedBy(ctx, policy, image.UnparsedInstance(s.raw, s.instance))
	})
}

func readConfig(ctx context.Context, img types.Image) (*imgspec.Image, error) {
	c, err := img.OCIConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading image configuration: %w", err)
	}
	if c.OS != "linux" && c.OS != "" || c.Architecture != "amd64" && c.Architecture != "" {
		return nil, fmt.Errorf("image is for %s/%s, expected linux/amd64", c.OS, c.Architecture)
	}
	if n := len(c.RootFS.DiffIDs); n > maxLayers {
		return nil, fmt.Errorf("image of %d layers, at most %d allowed", n, maxLayers)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil {
			return nil, fmt.Errorf("reading image configuration: diff id %q: %w", d, err)
		}
	}
	return c, nil
}

// sizeBytes is what the manifest says the layers have, -1 if it does not say.
func (s *source) sizeBytes() int64 {
	var n int64
	for _, l := range s.layers {
		if l.info.Size < 0 {
			return -1
		}
		n += l.info.Size
	}
	return n
}
