package source

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containers/image/v5/transports/alltransports"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/workload/imagetest"
)

// FuzzArchive reads archives of both kinds as far as their blobs: whatever is
// in them, an error or an image, never a panic.
func FuzzArchive(f *testing.F) {
	config := `{"os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:` + strings.Repeat("0", 64) + `"]}}`
	f.Add(imagetest.Tar(f, imagetest.File{Name: "manifest.json", Content: `[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l/layer.tar"]}]`},
		imagetest.File{Name: "c.json", Content: config}, imagetest.File{Name: "l/layer.tar", Content: "x"}))
	f.Add(imagetest.Tar(f, imagetest.File{Name: "index.json", Content: `{"schemaVersion":2,"manifests":[{"digest":"sha256:` + strings.Repeat("0", 64) + `"}]}`},
		imagetest.File{Name: "blobs/sha256/" + strings.Repeat("0", 64), Content: "{}"}))
	f.Add(imagetest.Gzip(f, imagetest.Tar(f, imagetest.File{Name: "manifest.json", Content: "[]"})))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "a")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, transport := range []string{"docker-archive:", "oci-archive:"} {
			ref, err := alltransports.ParseImageName(transport + path)
			if err != nil {
				t.Fatal(err)
			}
			src, err := openArchive(t.Context(), ref, t.TempDir())
			if err != nil {
				continue
			}
			infos, err := src.LayerInfosForCopy(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, info := range append(infos, types.BlobInfo{Digest: digest.FromBytes(nil)}) {
				if rc, _, err := src.GetBlob(t.Context(), info, nil); err == nil {
					_, _ = io.Copy(io.Discard, io.LimitReader(rc, 1<<20))
					rc.Close()
				}
			}
			if err := src.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
