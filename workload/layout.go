package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/ccrun/ccrun/bounded"
	"github.com/ccrun/ccrun/workload/blob"
	"github.com/ccrun/ccrun/workload/scratch"
)

// maxIndexBytes bounds index.json of a layout that is added to.
const maxIndexBytes = 4 << 20

// layoutDestination writes an image layout directory itself: the library's
// writer leaves a named partial blob when killed, and loses an image when two
// builds add to one layout at once.
type layoutDestination struct {
	dir, name string
	layer     *scratch.OutFile
	info      blob.Info
}

func newLayoutDestination(dir, name string) (*layoutDestination, error) {
	layer, err := scratch.NewOutFile(dir)
	if err != nil {
		return nil, err
	}
	return &layoutDestination{dir: dir, name: name, layer: layer}, nil
}

func (d *layoutDestination) accepts() []string { return []string{imgspec.MediaTypeImageManifest} }

func (d *layoutDestination) putLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	var err error
	d.info, err = d.layer.Fill(ctx, 0, size, write)
	return d.info, err
}

func (d *layoutDestination) publish(_ context.Context, config, mf []byte) error {
	blobs := filepath.Join(d.dir, imgspec.ImageBlobsDir, "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	lock, err := os.Open(d.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", d.dir, err)
	}
	if err := scratch.IgnoreExist(d.layer.Publish(filepath.Join(blobs, d.info.Digest.Encoded()), 0o644)); err != nil {
		return err
	}
	for _, b := range [][]byte{config, mf} {
		if err := scratch.IgnoreExist(scratch.WriteFile(filepath.Join(blobs, digest.FromBytes(b).Encoded()), b, 0o644)); err != nil {
			return err
		}
	}
	return d.addToIndex(mf)
}

func (d *layoutDestination) addToIndex(mf []byte) error {
	path := filepath.Join(d.dir, imgspec.ImageIndexFile)
	index := imgspec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: imgspec.MediaTypeImageIndex}
	old, err := bounded.File(path, maxIndexBytes)
	if err == nil {
		if err := json.Unmarshal(old, &index); err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	b, err := json.Marshal(withImage(index, d.name, mf))
	if err != nil {
		return err
	}
	layout := filepath.Join(d.dir, imgspec.ImageLayoutFile)
	if err := scratch.IgnoreExist(scratch.WriteFile(layout, layoutFile(), 0o644)); err != nil {
		return err
	}
	return scratch.ReplaceFile(path, b, 0o644)
}

func layoutFile() []byte {
	return []byte(`{"imageLayoutVersion":"` + imgspec.ImageLayoutVersion + `"}`)
}

// withImage gives name, if any, to the image with manifest mf alone.
func withImage(index imgspec.Index, name string, mf []byte) imgspec.Index {
	desc := imgspec.Descriptor{
		MediaType: imgspec.MediaTypeImageManifest, Digest: digest.FromBytes(mf), Size: int64(len(mf)),
		Platform: &imgspec.Platform{Architecture: "amd64", OS: "linux"},
	}
	if name != "" {
		desc.Annotations = map[string]string{imgspec.AnnotationRefName: name}
	}
	var list []imgspec.Descriptor
	for _, m := range index.Manifests {
		if name != "" && m.Annotations[imgspec.AnnotationRefName] == name {
			continue // the name moves to the new image
		}
		list = append(list, m)
	}
	index.Manifests = append(list, desc)
	return index
}

func (d *layoutDestination) Close() error { return d.layer.Close() }

// dirDestination is the dir: transport. The library empties the directory and
// writes all but the layer, at the last moment.
type dirDestination struct {
	sys   *types.SystemContext
	ref   types.ImageReference
	dir   string
	layer *scratch.OutFile
	info  blob.Info
}

func newDirDestination(sys *types.SystemContext, ref types.ImageReference, dir string) (*dirDestination, error) {
	layer, err := scratch.NewOutFile(dir)
	if err != nil {
		return nil, err
	}
	return &dirDestination{sys: sys, ref: ref, dir: dir, layer: layer}, nil
}

func (d *dirDestination) accepts() []string { return nil }

func (d *dirDestination) putLayer(ctx context.Context, size int64, write blob.WriteFunc) (blob.Info, error) {
	var err error
	d.info, err = d.layer.Fill(ctx, 0, size, write)
	return d.info, err
}

func (d *dirDestination) publish(ctx context.Context, config, mf []byte) error {
	dst, err := d.ref.NewImageDestination(ctx, d.sys)
	if err != nil {
		return err
	}
	lib := &libraryDestination{dst, d.dir}
	defer lib.Close()
	if err := d.layer.Publish(filepath.Join(d.dir, d.info.Digest.Encoded()), 0o644); err != nil {
		return err
	}
	return lib.publish(ctx, config, mf)
}

func (d *dirDestination) Close() error { return d.layer.Close() }
