package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"

	"github.com/containers/image/v5/pkg/blobinfocache/none"
	"github.com/containers/image/v5/pkg/compression"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/registry"
	"github.com/ccrun/ccrun/workload/rootfs"
	"github.com/ccrun/ccrun/workload/scratch"
)

// Layer is one layer of an Image. Before its first Open it is prepared: an
// uncompressed local blob stays where it is, everything else goes, verified
// and decompressed, into an encrypted spool.
type Layer struct {
	number int // from 1, for messages
	info   types.BlobInfo
	diffID digest.Digest
	local  bool            // the blob can be read again at no cost
	stored bool            // made anew by local storage
	keys   *DecryptionKeys // nil: none given
	fetch  func(context.Context) (io.ReadCloser, error)

	cache *openCache     // nil: none
	entry *cacheEntry    // what the spool will be in the cache
	found *scratch.Spool // what the cache had

	keep  bool // the spool will be read again
	index *rootfs.Index
	spool *scratch.Spool
	mu    sync.Mutex
	bad   error // what a reader found
	whole bool  // its use has been verified to the end
}

// describeLayers pairs the manifest's blobs with the configuration's diff ids.
func describeLayers(ctx context.Context, sys *types.SystemContext, raw types.ImageSource, img types.Image, config *imgspec.Image) ([]*Layer, error) {
	if ls, err := storedLayers(raw, config); ls != nil || err != nil {
		return ls, err
	}
	infos, err := img.LayerInfosForCopy(ctx)
	if err != nil {
		return nil, fmt.Errorf("reading layers: %w", err)
	}
	if infos == nil {
		infos = img.LayerInfos()
	}
	if len(infos) != len(config.RootFS.DiffIDs) {
		return nil, fmt.Errorf("manifest has %d layers, configuration has %d diff ids", len(infos), len(config.RootFS.DiffIDs))
	}
	name := raw.Reference().Transport().Name()
	local := name == "oci" || name == "dir" || strings.HasSuffix(name, "-archive")
	layers := make([]*Layer, len(infos))
	for i, info := range infos {
		layers[i] = &Layer{number: i + 1, info: info, diffID: config.RootFS.DiffIDs[i], local: local,
			fetch: func(ctx context.Context) (io.ReadCloser, error) {
				if name == "docker" {
					return registry.OpenBlob(ctx, raw, info)
				}
				rc, _, err := raw.GetBlob(ctx, info, none.NoCache)
				return rc, err
			}}
	}
	return layers, nil
}

// prepare reads the layer once: its tar headers into index, and the whole of
// it into a spool in dir if it cannot be read in place later.
func (l *Layer) prepare(ctx context.Context, dir string, limits rootfs.Limits, progress func(int64)) error {
	if l.index != nil {
		return nil // made from a workload disk
	}
	if l.cacheable() && l.recall(ctx, limits) {
		progress(l.info.Size)
		return nil
	}
	rc, err := l.fetch(ctx)
	if err != nil {
		return l.Wrap(err)
	}
	defer rc.Close()
	if file, ok := rc.(io.ReadSeeker); ok && l.local && l.info.Digest == l.diffID {
		if err := l.scanInPlace(ctx, file, limits, progress); err != nil {
			return l.Wrap(err)
		}
		return nil
	}
	content, err := l.decrypt(blob.NewReader(ctx, &blob.Counter{R: rc, Count: progress}, l.info.Digest, l.info.Size))
	if err != nil {
		return l.Wrap(err)
	}
	decompress, stream, err := compression.DetectCompression(content)
	switch {
	case err != nil:
	case decompress == nil && l.encrypted():
		err = l.fill(ctx, dir, stream, stored, limits)
	case decompress == nil && l.info.Digest != l.diffID:
		err = fmt.Errorf("%w: the configuration says %s", blob.ErrDigest, l.diffID)
	case decompress == nil && l.local:
		l.index, err = rootfs.Scan(ctx, stream, limits)
	default:
		err = l.fill(ctx, dir, stream, decompress, limits)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, stream) // to its end, where the digest is checked
	}
	if err != nil {
		return l.Wrap(errors.Join(err, l.Close()))
	}
	return nil
}

// scanInPlace reads the headers of an uncompressed local blob and skips the
// rest. Open's reader finds out whether that was the right blob: it sees every
// byte, and must meet the same headers again.
func (l *Layer) scanInPlace(ctx context.Context, file io.ReadSeeker, limits rootfs.Limits, progress func(int64)) error {
	size, err := file.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		return err
	}
	if l.info.Size >= 0 && size != l.info.Size {
		return hint.With(fmt.Errorf("%w: %d bytes, the manifest says %d", blob.ErrDigest, size, l.info.Size), "fetch the source again")
	}
	l.index, err = rootfs.Scan(ctx, file, limits)
	progress(size)
	return err
}

// Stream reads the layer once, decompressed and verified, without a spool.
func (l *Layer) Stream(ctx context.Context) (io.ReadCloser, error) {
	rc, err := l.fetch(ctx)
	if err != nil {
		return nil, l.Wrap(err)
	}
	content, err := l.decrypt(blob.NewReader(ctx, rc, l.info.Digest, l.info.Size))
	if err != nil {
		return nil, l.Wrap(errors.Join(err, rc.Close()))
	}
	decompress, plain, err := compression.DetectCompression(content)
	if err != nil {
		return nil, l.Wrap(errors.Join(err, rc.Close()))
	}
	if decompress == nil && !l.encrypted() && l.info.Digest == l.diffID {
		return &layerReader{l: l, v: plain, c: rc}, nil // content is checked for that digest
	}
	if decompress == nil {
		return &layerReader{l: l, v: blob.NewReader(ctx, plain, l.diffID, -1), c: rc}, nil
	}
	d, err := decompress(plain)
	if err != nil {
		return nil, l.Wrap(errors.Join(fmt.Errorf("decompressing: %w", err), rc.Close()))
	}
	return &layerReader{l: l, v: blob.NewReader(ctx, d, l.diffID, -1), c: blob.Closers{d, rc}}, nil
}

// fill spools the stream, reading its tar headers on the way.
func (l *Layer) fill(ctx context.Context, dir string, stream io.Reader, decompress compression.DecompressorFunc, limits rootfs.Limits) error {
	s, err := l.newSpool(dir)
	if err != nil {
		return err
	}
	l.spool = s
	if decompress != nil {
		plain, err := decompress(stream)
		if err != nil {
			return fmt.Errorf("decompressing: %w", err)
		}
		defer plain.Close()
		stream = blob.NewReader(ctx, plain, l.diffID, -1)
	}
	w := s.Writer()
	if l.index, err = rootfs.Scan(ctx, io.TeeReader(stream, w), limits); err != nil {
		return err
	}
	l.whole = true
	return w.Close()
}

// Digest is what the manifest calls the layer.
func (l *Layer) Digest() digest.Digest { return l.info.Digest }

// Wrap says of an error which layer it is about.
func (l *Layer) Wrap(err error) error {
	damaged := l.found != nil && errors.Is(err, blob.ErrDigest)
	err = fmt.Errorf("layer %d (%s): %w", l.number, l.info.Digest, err)
	if l.stored && (errors.Is(err, blob.ErrDigest) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, fs.ErrNotExist)) {
		return hint.With(err, "local storage cannot give back every layer as it was (files with holes, whiteouts with content; "+
			"podman save fails, too): build from docker:// or oci: instead")
	}
	if damaged {
		return hint.With(err, "the copy in the layer cache was damaged and is removed: build again")
	}
	return err
}

// Open returns the uncompressed tar stream. Every byte that is not from the
// spool is verified on its way; verified tells whether all of it was right.
func (l *Layer) Open(ctx context.Context) (io.ReadCloser, error) {
	if l.spool != nil {
		if l.keep || l.entry != nil {
			return l.spool.Reader(), nil
		}
		return l.spool.LastReader(), nil
	}
	rc, err := l.fetch(ctx)
	if err != nil {
		return nil, l.Wrap(err)
	}
	return &layerReader{l: l, v: blob.NewReader(ctx, rc, l.diffID, -1), c: rc}, nil
}

// rewind makes the layer ready to be read once more.
func (l *Layer) rewind() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad = nil
}

// verified says, once every reader is closed, whether what they got was the
// layer that the manifest names.
func (l *Layer) verified() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.bad != nil:
		return l.Wrap(l.bad)
	case !l.whole:
		return l.Wrap(errors.New("was not read to its end"))
	}
	return nil
}

// Close frees the spool.
func (l *Layer) Close() error {
	err := l.forget()
	if l.spool == nil {
		return err
	}
	s, e := l.spool, l.entry
	l.spool, l.entry = nil, nil
	if e != nil {
		return errors.Join(err, e.out.Close())
	}
	return errors.Join(err, s.Close())
}
