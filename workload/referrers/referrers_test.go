package referrers

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/imagetest"
)

// TestReferrersOfOthers: a list that names somebody else's documents.
func TestReferrersOfOthers(t *testing.T) {
	dir := t.TempDir()
	m := imagetest.App(t)
	image := m.WriteLayout(t, dir)
	store := &layoutStore{dir}
	about := func(d digest.Digest) imgspec.Descriptor {
		return imgspec.Descriptor{MediaType: imgspec.MediaTypeImageManifest, Digest: d, Size: 5}
	}
	now := time.Unix(1_700_000_000, 0)
	for _, kind := range []string{TypeRecord, TypeProvenance, TypeSBOM} {
		if err := Attach(t.Context(), store, about(image), now, Document{kind, kind, []byte(`"` + kind + `"`)}); err != nil {
			t.Fatal(err)
		}
	}
	a := Document{TypeRecord, TypeRecord, []byte("{}")}
	other, err := a.manifest(about(digest.FromString("other")), now)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.put(t.Context(), digest.FromString("other"), other, &a); err != nil {
		t.Fatal(err)
	}
	docs, err := Read(t.Context(), store, image)
	if err != nil || len(docs) != 3 {
		t.Errorf("%d documents, %v", len(docs), err)
	}
	for name, b := range map[string][]byte{"manifest": other, "configuration": []byte("{}"), "document": []byte(`"` + TypeSBOM + `"`)} {
		path := imagetest.BlobPath(dir, digest.FromBytes(b))
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		imagetest.WriteFile(t, path, append(slices.Clone(b), ' '))
		if _, err := Read(t.Context(), store, image); err == nil {
			t.Errorf("altered %s of a referrer read", name)
		}
		imagetest.WriteFile(t, path, b)
	}
}
