// Package source reads the image that a workload image is made of, wherever it
// is: what the signature policy accepts, verified to the last byte, and without
// plaintext on any disk. A layer is read twice, its headers first, which tell
// what the file system will look like, and its contents when that is written.
package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/secret"
	"github.com/ccrun/ccrun/workload/localstore"
	"github.com/ccrun/ccrun/workload/registry"
	"github.com/ccrun/ccrun/workload/rootfs"
)

// maxLayers bounds the layers of a source; engines stop at about 128.
const maxLayers = 1024

// Options say how a source is read.
type Options struct {
	System  *types.SystemContext // registries, policy, credentials
	TempDir string               // for encrypted scratch files
	Limits  rootfs.Limits        // what the source may cost
	// Passphrase opens the disk of a source that is a workload image itself:
	// then that disk's content is read. Empty: it is not one.
	Passphrase secret.Bytes
	// DecryptionKeys open the layers of a source that is encrypted; nil: none.
	DecryptionKeys *DecryptionKeys
	// Cache keeps layers for the next build; nil: all are read anew.
	Cache *LayerCache
}

// Image is an image that the signature policy has accepted: one manifest for
// linux/amd64, its configuration and its layers.
type Image struct {
	Name   string // with transport, as resolved
	Digest digest.Digest
	ID     digest.Digest // of the configuration: Podman's pushes and archives keep it
	Config *imgspec.Image
	// Healthcheck: the configuration has one, which is Docker's and not OCI's.
	Healthcheck bool
	Layers      []*Layer

	options  Options
	raw      types.ImageSource
	unparsed types.UnparsedImage // whose manifest is Digest's
}

// Close gives back what reading the source took, scratch space included.
func (s *Image) Close() error {
	var errs []error
	for _, l := range s.Layers {
		errs = append(errs, l.Close())
	}
	return errors.Join(append(errs, s.raw.Close())...)
}

// Open finds name, checks it against policy.json and reads its manifest
// and configuration. Layers are read by Tree, unless there is a Passphrase: a
// workload image's layers are read here, and replaced by one made of its disk.
func Open(ctx context.Context, name string, o Options) (*Image, error) {
	raw, err := findSource(ctx, o.System, name)
	if err != nil {
		return nil, err
	}
	var s *Image
	err = registry.PatienceFor(ctx, raw.Reference()).Do(ctx, func(ctx context.Context) error {
		s, err = readSource(ctx, o.System, raw)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading %s: %w", localstore.Name(raw.Reference()), err), raw.Close())
	}
	s.options = o
	for _, l := range s.Layers {
		l.keys = o.DecryptionKeys
	}
	if o.Passphrase.Len() > 0 {
		if err := s.unwrap(ctx, o.Passphrase, o.TempDir, o.Limits); err != nil {
			return nil, errors.Join(fmt.Errorf("reading %s: %w", s.Name, err), s.Close())
		}
	}
	return s, nil
}

// readSource applies the signature policy before it reads anything else of
// the image.
func readSource(ctx context.Context, sys *types.SystemContext, raw types.ImageSource) (*Image, error) {
	instance, err := chooseInstance(ctx, sys, raw)
	if err != nil {
		return nil, err
	}
	unparsed := image.UnparsedInstance(raw, instance)
	blob, mime, err := readManifest(ctx, unparsed)
	if err != nil {
		return nil, err
	}
	if err := allowed(ctx, sys, unparsed); err != nil {
		return nil, err
	}
	img, err := image.FromUnparsedImage(ctx, sys, unparsed)
	if err != nil {
		return nil, fmt.Errorf("reading manifest: %w", err)
	}
	if mime != imgspec.MediaTypeImageManifest && mime != manifest.DockerV2Schema2MediaType {
		return nil, hint.With(fmt.Errorf("manifest of type %q, expected an OCI or Docker schema 2 image", mime),
			"if it is Docker's first format: `skopeo copy --format v2s2` the image, and build from the copy")
	}
	s := &Image{Name: localstore.Name(raw.Reference()), Digest: digest.FromBytes(blob), ID: img.ConfigInfo().Digest, raw: raw, unparsed: unparsed}
	if s.Config, err = readConfig(ctx, img); err != nil {
		return nil, err
	}
	if s.Healthcheck, err = hasHealthcheck(ctx, img); err != nil {
		return nil, err
	}
	s.Layers, err = describeLayers(ctx, sys, raw, img, s.Config)
	return s, err
}

// readManifest reads a manifest or index whose digest, as the library checks and
// the signature policy sees it, is that of its bytes. Of Docker's first format
// the library takes away the signatures before that, and lets them say what was
// there: whoever serves an image could put any digest, one that the owner has
// signed or asked for, on any content (CVE-2026-111361). Since that format names
// no configuration, there is nothing in it that could be built either.
func readManifest(ctx context.Context, img types.UnparsedImage) ([]byte, string, error) {
	blob, mime, err := img.Manifest(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("reading manifest: %w", err)
	}
	if d, err := manifest.Digest(blob); err != nil || d != digest.FromBytes(blob) {
		return nil, "", hint.With(fmt.Errorf("manifest with signatures in it, as of Docker schema 1, has %s, expected %s", digest.FromBytes(blob), d),
			"an old image: `skopeo copy --format v2s2` it; any other: the registry, or a proxy before it, alters content")
	}
	return blob, mime, nil
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

// AllowedBy says why another policy than policy.json refuses the image, or nil.
func (s *Image) AllowedBy(ctx context.Context, policy *signature.Policy) error {
	return registry.PatienceOf(ctx).Do(ctx, func(ctx context.Context) error {
		return allowedBy(ctx, policy, s.unparsed)
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

// hasHealthcheck tells whether the configuration asks for one.
func hasHealthcheck(ctx context.Context, img types.Image) (bool, error) {
	raw, err := img.ConfigBlob(ctx)
	if err != nil {
		return false, fmt.Errorf("reading image configuration: %w", err)
	}
	return healthcheckIn(raw), nil
}

func healthcheckIn(config []byte) bool {
	var c struct {
		Config struct {
			Healthcheck struct{ Test []string }
		} `json:"config"`
	}
	if json.Unmarshal(config, &c) != nil {
		return false // in a form that nobody knows
	}
	test := c.Config.Healthcheck.Test
	return len(test) > 0 && test[0] != "NONE"
}

// SizeBytes is what the manifest says the layers have, -1 if it does not say.
func (s *Image) SizeBytes() int64 {
	var n int64
	for _, l := range s.Layers {
		if l.info.Size < 0 {
			return -1
		}
		n += l.info.Size
	}
	return n
}
