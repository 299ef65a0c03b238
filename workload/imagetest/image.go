// Package imagetest makes what the tests of workload and its packages read:
// images in layouts, archives and registries, with a canary in their files.
package imagetest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Image is an image under construction.
type Image struct {
	Config imgspec.Image
	Layers []Layer
}

// Layer is one layer of an Image; its blob is made from Plain or is there already.
type Layer struct {
	MediaType   string
	Plain       []byte // uncompressed
	Blob        []byte // as stored; nil: it is there already
	Digest      digest.Digest
	Size        int64
	Annotations map[string]string
}

// App has a plain, a gzip and a zstd layer, a whiteout and a link.
func App(t testing.TB) *Image {
	base := Tar(t,
		File{Name: "bin/", Kind: tar.TypeDir, Mode: 0o755},
		File{Name: "bin/app", Content: "#!/bin/true\n" + strings.Repeat(Canary, 100), Mode: 0o755},
		File{Name: "etc/", Kind: tar.TypeDir, Mode: 0o755},
		File{Name: "etc/secret", Content: Canary},
		File{Name: "etc/old", Content: "to be removed"})
	middle := Tar(t, File{Name: "etc/.wh.old"}, File{Name: "srv/data", Content: strings.Repeat(Canary+"\n", 5000)})
	top := Tar(t, File{Name: "bin/sh", Link: "app", Kind: tar.TypeSymlink}, File{Name: "etc/new", Content: "new\n"},
		File{Name: "etc/passwd", Content: "app:x:1000:1000::/srv:/bin/app\n"})
	m := &Image{Config: imgspec.Image{
		Platform: imgspec.Platform{OS: "linux", Architecture: "amd64"},
		Config: imgspec.ImageConfig{
			Entrypoint: []string{"/bin/app"}, Cmd: []string{"--serve"}, Env: []string{"PATH=/bin", "SECRET=" + Canary},
			WorkingDir: "/srv", User: "app", StopSignal: "SIGINT",
			ExposedPorts: map[string]struct{}{"8080/tcp": {}, "53/udp": {}},
		},
		RootFS: imgspec.RootFS{Type: "layers"},
	}}
	m.Add(imgspec.MediaTypeImageLayer, base, base)
	m.Add(imgspec.MediaTypeImageLayerGzip, middle, Gzip(t, middle))
	m.Add(imgspec.MediaTypeImageLayerZstd, top, Zstd(t, top))
	return m
}

// Add puts a layer on top.
func (m *Image) Add(mediaType string, plain, blob []byte) {
	m.Config.RootFS.DiffIDs = append(m.Config.RootFS.DiffIDs, digest.FromBytes(plain))
	m.Layers = append(m.Layers, Layer{MediaType: mediaType, Plain: plain, Blob: blob})
}

// BlobPath is where a layout in dir has a blob.
func BlobPath(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs/sha256", d.Encoded())
}

// WriteLayout puts m into an image layout and returns its manifest's digest.
func (m *Image) WriteLayout(t testing.TB, dir string) digest.Digest {
	t.Helper()
	put := func(b []byte) digest.Digest {
		WriteFile(t, BlobPath(dir, digest.FromBytes(b)), b)
		return digest.FromBytes(b)
	}
	config := JSON(t, m.Config)
	mf := imgspec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageManifest,
		Config: imgspec.Descriptor{MediaType: imgspec.MediaTypeImageConfig, Digest: put(config), Size: int64(len(config))},
	}
	for _, l := range m.Layers {
		if l.Blob != nil {
			l.Digest, l.Size = put(l.Blob), int64(len(l.Blob))
		}
		mf.Layers = append(mf.Layers, imgspec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, Annotations: l.Annotations})
	}
	b := JSON(t, mf)
	index := imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []imgspec.Descriptor{
		{MediaType: imgspec.MediaTypeImageManifest, Digest: put(b), Size: int64(len(b))}}}
	WriteFile(t, filepath.Join(dir, "index.json"), JSON(t, index))
	WriteFile(t, filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"`+imgspec.ImageLayoutVersion+`"}`))
	return digest.FromBytes(b)
}

// JSON is v marshalled.
func JSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Big has one layer that does not compress.
func Big(t testing.TB, size int) (*Image, []byte) {
	t.Helper()
	b := make([]byte, size)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	m := &Image{Config: imgspec.Image{Platform: imgspec.Platform{OS: "linux", Architecture: "amd64"},
		Config: imgspec.ImageConfig{Entrypoint: []string{"/bin/app"}, User: "1"}, RootFS: imgspec.RootFS{Type: "layers"}}}
	layer := Tar(t, File{Name: "data", Content: string(b)})
	blob := Gzip(t, layer)
	m.Add(imgspec.MediaTypeImageLayerGzip, layer, blob)
	return m, blob
}

// Data is the digest of the one file in bigImage.
func (m *Image) Data(t testing.TB) digest.Digest {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(m.Layers[0].Blob))
	if err != nil {
		t.Fatal(err)
	}
	tr := tar.NewReader(z)
	if _, err := tr.Next(); err != nil {
		t.Fatal(err)
	}
	d, err := digest.FromReader(tr)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
