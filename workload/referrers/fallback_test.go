package referrers

import (
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/imagetest"
)

// TestFallbackIndex: a registry without the referrers API shows others by type
// what is attached, whatever it answers while it is attached.
func TestFallbackIndex(t *testing.T) {
	subject := imgspec.Descriptor{MediaType: imgspec.MediaTypeImageManifest, Digest: digest.FromString("image"), Size: 5}
	const tagPath = "/manifests/sha256-"
	theirs := imagetest.App(t)
	foreign := imgspec.Descriptor{MediaType: imgspec.MediaTypeImageManifest, ArtifactType: "application/x-theirs", Digest: theirs.WriteLayout(t, t.TempDir()), Size: 6}
	index := func(list ...imgspec.Descriptor) []byte {
		return imagetest.JSON(t, imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageIndex, Manifests: list})
	}
	kinds := []string{TypeRecord, TypeProvenance, TypeSBOM}
	for name, c := range map[string]struct {
		api   bool
		lies  []imagetest.Lie
		first []imgspec.Descriptor
		want  int
		fails bool
	}{
		"none yet":          {want: 3},
		"theirs is there":   {first: []imgspec.Descriptor{foreign}, want: 4},
		"answers are stale": {lies: []imagetest.Lie{imagetest.Served(tagPath+subject.Digest.Encoded(), imgspec.MediaTypeImageIndex, index(foreign))}, want: 4},
		"no index":          {lies: []imagetest.Lie{imagetest.Served(tagPath+subject.Digest.Encoded(), imgspec.MediaTypeImageIndex, []byte("{}"))}, fails: true},
		"not what was sent": {lies: []imagetest.Lie{imagetest.OtherDigest("PUT", "/manifests/", foreign.Digest)}, fails: true},
		"has the API":       {api: true},
	} {
		t.Run(name, func(t *testing.T) {
			sys := imagetest.System(t)
			liar := &imagetest.Liar{}
			host := liar.Registry(t, sys, c.api)
			theirs.Upload(t, host+"/ns/app")
			url := "http://" + host + "/v2/ns/app" + tagPath + subject.Digest.Encoded()
			if c.first != nil {
				imagetest.Put(t, url, imgspec.MediaTypeImageIndex, index(c.first...))
			}
			liar.Tell(c.lies...)
			store, err := Open(sys, "docker://"+host+"/ns/app:1")
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range kinds {
				if err = Attach(t.Context(), store, subject, time.Unix(1_700_000_000, 0), Document{kind, kind, []byte(`"` + kind + `"`)}); err != nil {
					break
				}
			}
			if c.fails != (err != nil) {
				t.Fatal(err)
			}
			if c.fails {
				return
			}
			liar.Forget()
			if docs, err := Read(t.Context(), store, subject.Digest); err != nil || len(docs) != 3 {
				t.Errorf("%d documents, %v", len(docs), err)
			}
			resp, err := http.Get(url)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			var got imgspec.Index
			if c.api && resp.StatusCode == http.StatusNotFound {
				return
			}
			if err := json.Unmarshal(b, &got); err != nil || len(got.Manifests) != c.want {
				t.Fatalf("%s: %v", b, err)
			}
			for _, kind := range append(kinds, foreign.ArtifactType)[:c.want] {
				found := false
				for _, m := range got.Manifests {
					found = found || m.ArtifactType == kind && (kind == foreign.ArtifactType || m.Annotations[imgspec.AnnotationCreated] == "2023-11-14T22:13:20Z")
				}
				if !found {
					t.Errorf("no entry of type %s with its annotations: %s", kind, b)
				}
			}
		})
	}
}
