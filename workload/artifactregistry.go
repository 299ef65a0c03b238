package workload

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containers/image/v5/pkg/docker/config"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/pkg/tlsclientconfig"
	"github.com/containers/image/v5/types"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	ggcr "github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
)

// registryReferrers keeps referrers in a registry: by the referrers API, or
// under the fallback tag where there is none. containers/image has no way to
// do either; this is the one file that uses go-containerregistry.
type registryReferrers struct {
	repo    name.Repository
	options []remote.Option
}

func newRegistryReferrers(sys *types.SystemContext, ref types.ImageReference) (*registryReferrers, error) {
	named := ref.DockerReference()
	insecure := sys.DockerInsecureSkipTLSVerify == types.OptionalBoolTrue
	if r, err := sysregistriesv2.FindRegistry(sys, named.Name()); err != nil {
		return nil, fmt.Errorf("reading registries.conf: %w", err)
	} else if r != nil && sys.DockerInsecureSkipTLSVerify == types.OptionalBoolUndefined {
		insecure = r.Insecure
	}
	var opts []name.Option
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure}
	if insecure {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(named.Name(), opts...)
	if err != nil {
		return nil, err
	}
	if sys.DockerCertPath != "" {
		if err := tlsclientconfig.SetupCertificates(sys.DockerCertPath, tlsConfig); err != nil {
			return nil, err
		}
	}
	auth, err := credentials(sys, ref)
	if err != nil {
		return nil, err
	}
	t := tlsclientconfig.NewTransport()
	t.TLSClientConfig = tlsConfig
	return &registryReferrers{repo, []remote.Option{
		remote.WithTransport(&boundedTransport{t}), remote.WithAuth(auth), remote.WithUserAgent(sys.DockerRegistryUserAgent),
	}}, nil
}

func credentials(sys *types.SystemContext, ref types.ImageReference) (authn.Authenticator, error) {
	c := sys.DockerAuthConfig
	if c == nil {
		found, err := config.GetCredentialsForRef(sys, ref.DockerReference())
		if err != nil {
			return nil, fmt.Errorf("reading registry credentials: %w", err)
		}
		c = &found
	}
	if c.Username == "" && c.IdentityToken == "" {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: c.Username, Password: c.Password, IdentityToken: c.IdentityToken}), nil
}

// boundedTransport cuts answers off, by size and by time: the client reads
// lists whole, and waits for ever. It tries again by itself when a registry is
// overloaded or breaks off.
type boundedTransport struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t *boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	p := patienceOf(r.Context())
	ctx, cancel := context.WithTimeoutCause(r.Context(), pushAnswer*p.Stall, errStalled)
	resp, err := t.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		if context.Cause(ctx) == errStalled {
			err = fmt.Errorf("%w within %v: %w", errStalled, pushAnswer*p.Stall, err)
		}
		cancel()
		return nil, err
	}
	resp.Body = &section{io.LimitReader(resp.Body, maxArtifactBytes+1), closers{resp.Body, closeFunc(cancel)}}
	return resp, nil
}

type closeFunc func()

// Close implements io.Closer.
func (f closeFunc) Close() error {
	f()
	return nil
}

func (s *registryReferrers) with(ctx context.Context) []remote.Option {
	return append([]remote.Option{remote.WithContext(ctx)}, s.options...)
}

// rawManifest is a manifest as it is.
type rawManifest []byte

// RawManifest implements remote.Taggable.
func (m rawManifest) RawManifest() ([]byte, error) { return m, nil }

// MediaType makes remote.Put send the right one.
func (m rawManifest) MediaType() (ggcr.MediaType, error) { return ggcr.OCIManifestSchema1, nil }

func (s *registryReferrers) put(ctx context.Context, manifest []byte, a *artifact) error {
	for _, b := range []struct {
		content   []byte
		mediaType string
	}{{imgspec.DescriptorEmptyJSON.Data, imgspec.MediaTypeEmptyJSON}, {a.content, a.mediaType}} {
		if err := remote.WriteLayer(s.repo, static.NewLayer(b.content, ggcr.MediaType(b.mediaType)), s.with(ctx)...); err != nil {
			return err
		}
	}
	return remote.Put(s.repo.Digest(sha256Of(manifest).String()), rawManifest(manifest), s.with(ctx)...)
}

func (s *registryReferrers) list(ctx context.Context, image digest.Digest) ([]imgspec.Descriptor, error) {
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

func (s *registryReferrers) blob(ctx context.Context, d imgspec.Descriptor, limit int64) ([]byte, error) {
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
	b, err := readLimited(rc, limit)
	if err != nil {
		return nil, err
	}
	return checkBlob(d, b)
}
