package workload

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/workload/scratch"
)

// layoutReferrers keeps referrers in an image layout: as manifests of its
// index, without a name.
type layoutReferrers struct{ dir string }

func (l *layoutReferrers) put(_ context.Context, manifest []byte, a *artifact) error {
	blobs := filepath.Join(l.dir, imgspec.ImageBlobsDir, "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	lock, err := os.Open(l.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", l.dir, err)
	}
	for _, b := range [][]byte{manifest, a.content, imgspec.DescriptorEmptyJSON.Data} {
		if err := scratch.IgnoreExist(scratch.WriteFile(filepath.Join(blobs, digest.FromBytes(b).Encoded()), b, 0o644)); err != nil {
			return err
		}
	}
	path := filepath.Join(l.dir, imgspec.ImageIndexFile)
	index, err := l.index()
	if err != nil {
		return err // the image comes first
	}
	for _, m := range index.Manifests {
		if m.Digest == digest.FromBytes(manifest) {
			return nil
		}
	}
	index.Manifests = append(index.Manifests, imgspec.Descriptor{
		MediaType: imgspec.MediaTypeImageManifest, ArtifactType: a.kind, Digest: digest.FromBytes(manifest), Size: int64(len(manifest)),
	})
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return scratch.ReplaceFile(path, b, 0o644)
}

func (l *layoutReferrers) index() (*imgspec.Index, error) {
	b, err := bounded.File(filepath.Join(l.dir, imgspec.ImageIndexFile), maxIndexBytes)
	if err != nil {
		return nil, err
	}
	var index imgspec.Index
	return &index, json.Unmarshal(b, &index)
}

func (l *layoutReferrers) list(context.Context, digest.Digest) ([]imgspec.Descriptor, error) {
	index, err := l.index()
	if err != nil {
		return nil, err
	}
	var list []imgspec.Descriptor
	for _, m := range index.Manifests {
		if m.ArtifactType != "" {
			list = append(list, m)
		}
	}
	return list, nil
}

func (l *layoutReferrers) blob(_ context.Context, d imgspec.Descriptor, limit int64) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, err
	}
	b, err := bounded.File(filepath.Join(l.dir, imgspec.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded()), limit)
	if err != nil {
		return nil, err
	}
	return checkBlob(d, b)
}
