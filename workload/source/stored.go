package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"
	"github.com/containers/storage/pkg/archive"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/hint"
)

// storedLayers reads layers of local storage straight from the store: the
// library's GetBlob would copy each in the clear into a temporary file. Nil
// without an error means that raw is no stored image.
func storedLayers(raw types.ImageSource, config *imgspec.Image) ([]*Layer, error) {
	t, ok := raw.Reference().Transport().(istorage.StoreTransport)
	if !ok {
		return nil, nil
	}
	store := t.GetStoreIfSet()
	if store == nil {
		return nil, errors.New("reading layers: the image's local storage is not open")
	}
	// A source's reference is resolved: it ends in "@" and the image's id.
	name := raw.Reference().StringWithinTransport()
	img, err := store.Image(name[strings.LastIndexByte(name, '@')+1:])
	if err != nil {
		return nil, fmt.Errorf("looking up stored image: %w", err)
	}
	return matchLayers(img.TopLayer, config.RootFS.DiffIDs, store.Layer, func(l *storage.Layer, number int) *Layer {
		return storedLayer(store, l, number)
	})
}

// matchLayers pairs the chain of stored layers below top with the image's
// diff ids. Layers that a partial pull put together have no digest of a tar
// stream; to read them would take a copy in the clear.
func matchLayers(top string, ids []digest.Digest, get func(string) (*storage.Layer, error), use func(*storage.Layer, int) *Layer) ([]*Layer, error) {
	refused := func(number int, problem string) error {
		return hint.With(fmt.Errorf("layer %d in local storage %s", number, problem),
			"remove the image and pull it again with enable_partial_images = \"false\" in storage.conf, or build from docker:// or oci: instead")
	}
	layers := make([]*Layer, len(ids))
	for i := len(ids) - 1; i >= 0; i-- {
		if top == "" {
			return nil, refused(i+1, "is not there")
		}
		stored, err := get(top)
		if err != nil {
			return nil, fmt.Errorf("looking up stored layer %d: %w", i+1, err)
		}
		if stored.UncompressedDigest != ids[i] {
			return nil, refused(i+1, fmt.Sprintf("has digest %q, the image says %s", stored.UncompressedDigest, ids[i]))
		}
		layers[i] = use(stored, i+1)
		top = stored.Parent
	}
	if top != "" {
		return nil, refused(1, "has another below it, which the image does not name")
	}
	return layers, nil
}

// storedLayer reads a layer in place where that can be done. Otherwise the
// store makes its tar stream, holding its lock until that is closed: then it
// is read once, into the spool.
func storedLayer(store storage.Store, stored *storage.Layer, number int) *Layer {
	l := &Layer{
		number: number,
		info:   types.BlobInfo{Digest: stored.UncompressedDigest, Size: stored.UncompressedSize},
		diffID: stored.UncompressedDigest,
		stored: true,
	}
	if t := findTree(store, stored); t != nil {
		l.local = true
		l.fetch = func(context.Context) (io.ReadCloser, error) { return t.open() }
		return l
	}
	none := archive.Uncompressed
	id := stored.ID
	l.fetch = func(context.Context) (io.ReadCloser, error) {
		return store.Diff("", id, &storage.DiffOptions{Compression: &none})
	}
	return l
}
