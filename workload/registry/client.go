package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/docker/config"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/pkg/tlsclientconfig"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage/pkg/homedir"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/ccrun/ccrun/hint"
	_ "github.com/ccrun/ccrun/hint/set_GOFLAGS_as_in_AGENTS.md"
	"github.com/ccrun/ccrun/workload/blob"
)

// MaxAnswerBytes bounds what is read of an answer that is taken whole; layers
// are not.
const MaxAnswerBytes = 16 << 20

// Client is what go-containerregistry needs to talk to the registry
// that containers/image would talk to, in the same way.
type Client struct {
	Repository name.Repository
	Auth       authn.Authenticator
	Transport  http.RoundTripper // without authentication
}

// NewClient reads registries.conf, certs.d and the credentials for ref.
func NewClient(sys *types.SystemContext, ref types.ImageReference) (*Client, error) {
	named := ref.DockerReference()
	insecure, err := isInsecure(sys, named.Name())
	if err != nil {
		return nil, err
	}
	var opts []name.Option
	if insecure {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(named.Name(), opts...)
	if err != nil {
		return nil, err
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure}
	if err := tlsclientconfig.SetupCertificates(certDir(sys, reference.Domain(named)), tlsConfig); err != nil {
		return nil, fmt.Errorf("reading certificates for %s: %w", reference.Domain(named), err)
	}
	auth, err := credentials(sys, ref)
	if err != nil {
		return nil, err
	}
	t := tlsclientconfig.NewTransport()
	t.TLSClientConfig = tlsConfig
	return &Client{repo, auth, &boundedTransport{t, insecure}}, nil
}

func isInsecure(sys *types.SystemContext, repository string) (bool, error) {
	r, err := sysregistriesv2.FindRegistry(sys, repository)
	if err != nil {
		return false, fmt.Errorf("reading registries.conf: %w", err)
	}
	if r != nil && sys.DockerInsecureSkipTLSVerify == types.OptionalBoolUndefined {
		return r.Insecure, nil
	}
	return sys.DockerInsecureSkipTLSVerify == types.OptionalBoolTrue, nil
}

// Direct is sys for reading back what was pushed to repository: from where it
// went, not from a mirror or another location that registries.conf names for
// those who pull.
func Direct(sys *types.SystemContext, repository string) (*types.SystemContext, error) {
	insecure, err := isInsecure(sys, repository)
	direct := *sys
	direct.SystemRegistriesConfPath, direct.SystemRegistriesConfDirPath = os.DevNull, os.DevNull
	direct.DockerInsecureSkipTLSVerify = types.NewOptionalBool(insecure)
	return &direct, err
}

// certDir is where containers-certs.d(5) says that the certificates for a
// registry are; containers/image keeps this search to itself.
func certDir(sys *types.SystemContext, host string) string {
	switch {
	case sys.DockerCertPath != "":
		return sys.DockerCertPath
	case sys.DockerPerHostCertDirPath != "":
		return filepath.Join(sys.DockerPerHostCertDirPath, host)
	}
	root := sys.RootForImplicitAbsolutePaths
	var dir string
	for _, base := range []string{
		filepath.Join(homedir.Get(), ".config/containers/certs.d"),
		filepath.Join(root, "/etc/containers/certs.d"), filepath.Join(root, "/etc/docker/certs.d"),
	} {
		dir = filepath.Join(base, host)
		if _, err := os.Stat(dir); err == nil {
			break
		}
	}
	return dir // need not exist
}

func credentials(sys *types.SystemContext, ref types.ImageReference) (authn.Authenticator, error) {
	if sys.DockerBearerRegistryToken != "" {
		return authn.FromConfig(authn.AuthConfig{RegistryToken: sys.DockerBearerRegistryToken}), nil
	}
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

// errPlainHTTP refuses to speak to a registry without TLS. go-containerregistry
// would fall back to that by itself where a name looks local, and send
// credentials in the clear to whoever has blocked TLS.
var errPlainHTTP = errors.New("registry without TLS is not allowed")

// boundedTransport bounds the size of answers, which the client would read
// whole, and the time they take, for which it would wait for ever. The client
// tries again by itself when a registry is overloaded or breaks off.
type boundedTransport struct {
	next     http.RoundTripper
	insecure bool
}

// unhurried marks a request that a watchdog watches.
type unhurried struct{}

// RoundTrip implements http.RoundTripper.
func (t *boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !t.insecure {
		return nil, hint.With(errPlainHTTP, "set insecure = true for it in registries.conf, or give --tls-verify=false")
	}
	ctx, cancel := context.WithCancel(r.Context())
	limit := pushAnswer * PatienceOf(ctx).Stall
	if ctx.Value(unhurried{}) == nil {
		cancel()
		ctx, cancel = context.WithTimeoutCause(r.Context(), limit, errStalled)
	}
	resp, err := t.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		if context.Cause(ctx) == errStalled {
			err = fmt.Errorf("%w within %v: %w", errStalled, limit, err)
		}
		cancel()
		return nil, err
	}
	resp.Body = &blob.ReadCloser{Reader: io.LimitReader(resp.Body, MaxAnswerBytes+1), Closer: blob.Closers{resp.Body, closeFunc(cancel)}}
	return resp, nil
}

type closeFunc func()

// Close implements io.Closer.
func (f closeFunc) Close() error {
	f()
	return nil
}
