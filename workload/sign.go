package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/image"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/referrers"
	"github.com/ccrun/ccrun/workload/registry"
)

// sign adds a sigstore signature in the form of skopeo and podman. The library
// makes one of what it copies, so it gets the image from memory, and a copy that
// goes to the digest which that has: whatever the registry says of the name, it
// is not signed, and the name does not move. Then the signature is read back.
func (d *description) sign(ctx context.Context, sys *types.SystemContext, name string, key *referrers.SigningKey) error {
	named, pushed, err := byDigest(name, d.digest())
	if err != nil {
		return err
	}
	keyFile, passphrase := key.Sigstore()
	err = registry.PatienceOf(ctx).Do(ctx, func(ctx context.Context) error {
		return judging(signature.NewPRInsecureAcceptAnything(), func(policy *signature.PolicyContext) error {
			_, err := copy.Image(ctx, policy, pushed, &builtImage{pushed, d}, &copy.Options{
				SignBySigstorePrivateKeyFile: keyFile, SignSigstorePrivateKeyPassphrase: passphrase, SignIdentity: named,
				SourceCtx: sys, DestinationCtx: sys, ReportWriter: io.Discard, PreserveDigests: true,
			})
			return err
		})
	})
	if err != nil {
		return hint.With(fmt.Errorf("image is built, signing it: %w", err), "`skopeo standalone-sign` or another build can follow")
	}
	direct, err := registry.Direct(sys, named.Name())
	if err != nil {
		return err
	}
	return registry.PatienceOf(ctx).UntilThere(ctx, func(ctx context.Context) error {
		return checkSigned(ctx, direct, pushed, named, key)
	})
}

// byDigest is the name that others know an image in a registry by, and the one
// under which only it can be.
func byDigest(name, d string) (reference.Named, types.ImageReference, error) {
	ref, err := alltransports.ParseImageName(name)
	if err != nil {
		return nil, nil, err
	}
	named := ref.DockerReference()
	exact, err := reference.WithDigest(reference.TrimNamed(named), digest.Digest(d))
	if err != nil {
		return nil, nil, err
	}
	pushed, err := docker.NewReference(exact)
	return named, pushed, err
}

// checkSigned fails unless the registry has a signature by the key, over this
// digest and this name, as whoever pulls the image would look for it.
func checkSigned(ctx context.Context, sys *types.SystemContext, ref types.ImageReference, named reference.Named, key *referrers.SigningKey) error {
	public, err := key.PublicPEM()
	if err != nil {
		return err
	}
	match, err := signature.NewPRMExactReference(named.String())
	if err != nil {
		return err
	}
	want, err := signature.NewPRSigstoreSignedKeyData(public, match)
	if err != nil {
		return err
	}
	src, err := ref.NewImageSource(ctx, sys)
	if err == nil {
		err = errors.Join(judging(want, func(policy *signature.PolicyContext) error {
			ok, err := policy.IsRunningImageAllowed(ctx, image.UnparsedInstance(src, nil))
			if err == nil && !ok {
				err = errors.New("not allowed")
			}
			return err
		}), src.Close())
	}
	if err != nil {
		return hint.With(fmt.Errorf("image is built and signed, reading the signature back: %w", err),
			"the registry does not give back what it took: sign again, or use another registry")
	}
	return nil
}

// judging calls f with a policy of one requirement.
func judging(want signature.PolicyRequirement, f func(*signature.PolicyContext) error) error {
	policy, err := signature.NewPolicyContext(&signature.Policy{Default: signature.PolicyRequirements{want}})
	if err != nil {
		return err
	}
	return errors.Join(f(policy), policy.Destroy())
}

// builtImage is an image as it was built, for the library to copy: all but its
// layer, which the registry has.
type builtImage struct {
	types.ImageReference
	*description
}

func (b *builtImage) NewImageSource(context.Context, *types.SystemContext) (types.ImageSource, error) {
	return b, nil
}

func (b *builtImage) Reference() types.ImageReference { return b }

func (b *builtImage) Close() error { return nil }

func (b *builtImage) GetManifest(context.Context, *digest.Digest) ([]byte, string, error) {
	return b.manifest, manifest.GuessMIMEType(b.manifest), nil
}

func (b *builtImage) GetBlob(_ context.Context, info types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	if info.Digest != digest.FromBytes(b.config) {
		return nil, 0, fmt.Errorf("layer %s, which the registry took: %w", info.Digest, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(b.config)), int64(len(b.config)), nil
}

func (b *builtImage) HasThreadSafeGetBlob() bool { return true }

func (b *builtImage) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return nil, nil
}

func (b *builtImage) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return nil, nil
}
