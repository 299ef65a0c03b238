package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/pkg/compression"
	"github.com/containers/image/v5/types"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/hint"
	"github.com/ccrun/ccrun/workload/blob"
)

// archiveSource is an image in an oci-archive: or docker-archive: file.
type archiveSource struct {
	ref      types.ImageReference
	tar      *tarIndex
	manifest []byte
	mime     string
	blobs    map[digest.Digest]string // docker-archive: where they are
	infos    []types.BlobInfo         // docker-archive: layers as GetBlob gives them
}

// openArchive opens ref, of one of the archive transports.
func openArchive(ctx context.Context, ref types.ImageReference, tempDir string) (types.ImageSource, error) {
	name, image, _ := strings.Cut(ref.StringWithinTransport(), ":")
	t, err := openTarIndex(ctx, name, tempDir)
	if err != nil {
		return nil, err
	}
	s := &archiveSource{ref: ref, tar: t}
	if ref.Transport().Name() == "oci-archive" {
		err = s.readIndex(image)
	} else {
		err = s.readDockerManifest(image)
	}
	if err != nil {
		return nil, errors.Join(err, t.close())
	}
	return s, nil
}

// readIndex finds the image with that name, or the only one, in an archived
// image layout.
func (s *archiveSource) readIndex(image string) error {
	b, err := s.tar.bytes(imgspec.ImageIndexFile)
	if err != nil {
		return err
	}
	var index imgspec.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return fmt.Errorf("reading %s: %w", imgspec.ImageIndexFile, err)
	}
	var found []imgspec.Descriptor
	for _, m := range index.Manifests {
		if image == "" || m.Annotations[imgspec.AnnotationRefName] == image {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		return hint.With(fmt.Errorf("%d images named %q in the archive, expected 1", len(found), image), "name one: oci-archive:FILE:NAME")
	}
	if s.manifest, err = s.blob(found[0].Digest); err != nil {
		return err
	}
	if s.mime = found[0].MediaType; s.mime == "" {
		s.mime = manifest.GuessMIMEType(s.manifest)
	}
	return nil
}

// blob reads a small blob and checks it.
func (s *archiveSource) blob(d digest.Digest) ([]byte, error) {
	name, err := s.blobName(d)
	if err != nil {
		return nil, err
	}
	b, err := s.tar.bytes(name)
	if err != nil {
		return nil, err
	}
	if d.Algorithm().FromBytes(b) != d {
		return nil, fmt.Errorf("%s: %w", name, blob.ErrDigest)
	}
	return b, nil
}

func (s *archiveSource) blobName(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w", d, err)
	}
	if s.blobs == nil {
		return "blobs/" + d.Algorithm().String() + "/" + d.Encoded(), nil
	}
	name, ok := s.blobs[d]
	if !ok {
		return "", fmt.Errorf("no blob %s in the archive", d)
	}
	return name, nil
}

// dockerItem is an image in a docker-archive's manifest.json.
type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// readDockerManifest makes a Docker schema 2 manifest of what `docker save`
// and `podman save` write: there, layers are named by their diff ids.
func (s *archiveSource) readDockerManifest(image string) error {
	b, err := s.tar.bytes("manifest.json")
	if err != nil {
		return err
	}
	var items []dockerItem
	if err := json.Unmarshal(b, &items); err != nil {
		return fmt.Errorf("reading manifest.json: %w", err)
	}
	item, err := chooseItem(items, image)
	if err != nil {
		return err
	}
	config, err := s.tar.bytes(item.Config)
	if err != nil {
		return err
	}
	var c imgspec.Image
	if err := json.Unmarshal(config, &c); err != nil {
		return fmt.Errorf("reading %s: %w", item.Config, err)
	}
	if len(c.RootFS.DiffIDs) != len(item.Layers) {
		return fmt.Errorf("manifest.json has %d layers, %s has %d diff ids", len(item.Layers), item.Config, len(c.RootFS.DiffIDs))
	}
	s.blobs = map[digest.Digest]string{digest.FromBytes(config): item.Config}
	var layers []manifest.Schema2Descriptor
	for i, d := range c.RootFS.DiffIDs {
		sec, err := s.tar.find(item.Layers[i])
		if err != nil {
			return err
		}
		s.blobs[d] = item.Layers[i]
		s.infos = append(s.infos, types.BlobInfo{Digest: d, Size: -1}) // may be compressed in the archive
		layers = append(layers, manifest.Schema2Descriptor{MediaType: manifest.DockerV2Schema2LayerMediaType, Digest: d, Size: sec.size})
	}
	m := manifest.Schema2FromComponents(manifest.Schema2Descriptor{
		MediaType: manifest.DockerV2Schema2ConfigMediaType, Digest: digest.FromBytes(config), Size: int64(len(config))}, layers)
	s.mime = manifest.DockerV2Schema2MediaType
	s.manifest, err = m.Serialize()
	return err
}

// chooseItem takes "@INDEX", a name with a tag, or "" for the only image.
func chooseItem(items []dockerItem, image string) (*dockerItem, error) {
	next := "name one: docker-archive:FILE:NAME:TAG or docker-archive:FILE:@INDEX"
	if n, err := strconv.Atoi(strings.TrimPrefix(image, "@")); err == nil && strings.HasPrefix(image, "@") {
		if n < 0 || n >= len(items) {
			return nil, hint.With(fmt.Errorf("no image %d among the %d in the archive", n, len(items)), "%s", next)
		}
		return &items[n], nil
	}
	if image == "" {
		if len(items) != 1 {
			return nil, hint.With(fmt.Errorf("%d images in the archive, expected 1", len(items)), "%s", next)
		}
		return &items[0], nil
	}
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil, err
	}
	want := reference.TagNameOnly(named).String()
	for i := range items {
		for _, tag := range items[i].RepoTags {
			if have, err := reference.ParseNormalizedNamed(tag); err == nil && reference.TagNameOnly(have).String() == want {
				return &items[i], nil
			}
		}
	}
	return nil, hint.With(fmt.Errorf("no image %s in the archive", want), "%s", next)
}

// Reference implements types.ImageSource.
func (s *archiveSource) Reference() types.ImageReference { return s.ref }

// Close implements types.ImageSource.
func (s *archiveSource) Close() error { return s.tar.close() }

// GetManifest implements types.ImageSource.
func (s *archiveSource) GetManifest(_ context.Context, instance *digest.Digest) ([]byte, string, error) {
	if instance == nil {
		return s.manifest, s.mime, nil
	}
	b, err := s.blob(*instance)
	return b, manifest.GuessMIMEType(b), err
}

// GetBlob implements types.ImageSource. Layers of a docker-archive come
// decompressed: their names are diff ids.
func (s *archiveSource) GetBlob(_ context.Context, info types.BlobInfo, _ types.BlobInfoCache) (io.ReadCloser, int64, error) {
	name, err := s.blobName(info.Digest)
	if err != nil {
		return nil, 0, err
	}
	r, size, err := s.tar.file(name)
	if err != nil || s.blobs == nil {
		return r, size, err
	}
	plain, compressed, err := compression.AutoDecompress(r)
	if err != nil {
		return nil, 0, errors.Join(err, r.Close())
	}
	if compressed {
		size = -1
	}
	return &blob.ReadCloser{Reader: plain, Closer: blob.Closers{plain, r}}, size, nil
}

// HasThreadSafeGetBlob implements types.ImageSource.
func (s *archiveSource) HasThreadSafeGetBlob() bool { return true }

// GetSignatures implements types.ImageSource: archives hold none.
func (s *archiveSource) GetSignatures(context.Context, *digest.Digest) ([][]byte, error) {
	return nil, nil
}

// LayerInfosForCopy implements types.ImageSource.
func (s *archiveSource) LayerInfosForCopy(context.Context, *digest.Digest) ([]types.BlobInfo, error) {
	return slices.Clone(s.infos), nil
}
