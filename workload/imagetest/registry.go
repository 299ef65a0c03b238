package imagetest

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/image/v5/types"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry is an OCI registry in this process, with a handler in front
// that may misbehave.
func Registry(t testing.TB, sys *types.SystemContext, front func(http.Handler) http.Handler) string {
	t.Helper()
	h := registry.New(registry.Logger(discard()))
	if front != nil {
		h = front(h)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	return strings.TrimPrefix(s.URL, "http://")
}

func discard() *log.Logger { return log.New(io.Discard, "", 0) }

// System is a configuration in which every image is accepted and no registry is known.
func System(t testing.TB) *types.SystemContext {
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.json")
	WriteFile(t, policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`))
	registries := filepath.Join(dir, "registries.conf")
	WriteFile(t, registries, nil)
	return &types.SystemContext{SignaturePolicyPath: policy, SystemRegistriesConfPath: registries, SystemRegistriesConfDirPath: filepath.Join(dir, "none")}
}

// Upload puts m into the registry as REPO:1.
func (m *Image) Upload(t testing.TB, repo string) {
	t.Helper()
	m.UploadWith(t, http.DefaultClient, "http://", repo)
}

// UploadWith is Upload by a client of the caller's.
func (m *Image) UploadWith(t testing.TB, c *http.Client, scheme, repo string) {
	t.Helper()
	put := func(method, url string, b []byte, mediaType string) *http.Response {
		req, err := http.NewRequest(method, url, bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", mediaType)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode/100 != 2 {
			t.Fatalf("%s %s: %s", method, url, resp.Status)
		}
		return resp
	}
	host, name, _ := strings.Cut(repo, "/")
	base := scheme + host
	dir := t.TempDir()
	d := m.WriteLayout(t, dir)
	for _, b := range append([]Layer{{Blob: JSON(t, m.Config)}}, m.Layers...) {
		put("POST", base+"/v2/"+name+"/blobs/uploads/?digest="+digest.FromBytes(b.Blob).String(), b.Blob, "application/octet-stream")
	}
	put("PUT", base+"/v2/"+name+"/manifests/1", Read(t, BlobPath(dir, d)), imgspec.MediaTypeImageManifest)
}

// Put puts a manifest or an index at url.
func Put(t testing.TB, url, mediaType string, b []byte) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", mediaType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("PUT %s: %s", url, resp.Status)
	}
}

// Fetch returns what is at url.
func Fetch(t testing.TB, url string) (mediaType string, b []byte) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err = io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v", url, resp.Status, err)
	}
	return resp.Header.Get("Content-Type"), b
}
