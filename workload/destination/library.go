package destination

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"

	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/scratch"
)

// libraryImage is a registry, or local storage that storeImage cannot add to.
type libraryImage struct {
	dst  types.ImageDestination
	temp string // where it may put ciphertext on the way
}

func (d *libraryImage) Accepts() []string { return d.dst.SupportedManifestMIMETypes() }

func (d *libraryImage) PutLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	return blob.Pipe(ctx, write, func(r io.Reader) (blob.Info, error) {
		b, err := d.dst.PutBlob(ctx, r, types.BlobInfo{Size: size}, none.NoCache, false)
		if err != nil {
			return blob.Info{}, scratch.SpaceError(d.temp, err)
		}
		return blob.Info{Digest: b.Digest, Size: b.Size}, nil
	})
}

func (d *libraryImage) Publish(ctx context.Context, config, manifest []byte) error {
	info := types.BlobInfo{Digest: digest.FromBytes(config), Size: int64(len(config))}
	if _, err := d.dst.PutBlob(ctx, bytes.NewReader(config), info, none.NoCache, true); err != nil {
		return fmt.Errorf("writing image configuration: %w", err)
	}
	if err := d.dst.PutManifest(ctx, manifest, nil); err != nil {
		return fmt.Errorf("writing manifest: %w", err)
	}
	if err := d.dst.Commit(ctx, &written{d.dst.Reference(), manifest}); err != nil {
		return fmt.Errorf("committing image: %w", scratch.SpaceError(d.temp, err))
	}
	return nil
}

func (d *libraryImage) Close() error { return d.dst.Close() }

// written is the image just written, in the form Commit wants to see it.
type written struct {
	ref      types.ImageReference
	manifest []byte
}

func (w *written) Reference() types.ImageReference { return w.ref }

func (w *written) Manifest(context.Context) ([]byte, string, error) {
	return w.manifest, manifest.GuessMIMEType(w.manifest), nil
}

func (w *written) Signatures(context.Context) ([][]byte, error) { return nil, nil }
