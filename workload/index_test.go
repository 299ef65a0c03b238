package workload

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/imagetest"
)

// indexOf is a layout whose index leads to an index of two platforms, of
// which the other one comes first.
func indexOf(t *testing.T, m *imagetest.Image, edit func(*testing.T, string, imgspec.Index) imgspec.Index) string {
	t.Helper()
	dir := t.TempDir()
	d := m.WriteLayout(t, dir)
	arm := imagetest.App(t)
	arm.Config.Architecture = "arm64"
	a := arm.WriteLayout(t, dir)
	list := imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageIndex}
	for _, p := range []struct {
		d    digest.Digest
		arch string
	}{{a, "arm64"}, {d, "amd64"}} {
		st, err := os.Stat(imagetest.BlobPath(dir, p.d))
		if err != nil {
			t.Fatal(err)
		}
		list.Manifests = append(list.Manifests, imgspec.Descriptor{MediaType: imgspec.MediaTypeImageManifest, Digest: p.d, Size: st.Size(),
			Platform: &imgspec.Platform{OS: "linux", Architecture: p.arch}})
	}
	if edit != nil {
		list = edit(t, dir, list)
	}
	b := imagetest.JSON(t, list)
	imagetest.WriteFile(t, imagetest.BlobPath(dir, digest.FromBytes(b)), b)
	top := imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []imgspec.Descriptor{
		{MediaType: imgspec.MediaTypeImageIndex, Digest: digest.FromBytes(b), Size: int64(len(b))}}}
	imagetest.WriteFile(t, filepath.Join(dir, "index.json"), imagetest.JSON(t, top))
	return dir
}

// nested wraps an index in more of them, as nerdctl save does: podman#25045.
func nested(times int) func(*testing.T, string, imgspec.Index) imgspec.Index {
	return func(t *testing.T, dir string, list imgspec.Index) imgspec.Index {
		for range times {
			b := imagetest.JSON(t, list)
			imagetest.WriteFile(t, imagetest.BlobPath(dir, digest.FromBytes(b)), b)
			list.Manifests = []imgspec.Descriptor{{MediaType: imgspec.MediaTypeImageIndex, Digest: digest.FromBytes(b), Size: int64(len(b))}}
		}
		return list
	}
}

// variant is an index that has nothing for a processor of the first level:
// AlmaLinux/container-images#71.
func variant(v string) func(*testing.T, string, imgspec.Index) imgspec.Index {
	return func(_ *testing.T, _ string, list imgspec.Index) imgspec.Index {
		for i := range list.Manifests {
			list.Manifests[i].Platform.Variant = v
		}
		return list
	}
}

// TestRefusedIndexes: what cannot be chosen from is refused with a next step.
func TestRefusedIndexes(t *testing.T) {
	t.Parallel()
	for want, edit := range map[string]func(*testing.T, string, imgspec.Index) imgspec.Index{
		"at most 4": nested(4), "no image found": variant("v4"),
	} {
		o := testOptions(t, &fakeServer{})
		o.Source = "oci:" + indexOf(t, imagetest.App(t), edit)
		if _, err := Build(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %q", err, want)
		}
	}
}

// TestFirstFormat: Docker's first manifest format is refused with a way out.
func TestFirstFormat(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	imagetest.App(t).WriteLayout(t, dir)
	b := []byte(`{"schemaVersion":1,"name":"a","tag":"b","architecture":"amd64","fsLayers":[{"blobSum":"sha256:` + strings.Repeat("a", 64) + `"}],"history":[{"v1Compatibility":"{\"id\":\"` + strings.Repeat("a", 64) + `\"}"}]}`)
	imagetest.WriteFile(t, imagetest.BlobPath(dir, digest.FromBytes(b)), b)
	imagetest.WriteFile(t, filepath.Join(dir, "index.json"), imagetest.JSON(t, imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		Manifests: []imgspec.Descriptor{{MediaType: "application/vnd.docker.distribution.manifest.v1+json", Digest: digest.FromBytes(b), Size: int64(len(b))}}}))
	o := testOptions(t, &fakeServer{})
	o.Source = "oci:" + dir
	if _, err := Build(t.Context(), o); err == nil || !strings.Contains(hint.Of(err), "skopeo copy --format v2s2") {
		t.Errorf("%v, hint %q", err, hint.Of(err))
	}
}
