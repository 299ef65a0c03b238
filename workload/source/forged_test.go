package source

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/containers/image/v5/manifest"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/imagetest"
)

// TestForgedManifest: a registry that serves one manifest under another's
// digest, by what the image library makes of the signatures of Docker's first
// format (CVE-2026-111361). The digest is that of the bytes that are read.
func TestForgedManifest(t *testing.T) {
	genuine, evil := imagetest.App(t), imagetest.App(t)
	evil.Config.Config.Cmd = []string{"--evil"}
	manifestOf := func(m *imagetest.Image) []byte {
		dir := t.TempDir()
		return imagetest.Read(t, imagetest.BlobPath(dir, m.WriteLayout(t, dir)))
	}
	want := manifestOf(genuine)
	index := func(mf []byte) []byte {
		return imagetest.JSON(t, imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageIndex,
			Manifests: []imgspec.Descriptor{{MediaType: imgspec.MediaTypeImageManifest, Digest: digest.FromBytes(mf), Size: int64(len(mf)),
				Platform: &imgspec.Platform{OS: "linux", Architecture: "amd64"}}}})
	}
	for name, c := range map[string]struct {
		kind          string
		forged, means []byte
		nested        bool // served in an honest index
	}{
		"manifest":        {imgspec.MediaTypeImageManifest, manifestOf(evil), want, false},
		"index":           {imgspec.MediaTypeImageIndex, index(manifestOf(evil)), index(want), false},
		"entry of a list": {imgspec.MediaTypeImageManifest, manifestOf(evil), want, true},
	} {
		t.Run(name, func(t *testing.T) {
			forged := imagetest.Forged(t, c.forged, c.means)
			if d, err := manifest.Digest(forged); err != nil || d != digest.FromBytes(c.means) || !json.Valid(forged) {
				t.Logf("the library is mended: it gives %s (%v), forged was %s", d, err, digest.FromBytes(c.means))
			}
			sys := imagetest.System(t)
			liar := &imagetest.Liar{}
			repo := liar.Registry(t, sys, false) + "/app"
			genuine.Upload(t, repo)
			evil.Upload(t, repo)
			asked := digest.FromBytes(c.means)
			liar.Tell(imagetest.Served("/manifests/"+asked.String(), c.kind, forged), imagetest.Served("/manifests/tag", c.kind, forged))
			names := []string{repo + "@" + asked.String(), repo + ":tag"}
			if c.nested {
				list := index(want)
				liar.Tell(imagetest.Served("/manifests/list", imgspec.MediaTypeImageIndex, list))
				names = []string{repo + ":list"}
			}
			for _, n := range names {
				s, err := Open(t.Context(), "docker://"+n, Options{System: sys})
				if err == nil {
					t.Errorf("%s: opened as %s, which runs %v", n, s.Digest, s.Config.Config.Cmd)
					s.Close()
				} else if !strings.Contains(err.Error(), "manifest") {
					t.Errorf("%s: refused for another reason: %v", n, err)
				}
			}
		})
	}
}
