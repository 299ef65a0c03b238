package registry

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/types"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
)

// listReferrers asks host for the referrers of an image, with a password.
func listReferrers(t *testing.T, sys *types.SystemContext, host string) error {
	t.Helper()
	ref, err := docker.ParseReference("//" + host + "/app:1")
	if err != nil {
		t.Fatal(err)
	}
	sys.DockerAuthConfig = &types.DockerAuthConfig{Username: "owner", Password: "hunter2"}
	c, err := NewClient(sys, ref)
	if err != nil {
		return err
	}
	_, err = remote.Referrers(c.Repository.Digest(digest.FromString("image").String()),
		remote.WithTransport(c.Transport), remote.WithAuth(c.Auth), remote.WithContext(t.Context()))
	return err
}

// TestRegistryCertificates: a registry's CA is the one in certs.d under its
// name, and no other.
func TestRegistryCertificates(t *testing.T) {
	s := httptest.NewTLSServer(registry.New(registry.WithReferrersSupport(true)))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "https://")
	certs := t.TempDir()
	sys := &types.SystemContext{DockerPerHostCertDirPath: certs, SystemRegistriesConfPath: os.DevNull}
	if err := listReferrers(t, sys, host); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Fatalf("unknown CA: %v", err)
	}
	for _, name := range []string{"other.example", host} {
		if err := os.MkdirAll(filepath.Join(certs, name), 0o700); err != nil {
			t.Fatal(err)
		}
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
		if err := os.WriteFile(filepath.Join(certs, name, "ca.crt"), ca, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := listReferrers(t, sys, host); (err == nil) != (name == host) {
			t.Errorf("CA in certs.d/%s: %v", name, err)
		}
	}
}

// TestPlainRegistryIsRefused: who blocks TLS does not get the password, though
// the name looks local.
func TestPlainRegistryIsRefused(t *testing.T) {
	var asked atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(s.Close)
	host := strings.TrimPrefix(s.URL, "http://")
	sys := &types.SystemContext{SystemRegistriesConfPath: os.DevNull}
	if err := listReferrers(t, sys, host); !errors.Is(err, errPlainHTTP) {
		t.Errorf("error %v, expected %v", err, errPlainHTTP)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests in the clear", n)
	}
	sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	if err := listReferrers(t, sys, host); err == nil || asked.Load() == 0 {
		t.Errorf("insecure by choice: %v, %d requests", err, asked.Load())
	}
}
