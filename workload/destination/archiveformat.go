package destination

import (
	"encoding/json"

	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/manifest"
	"github.com/opencontainers/go-digest"
	imgspec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/ccrun/ccrun/workload/layout"
)

// archiveFormat is what tells the kinds of archive apart.
type archiveFormat interface {
	accepts() []string
	layerName(digest.Digest) string
	// rest lists the files after the layer.
	rest(image string, config, manifest []byte, layer digest.Digest) ([]archiveEntry, error)
}

type archiveEntry struct {
	name    string
	content []byte
}

type ociArchive struct{}

func (ociArchive) accepts() []string { return []string{imgspec.MediaTypeImageManifest} }

func (ociArchive) layerName(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }

func (a ociArchive) rest(image string, config, mf []byte, _ digest.Digest) ([]archiveEntry, error) {
	index := layout.NewIndex()
	addImage(index, image, mf)
	b, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	return []archiveEntry{
		{a.layerName(digest.FromBytes(config)), config},
		{a.layerName(digest.FromBytes(mf)), mf},
		{imgspec.ImageIndexFile, b},
		{imgspec.ImageLayoutFile, layout.Version()},
	}, nil
}

type dockerArchive struct{}

func (dockerArchive) accepts() []string { return []string{manifest.DockerV2Schema2MediaType} }

func (dockerArchive) layerName(d digest.Digest) string { return d.Encoded() + ".tar" }

func (a dockerArchive) rest(image string, config, _ []byte, layer digest.Digest) ([]archiveEntry, error) {
	item := struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{digest.FromBytes(config).Encoded() + ".json", []string{}, []string{a.layerName(layer)}}
	if image != "" {
		named, err := reference.ParseNormalizedNamed(image)
		if err != nil {
			return nil, err
		}
		item.RepoTags = append(item.RepoTags, reference.TagNameOnly(named).String())
	}
	mf, err := json.Marshal([]any{item})
	if err != nil {
		return nil, err
	}
	return []archiveEntry{{item.Config, config}, {"manifest.json", mf}}, nil
}
