package source

import (
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/containers/storage"
	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/blob"
)

// TestStoredLayerHint: where local storage gives a layer back otherwise than it
// was (tar-split#21), to fetch it again does not help.
func TestStoredLayerHint(t *testing.T) {
	for _, err := range []error{blob.ErrDigest, io.ErrUnexpectedEOF, fs.ErrNotExist} {
		err = hint.With(err, "fetch the source again")
		if got := hint.Of((&Layer{stored: true}).Wrap(err)); !strings.Contains(got, "docker://") {
			t.Errorf("%v: hint %q", err, got)
		}
		if got := hint.Of((&Layer{}).Wrap(err)); strings.Contains(got, "docker://") {
			t.Errorf("a layer from elsewhere: hint %q", got)
		}
	}
}

// TestMatchLayers: what does not map one to one is refused, never read by a
// way that writes plaintext to a disk.
func TestMatchLayers(t *testing.T) {
	a, b := digest.FromString("a"), digest.FromString("b")
	for name, c := range map[string]struct {
		stored []storage.Layer // top first
		want   string
	}{
		"matching":       {[]storage.Layer{{UncompressedDigest: b}, {UncompressedDigest: a}}, ""},
		"partial pull":   {[]storage.Layer{{TOCDigest: b}, {UncompressedDigest: a}}, "layer 2"},
		"swapped":        {[]storage.Layer{{UncompressedDigest: a}, {UncompressedDigest: b}}, "layer 2"},
		"one is missing": {[]storage.Layer{{UncompressedDigest: b}}, "layer 1 in local storage is not there"},
		"one too many":   {[]storage.Layer{{UncompressedDigest: b}, {UncompressedDigest: a}, {UncompressedDigest: a}}, "layer 1 in local storage has another below it"},
	} {
		store := map[string]*storage.Layer{}
		names := []string{"top", "middle", "bottom", ""}
		for i := range c.stored {
			l := c.stored[i]
			if i+1 < len(c.stored) {
				l.Parent = names[i+1]
			}
			store[names[i]] = &l
		}
		get := func(id string) (*storage.Layer, error) { return store[id], nil }
		use := func(l *storage.Layer, number int) *Layer { return &Layer{number: number, diffID: l.UncompressedDigest} }
		layers, err := matchLayers("top", []digest.Digest{a, b}, get, use)
		if c.want == "" {
			if err != nil || len(layers) != 2 || layers[0].diffID != a || layers[1].number != 2 {
				t.Errorf("%s: %v, %v", name, layers, err)
			}
			continue
		}
		if layers != nil || err == nil || !strings.Contains(err.Error(), c.want) || hint.Of(err) == "" {
			t.Errorf("%s: %v, %v, expected %q and a hint", name, layers, err, c.want)
		}
	}
}
